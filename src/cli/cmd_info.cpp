// info: what a header says.
#include "cli/command.h"
#include "cli/header_view.h"
#include "cli/volume_access.h"
#include "luks/crypt_device.h"
#include "luks/layout.h"
#include "storage/qcow2.h"

namespace lukskeep::cli {
namespace {

// Of LUKS in qcow2; null for others.
const storage::EncryptedImage* in_image(const luks::HeaderFile& file) {
  return dynamic_cast<const storage::EncryptedImage*>(file.device().get());
}

// A header that is apart from its payload says only where the payload starts.
std::optional<std::uint64_t> payload_size(const VolumeArgs& args, const luks::HeaderFile& file) {
  const luks::Header& header = file.header();
  if (!args.header.empty()) {
    const auto payload = open_device(args.volume, storage::Access::kRead);
    return luks::payload_size_bytes(header, payload->size_bytes());
  }
  if (const auto* image = in_image(file)) return image->contents_bytes();
  const std::uint64_t offset_bytes = luks::payload_offset_bytes(header);
  const std::uint64_t device_bytes = file.device()->size_bytes();
  if (offset_bytes < luks::header_size_bytes(header) || device_bytes <= offset_bytes) return {};
  return luks::payload_size_bytes(header, device_bytes);
}

class InfoCommand final : public Command {
 public:
  void declare(Options& options) override { volume_.declare(options); }

  void run(const Session& session) override {
    const luks::HeaderFile file = open_header(volume_);
    const VolumeView view{.name = volume_.volume,
                          .header = file.header(),
                          .report = file.report(),
                          .payload_size_bytes = payload_size(volume_, file),
                          .in_image = volume_.header.empty() && in_image(file) != nullptr};
    // Only one of them: the other would be work for nothing.
    if (session.json) {
      print_json(info_json(view));
    } else {
      print(info_text(view));
    }
  }

 private:
  VolumeArgs volume_;
};

}  // namespace

std::unique_ptr<Command> make_info() { return std::make_unique<InfoCommand>(); }

}  // namespace lukskeep::cli
