// Opening qcow2 images by path, with the files that they name.
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "storage/file_device.h"
#include "storage/image_lock.h"
#include "storage/location.h"
#include "storage/qcow2.h"
#include "storage/qcow2_image.h"

namespace lukskeep::storage {
namespace {

class ChainOpener {
 public:
  explicit ChainOpener(const Qcow2Options& options) : options_(options) {}

  std::unique_ptr<Device> open(const std::string& path, Access access) {
    enter(path);
    Qcow2Devices devices{.file = open_one(path, access), .writable = access == Access::kReadWrite};
    const qcow2::Header header = qcow2::read_header(*devices.file);
    // The image itself is opened by whoever asked for it. Counted from the top, opened from below.
    const bool decrypted_here =
        chain_.size() > 1 && header.crypt_method == qcow2::CryptMethod::kLuks;
    if (decrypted_here) refuse_without_key(path);
    const unsigned above = decrypted_here ? encrypted_++ : 0;
    if (!header.backing_file.empty() && options_.allow_backing) {
      devices.backing = open_backing(path, header);
    }
    if (header.has_data_file() && options_.allow_data_file) {
      if (!header.data_file) {
        throw Error(Code::kUnsafe, fmt::format("'{}' does not say which file its data is in",
                                               printable(path, 256)));
      }
      devices.data_file = open_one(resolve(path, *header.data_file), Access::kRead);
    }
    std::unique_ptr<Device> opened = open_qcow2_on(std::move(devices));
    return decrypted_here ? options_.open_encrypted(std::move(opened), above) : std::move(opened);
  }

 private:
  // Whoever made the image may have made a loop of it.
  void enter(const std::string& path) {
    for (const std::string& other : chain_) {
      if (!same_place(other, path)) continue;
      throw Error(Code::kDamaged, fmt::format("'{}' is its own backing file, over {} others",
                                              printable(path, 256), chain_.size() - 1));
    }
    if (chain_.size() == limits::kQcow2ChainMax) {
      throw Error(Code::kUnsupported,
                  fmt::format("'{}' has a chain of more than {} backing files",
                              printable(chain_.front(), 256), limits::kQcow2ChainMax - 1),
                  "shorten it with qemu-img commit or rebase");
    }
    chain_.push_back(path);
  }

  std::shared_ptr<Device> open_one(const std::string& path, Access access) const {
    std::shared_ptr<Device> file =
        open_file(path, {.access = access, .lock = false, .direct = options_.direct});
    if (options_.lock) lock_image(*file, access);
    return file;
  }

  // Names with a protocol ("nbd://", "json:") would make this program talk to whom the image says.
  static std::string resolve(const std::string& image, std::string name) {
    if (name.starts_with("file:")) name.erase(0, 5);
    const std::size_t colon = name.find(':');
    if (name.empty() || (colon != std::string::npos && colon < name.find('/'))) {
      throw Error(Code::kUnsafe, fmt::format("'{}' names another file as '{}', which is no path",
                                             printable(image, 256), printable(name, 256)));
    }
    // Relative to the directory of the image.
    return (std::filesystem::path(image).parent_path() / name).string();
  }

  std::shared_ptr<Device> open_backing(const std::string& path, const qcow2::Header& header) {
    const std::string backing = resolve(path, header.backing_file);
    const std::string format = header.backing_format.value_or("");
    if (format == "raw") {
      enter(backing);
      return open_one(backing, Access::kRead);
    }
    if (format != "qcow2") {
      throw Error(
          Code::kUnsafe,
          fmt::format("'{}' {} of its backing file '{}'", printable(path, 256),
                      format.empty() ? std::string("does not name the format")
                                     : fmt::format("says '{}' of the format", printable(format)),
                      printable(backing, 256)),
          "only raw and qcow2 are read, and never guessed; qemu-img rebase -u -F FORMAT "
          "names it");
    }
    return open(backing, Access::kRead);
  }

  void refuse_without_key(const std::string& backing) const {
    if (options_.open_encrypted) return;
    throw Error(Code::kUnsupported,
                fmt::format("'{}' has an encrypted backing file, '{}', with a key of its own",
                            printable(chain_.front(), 256), printable(backing, 256)),
                "--backing-key SOURCE opens it, or decrypt it first");
  }

  const Qcow2Options& options_;
  std::vector<std::string> chain_;
  unsigned encrypted_ = 0;  // backing files so far
};

}  // namespace

std::unique_ptr<Device> open_qcow2(const std::string& path, const Qcow2Options& options) {
  return ChainOpener(options).open(path, options.access);
}

}  // namespace lukskeep::storage
