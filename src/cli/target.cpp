#include "cli/target.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/uuid.h"
#include "cli/volume_access.h"
#include "storage/extents.h"
#include "storage/file_device.h"

namespace lukskeep::cli {
namespace {

std::string quoted(const std::string& path) { return fmt::format("'{}'", printable(path, 256)); }

bool any_byte_set(const Device& device, std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  Bytes piece(std::min<std::uint64_t>(length_bytes, limits::kMiB));
  while (length_bytes > 0) {
    const MutableBytes part =
        MutableBytes(piece).first(std::min<std::uint64_t>(length_bytes, piece.size()));
    device.read(offset_bytes, part);
    if (!all_zero(part)) return true;
    offset_bytes += part.size();
    length_bytes -= part.size();
  }
  return false;
}

// A file that is gone by now is no harm: nothing is lost by making it anew.
void refuse_another_kind(const std::string& path, PathKind settled, PathKind present) {
  if (present == settled || present == PathKind::kAbsent) return;
  if (settled == PathKind::kAbsent) {
    throw Error(Code::kExists, fmt::format("{} was made by somebody else meanwhile", quoted(path)),
                "look at it, and try again");
  }
  throw Error(Code::kConflict,
              fmt::format("{} is {} now, which it was not when it was looked at", quoted(path),
                          present == PathKind::kFile ? "a file" : "a device"),
              "look at it, and try again");
}

// Files are looked at whole, which their holes make quick; of a device, which may take hours to
// read, the two ends, where file systems, partition tables and headers have their magic.
bool holds_data(const Device& device, PathKind kind) {
  const std::uint64_t size = device.size_bytes();
  if (kind == PathKind::kDevice) {
    const std::uint64_t end_bytes = std::min(size, 64 * limits::kMiB);
    return any_byte_set(device, 0, end_bytes) || any_byte_set(device, size - end_bytes, end_bytes);
  }
  return storage::any_extent(device, 0, size, [&](const Extent& extent) {
    return !extent.zero && any_byte_set(device, extent.offset_bytes, extent.length_bytes);
  });
}

}  // namespace

PathKind kind_of(const std::string& path) { return storage::kind_of(path); }

void refuse_same(const std::string& source, const std::string& destination) {
  if (!storage::same_place(source, destination)) return;
  throw Error(Code::kUsage,
              fmt::format("{} and {} are the same", quoted(source),
                          source == destination ? "the destination" : quoted(destination)),
              "write to another file");
}

void refuse_resized(const std::string& path, std::uint64_t size_bytes) {
  const auto device = open_to_look(path);
  const std::uint64_t present_bytes = device->size_bytes();
  if (present_bytes == size_bytes) return;
  throw Error(
      Code::kConflict,
      fmt::format("{} has {} from {} to {} bytes while it was read", quoted(path),
                  present_bytes > size_bytes ? "grown" : "shrunk", size_bytes, present_bytes),
      "stop what writes to it, or copy a snapshot of it");
}

PathKind confirm_overwrite(const Session& session, const std::string& path) {
  const PathKind kind = kind_of(path);
  if (kind == PathKind::kAbsent) return kind;
  // What is lost is the file, be it an image of no data or no image at all.
  const auto file = kind == PathKind::kFile ? storage::local_path(path) : std::nullopt;
  const auto device = open_to_look(file.value_or(path));
  if (!holds_data(*device, kind)) return kind;
  confirm(session, fmt::format("{} holds data. It will be lost.", quoted(path)),
          Error(Code::kExists, fmt::format("{} holds data", quoted(path))));
  return kind;
}

bool encrypts_image(const std::string& path, PathKind settled, bool luks1, bool detached_header) {
  return storage::scheme_of(path) == storage::Scheme::kQcow2 && settled != PathKind::kDevice &&
         luks1 && !detached_header;
}

Target::Target(const std::string& path, PathKind settled, storage::CreateOptions options) {
  const PathKind present = kind_of(path);
  refuse_another_kind(path, settled, present);
  if (present != PathKind::kDevice) {
    options.replace = present == PathKind::kFile;
    *this = Target(storage::create_location(path, options));
    return;
  }
  device_ = open_device(path, storage::Access::kReadWrite, options.direct);
  if (device_->size_bytes() < options.size_bytes) {
    throw Error(Code::kTooSmall, fmt::format("{} has {} bytes, {} are needed", quoted(path),
                                             device_->size_bytes(), options.size_bytes));
  }
}

Target::Target(std::unique_ptr<storage::PendingDevice> pending)
    : pending_(std::move(pending)),
      // Not an owner: `pending_` is.
      device_(std::shared_ptr<void>(), &pending_->device()) {}

void Target::commit() {
  if (pending_) {
    pending_->commit();
  } else {
    device_->flush();
  }
}

Target make_spool(std::uint64_t size_bytes) {
  const char* directory = std::getenv("TMPDIR");
  const std::string path = fmt::format(
      "{}/lukskeep-spool-{}", directory == nullptr || *directory == '\0' ? "/var/tmp" : directory,
      random_uuid());
  return Target(std::make_unique<storage::PendingFile>(path, size_bytes, false));
}

}  // namespace lukskeep::cli
