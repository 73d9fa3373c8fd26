// A bucket of object storage (Amazon S3, Ceph's radosgw, MinIO, …) as a mirror of an archive.
//
// Object names are the store's file names below a prefix. Versioned buckets and object lock need
// nothing of us: a snapshot is written once, with a checksum, and never removed.
// Source: Amazon S3 API reference 2006-03-01 (PutObject, GetObject, ListObjectsV2).
#pragma once

#include "archive/mirror.h"

namespace lukskeep::archive {

struct BucketLocation {
  std::string endpoint;  // "https://host:port"
  std::string bucket;
  std::string prefix;  // empty, or ends with "/"
};

// "s3+https://HOST[:PORT]/BUCKET[/PREFIX]". Throws kInvalidArgument.
BucketLocation parse_bucket(std::string_view uri);

struct ListedObjects {
  std::vector<std::string> keys;
  std::string continuation;  // empty: this was the last page
};

// The answer to ListObjectsV2. Throws Error{kRemote} naming `what` for anything else.
ListedObjects parse_object_list(ByteView xml, std::string_view what);

std::unique_ptr<Mirror> open_s3_mirror(const BucketLocation& location,
                                       const MirrorOptions& options);

}  // namespace lukskeep::archive
