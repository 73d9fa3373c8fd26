// Folders that outlive a power cut, and that nobody else may write to.
#pragma once

#include <string>

namespace lukskeep::storage {

// Makes `path` and what is missing above it (mode 0777 less the umask), each durable before the
// next. Throws kPermissionDenied, kNotFound, kNoSpace, kReadOnly, kIo. An empty path is the working
// directory.
void make_folders(const std::string& path);

// The same, with mode 0700 for the last one. If that is there already it stays as it is.
void make_private_folder(const std::string& path);

// Throws kUnsafe unless `path` is a folder of this user that nobody else can write to. A symbolic
// link to one is as good if it is this user's, or root's.
void require_own_folder(const std::string& path);

}  // namespace lukskeep::storage
