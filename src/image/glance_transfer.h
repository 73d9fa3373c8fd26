// Moving images to and from Glance: as a whole or not at all, with the secret's consumer beside it.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <lukskeep/device.h>
#include <lukskeep/progress.h>

#include "image/glance.h"
#include "image/inspector.h"
#include "keys/key_manager.h"

namespace lukskeep::image {

// The image as a user of the secret, as Glance's specification names it.
keys::Consumer consumer_of(const std::string& image_id);

// Where an image and its secret go; the key manager may be null.
struct Services {
  std::unique_ptr<Glance> glance;
  std::unique_ptr<keys::KeyManager> manager;
};
// With a token that ends their waiting, or null: what was begun is undone after Ctrl-C too.
using MakeServices = std::function<Services(const CancelToken* cancel)>;

struct UploadOptions {
  std::string id;  // of the new image
  std::string name;
  Properties properties;
  std::string hash_algorithm = "sha512";
  // Of the secret that opens it; empty: none. The image becomes its consumer.
  std::string key_id;
  ProgressCallback progress;
  const CancelToken* cancel = nullptr;
};

struct Uploaded {
  GlanceImage image;
  bool consumer = false;  // false: there is no secret, or the key manager knows no consumers
};

// Makes the image, uploads the data and compares what the service says of it with what was read.
// What fails is undone: the image is removed, and its consumer; where that fails too, the error's
// hint names what is left. An answer that was lost is found out about.
Uploaded upload_image(const MakeServices& make, const Device& device, const UploadOptions& options);

struct DownloadWork {
  ProgressCallback progress;
  const CancelToken* cancel = nullptr;
};

// Goes on where `part` ends, again and again while bytes arrive, or from the start if the service
// has no checksum; `part` has the whole image in the end, with that checksum. Throws
// Error{kDamaged} if it has another; the part is of no use then. Throws {kRemote} if fewer bytes
// come than there should be, or if the service does not say how many.
void download_image(Glance& glance, const GlanceImage& image, Device& part,
                    const DownloadWork& work);

struct Verified {
  Report report;
  bool checksum_known = false;
};
// Reads all of the data, from the service or from `file`, and inspects it. Throws Error{kDamaged}
// if its size or checksum is not what the service says, and what download_image throws.
Verified verify_image(Glance& glance, const GlanceImage& image, const Device* file,
                      const DownloadWork& work);

struct Removed {
  bool key_deleted = false;
  std::string key_kept_because;  // empty if it was deleted, or if it was never to be
};
// Removes the image, its consumer, and the secret where all properties say so and the image is
// known as its consumer, the only one. Glance of some releases deletes a secret that others use:
// what is to be kept is kept by removing the deletion policies of the image first.
Removed remove_image(Glance& glance, const GlanceImage& image, keys::KeyManager* manager);

}  // namespace lukskeep::image
