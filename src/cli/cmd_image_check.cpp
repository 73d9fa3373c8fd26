// image volume-check: whether an image may become a volume of a type that Cinder knows.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "cli/cmd_image.h"
#include "cli/copy_args.h"
#include "cli/image_source.h"
#include "cli/inspection.h"
#include "cli/key_manager_args.h"
#include "image/volume_type.h"
#include "keys/key_source.h"
#include "keys/passphrase_resolver.h"
#include "luks/header_file.h"
#include "storage/copy.h"
#include "storage/file_device.h"
#include "storage/memory_device.h"

namespace lukskeep::cli {
namespace {

using image::BackEnd;
using image::Verdict;

std::string read_text_file(const Session& session, const std::string& path) {
  storage::MemoryDevice memory{Bytes()};
  if (is_pipe(path)) {
    storage::copy_from_fd(0, memory, limits::kVolumeTypeBytesMax + 1, 1,
                          {.phase = "receive", .cancel = session.cancel});
  } else {
    const auto file = storage::open_file(path, {.lock = false});
    const std::uint64_t size =
        std::min<std::uint64_t>(file->size_bytes(), limits::kVolumeTypeBytesMax + 1);
    memory.resize(size);
    storage::copy(*file, memory, size, {.cancel = session.cancel});
  }
  if (memory.size_bytes() > limits::kVolumeTypeBytesMax) {
    throw Error(Code::kInvalidArgument,
                fmt::format("'{}' is too large for a volume type", printable(path, 256)));
  }
  return std::string(as_string_view(memory.contents()));
}

class ImageVolumeCheck final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "FILE", .help = "the image: a file, a block device or a URI"},
                       source_.path);
    options.add({.name = "--type-json",
                 .value = "FILE",
                 .help = "the volume type, as 'openstack volume type show --encryption-type -f "
                         "json' prints it; - for standard input"},
                type_path_);
    options.add({.name = "--back-end",
                 .value = "KIND",
                 .help = "who encrypts the volumes: brick (os-brick and cryptsetup: LVM, iSCSI, "
                         "FC) or rbd; default: both must do",
                 .choices = {"brick", "rbd"}},
                back_end_);
    options.add({.name = "--volume-size",
                 .value = "GIB",
                 .help = "the size of the volume that is asked for, in GiB"},
                size_gib_);
    options.add({.name = "--key",
                 .value = "SOURCE",
                 .help = "look into an encrypted image as well; manager:ID is also checked for "
                         "what Nova makes of that secret"},
                key_);
    source_.declare_allow(options);
    declare_kdf_limit(options, limits_.kdf_limit);
  }

  void run(const Session& session) override {
    if (type_path_.empty()) {
      throw Error(Code::kUsage, "--type-json is missing: a volume type is needed",
                  "openstack volume type show NAME --encryption-type -f json");
    }
    const image::VolumeType type = image::parse_volume_type(
        read_text_file(session, type_path_), fmt::format("'{}'", printable(type_path_, 256)));
    if (key_) {
      limits_.key = *key_;
      source_.keys = limits_;
    }
    const ImageSource source = inspect_source(session, source_);
    judge(session, type, source);
    const bool allowed = std::all_of(verdicts_.begin(), verdicts_.end(),
                                     [](const Verdict& verdict) { return verdict.allowed(); });
    if (!allowed) session.outcome->exit_status = exit_status(Code::kUnsafe);
    show(session, to_json(type, source, allowed), to_text(type, source, allowed));
  }

 private:
  void judge(const Session& session, const image::VolumeType& type, const ImageSource& source) {
    const image::Report& report = source.report;
    image::ImageFacts facts{.format = report.format,
                            .encrypted = report.encrypted,
                            .size_bytes = report.size_bytes,
                            .virtual_size_bytes = report.virtual_size_bytes};
    if (report.inner) facts.inner_format = report.inner->format;
    std::optional<luks::HeaderFile> header;
    // A header that is not safe is not looked at again.
    if (report.safe() && report.encrypted && !source.in_qcow2()) {
      header = luks::HeaderFile::open(source.file);
      facts.header = &header->header();
      if (key_) look_at_secret(session, *header, facts);
    }
    for (const BackEnd back_end : {BackEnd::kBrick, BackEnd::kRbd}) {
      if (back_end_ && *back_end_ != image::back_end_name(back_end)) continue;
      verdicts_.push_back(image::judge_volume(type, facts, back_end, size_gib_));
      if (report.safe()) continue;
      verdicts_.back().reasons.insert(
          verdicts_.back().reasons.begin(),
          {.name = "not-safe", .what = danger_text(report), .remedy = "see 'lukskeep inspect'"});
    }
  }

  void look_at_secret(const Session& session, const luks::HeaderFile& header,
                      image::ImageFacts& facts) const {
    const keys::KeySource source = keys::parse_key_source(key_.value_or(""));
    if (source.kind != keys::KeySource::Kind::kManager) return;
    const keys::Secret secret = open_key_manager(session)->get(source.path);
    facts.key_type = secret.info.type;
    if (secret.info.type != keys::SecretType::kSymmetric) return;
    const auto hex = keys::apply_encoding(keys::Encoding::kHex, secret.payload.span());
    facts.hex_opens =
        hex && luks::unlock(header, hex->span(), limits_.unlock_options(session)).has_value();
  }

  OrderedJson to_json(const image::VolumeType& type, const ImageSource& source,
                      bool allowed) const {
    OrderedJson back_ends = OrderedJson::object();
    for (const Verdict& verdict : verdicts_) {
      OrderedJson reasons = OrderedJson::array();
      for (const image::Reason& reason : verdict.reasons) {
        reasons.push_back({{"name", reason.name},
                           {"refuses", reason.refuses},
                           {"what", reason.what},
                           {"remedy", reason.remedy}});
      }
      back_ends[std::string(image::back_end_name(verdict.back_end))] = {
          {"allowed", verdict.allowed()},
          {"cipher", verdict.cipher.empty() ? OrderedJson() : OrderedJson(verdict.cipher)},
          {"key_bits", verdict.key_bits ? OrderedJson(*verdict.key_bits) : OrderedJson()},
          {"volume_bytes_min", verdict.volume_bytes_min},
          {"volume_gib_min", verdict.size_gib_min},
          {"reasons", std::move(reasons)}};
    }
    return {{"file", source_.path},
            {"type", type.name},
            {"type_encrypted", type.encrypted()},
            {"allowed", allowed},
            {"back_ends", std::move(back_ends)},
            {"image", report_json(source.report)}};
  }

  std::string to_text(const image::VolumeType& type, const ImageSource& source,
                      bool allowed) const {
    std::string text = fmt::format(
        "{} ({}{}) as a volume of type '{}' ({}): {}\n", printable(source_.path, 256),
        source.report.format, source.report.encrypted ? ", encrypted" : "", printable(type.name),
        type.encrypted() ? printable(type.provider) : "not encrypted", allowed ? "yes" : "NO");
    for (const Verdict& verdict : verdicts_) {
      text += fmt::format("  {:<6} {}, {} GiB or more{}\n", image::back_end_name(verdict.back_end),
                          verdict.allowed() ? "yes" : "NO", verdict.size_gib_min,
                          verdict.key_bits ? fmt::format(", {} with a {}-bit key", verdict.cipher,
                                                         *verdict.key_bits)
                                           : std::string());
      for (const image::Reason& reason : verdict.reasons) {
        text += fmt::format("    {:<8} {}: {}\n             -> {}\n",
                            reason.refuses ? "refused" : "note", reason.name, reason.what,
                            reason.remedy);
      }
    }
    return text;
  }

  ImageSourceArgs source_;
  std::string type_path_;
  std::optional<std::string> back_end_;
  std::optional<std::uint32_t> size_gib_;
  std::optional<std::string> key_;
  KeyArgs limits_;
  std::vector<Verdict> verdicts_;
};

}  // namespace

std::unique_ptr<Command> make_image_volume_check() { return std::make_unique<ImageVolumeCheck>(); }

}  // namespace lukskeep::cli
