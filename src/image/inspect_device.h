// Inspecting what can be read anywhere: only the parts that matter are read, and with a key also
// what is under the encryption.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include <lukskeep/device.h>
#include <lukskeep/progress.h>

#include "image/inspector.h"
#include "luks/header_file.h"
#include "luks/keyslots.h"

namespace lukskeep::image {

// Opens a volume found at `layer` (0: the file itself). Absent: no key that is there opens it.
using Unlocker =
    std::function<std::optional<luks::Unlocked>(const luks::HeaderFile& file, unsigned layer)>;

struct InspectOptions {
  InspectorOptions inspector;      // `expected` is about the file itself
  Unlocker unlock;                 // none: what is encrypted stays unseen, which is a note
  std::shared_ptr<Device> header;  // of a detached header: the device is its payload
  // Opens `device`, a qcow2 image that is encrypted, with the files that it names. Absent: an image
  // that names any is not looked into (kUnsafe).
  std::function<std::shared_ptr<Device>()> open_image;
  const CancelToken* cancel = nullptr;
};

// The verdict on `device`, and on what is encrypted within it, layer by layer up to
// limits::kInspectLayersMax. A header that is dangerous is not opened. With an `unlock` that opens
// nothing, or if there are more layers, the verdict is unsafe. Memory: that of two inspectors and
// what the KDF takes. Throws what reading throws, what `unlock` throws, kInterrupted, and kNotLuks
// if options.header is no header.
Report inspect(const std::shared_ptr<Device>& device, const InspectOptions& options);

}  // namespace lukskeep::image
