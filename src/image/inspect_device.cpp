#include "image/inspect_device.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "image/luks_judgement.h"
#include "luks/crypt_device.h"
#include "storage/qcow2.h"

namespace lukskeep::image {
namespace {

constexpr std::size_t kChunkBytes = 64 * limits::kKiB;

class Inspection {
 public:
  explicit Inspection(const InspectOptions& options) : options_(options) {}

  Report run(const std::shared_ptr<Device>& device, const std::shared_ptr<Device>& header,
             unsigned layer) const;

 private:
  Report read(const Device& device, bool as_expected) const;
  void look_inside(Report& report, const std::shared_ptr<Device>& header,
                   const std::shared_ptr<Device>& payload, unsigned layer) const;
  std::shared_ptr<Device> open_volume(const std::shared_ptr<Device>& header,
                                      const std::shared_ptr<Device>& payload, unsigned layer) const;
  void replace_unseen(Report& report, std::string_view name, std::string what) const;

  const InspectOptions& options_;
};

Report Inspection::read(const Device& device, bool as_expected) const {
  InspectorOptions chosen = options_.inspector;
  if (!as_expected) chosen.expected.clear();
  Inspector inspector(std::move(chosen));
  const std::uint64_t size = device.size_bytes();
  Bytes chunk(static_cast<std::size_t>(std::min<std::uint64_t>(size, kChunkBytes)));
  for (std::uint64_t at = 0; at < size;) {
    if (options_.cancel != nullptr) options_.cancel->check();
    if (const std::uint64_t idle = inspector.skippable(size); idle != 0) {
      inspector.skip(idle);
      at += idle;
      continue;
    }
    const auto part = MutableBytes(chunk).first(
        static_cast<std::size_t>(std::min<std::uint64_t>(size - at, chunk.size())));
    device.read(at, part);
    inspector.feed(part);
    at += part.size();
  }
  return inspector.finish();
}

// What was encrypted is seen now, or there is a reason why not.
void Inspection::replace_unseen(Report& report, std::string_view name, std::string what) const {
  std::erase_if(report.findings,
                [](const Finding& finding) { return finding.name == "luks-unseen"; });
  if (name.empty()) return;
  Match match{.format = report.format};
  match.add(name, std::move(what));
  match.findings.front().allowed = options_.inspector.allow.contains(name);
  report.findings.push_back(std::move(match.findings.front()));
}

void Inspection::look_inside(Report& report, const std::shared_ptr<Device>& header,
                             const std::shared_ptr<Device>& payload, unsigned layer) const {
  if (layer + 1 >= limits::kInspectLayersMax) {
    return replace_unseen(
        report, "too-deep",
        fmt::format("there are more than {} layers", limits::kInspectLayersMax - 1));
  }
  std::shared_ptr<Device> plain;
  std::string reason = "the key opens none of its keyslots";
  try {
    plain = open_volume(header, payload, layer);
  } catch (const Error& error) {
    // Of the file itself the caller wants to know; of what is within it is a verdict.
    if (layer == 0 || error.code() == Code::kInterrupted) throw;
    reason = error.message();
  }
  if (!plain) return replace_unseen(report, "luks-unopened", reason);
  report.payload_size_bytes = plain->size_bytes();
  report.inner = std::make_unique<Report>(run(plain, plain, layer + 1));
  report.virtual_size_bytes = report.inner->virtual_size_bytes;
  replace_unseen(report, {}, {});
}

// Null if no key opens it.
std::shared_ptr<Device> Inspection::open_volume(const std::shared_ptr<Device>& header,
                                                const std::shared_ptr<Device>& payload,
                                                unsigned layer) const {
  const luks::HeaderFile file = luks::HeaderFile::open(header);
  // It was read again: what is used is what must be safe.
  Match again{.format = "luks"};
  judge_luks(file.header(), again);
  for (const Finding& finding : again.findings) {
    if (options_.inspector.allow.contains(finding.name)) continue;
    throw Error(Code::kConflict,
                fmt::format("the header of '{}' changed while it was inspected", header->name()));
  }
  const bool in_image = dynamic_cast<const storage::EncryptedImage*>(payload.get()) != nullptr;
  if (header == payload && !in_image) luks::check_payload_apart(file.header(), *payload);
  const std::optional<luks::Unlocked> key = options_.unlock(file, layer);
  if (!key) return nullptr;
  const bool insecure = options_.inspector.allow.contains("luks-null-cipher");
  return luks::make_crypt_device(file.header(), payload, key->key.span(),
                                 {.allow_insecure = insecure});
}

Report Inspection::run(const std::shared_ptr<Device>& device, const std::shared_ptr<Device>& header,
                       unsigned layer) const {
  Report report = read(*device, layer == 0 && header == device);
  if (header != device) {
    // The payload looks like noise; what it is the header says.
    Report second = read(*header, true);
    if (second.format != "luks1" && second.format != "luks2") {
      throw Error(Code::kNotLuks,
                  fmt::format("'{}' is {}, no LUKS header", header->name(), second.format));
    }
    if (report.format == "raw") report.formats.clear();
    report.formats.insert(report.formats.begin(), second.format);
    report.format = std::exchange(second.format, {});
    report.variant = std::move(second.variant);
    report.encrypted = true;
    report.payload_size_bytes = report.size_bytes;
    report.virtual_size_bytes = report.size_bytes;
    for (Finding& finding : second.findings) {
      if (finding.name == "luks-no-payload" || finding.name == "luks-truncated") continue;
      report.findings.push_back(std::move(finding));
    }
  }
  if (!options_.unlock || !report.encrypted || !report.safe()) return report;
  if (report.format == "qcow2") {
    // Its contents are clusters of the image, and of files that it names, if that is allowed.
    const std::shared_ptr<Device> image = layer == 0 && options_.open_image
                                              ? options_.open_image()
                                              : storage::open_qcow2_on({.file = device});
    look_inside(report, image, image, layer);
  } else if (report.payload_size_bytes.value_or(0) != 0) {
    look_inside(report, header, device, layer);
  }
  return report;
}

}  // namespace

Report inspect(const std::shared_ptr<Device>& device, const InspectOptions& options) {
  return Inspection(options).run(device, options.header ? options.header : device, 0);
}

}  // namespace lukskeep::image
