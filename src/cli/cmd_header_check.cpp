// header check: damage and weakness in a header, found without a key.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/header_view.h"
#include "cli/volume_access.h"
#include "luks/header_check.h"

namespace lukskeep::cli {
namespace {

using luks::Finding;
using luks::HeaderCheck;
using luks::Severity;

OrderedJson to_json(const Finding& finding) {
  OrderedJson json = {{"severity", luks::severity_name(finding.severity)},
                      {"code", finding.code},
                      {"object", finding.object},
                      {"offset", nullptr},
                      {"size", finding.size_bytes},
                      {"problem", finding.problem},
                      {"advice", finding.advice}};
  if (finding.offset_bytes) json["offset"] = *finding.offset_bytes;
  return json;
}

OrderedJson to_json(const HeaderCheck& result) {
  OrderedJson findings = OrderedJson::array();
  for (const Finding& finding : result.findings) findings.push_back(to_json(finding));
  OrderedJson keyslots = OrderedJson::array();
  for (const luks::KeyslotCheck& keyslot : result.keyslots) {
    OrderedJson json = {{"slot", keyslot.keyslot},
                        {"blocks", keyslot.blocks},
                        {"bad_blocks", keyslot.bad_blocks},
                        {"guesses_per_second", nullptr}};
    if (keyslot.guesses_per_second) json["guesses_per_second"] = *keyslot.guesses_per_second;
    keyslots.push_back(std::move(json));
  }
  OrderedJson layout = OrderedJson::array();
  for (const luks::LayoutPart& part : result.layout) {
    layout.push_back(
        {{"offset", part.offset_bytes}, {"size", part.size_bytes}, {"what", part.name}});
  }
  return {{"findings", std::move(findings)},
          {"keyslots", std::move(keyslots)},
          {"layout", std::move(layout)}};
}

// "2 errors, 1 warning, 3 notes".
std::string counts_text(const HeaderCheck& result) {
  std::string text;
  for (const Severity severity : {Severity::kError, Severity::kWarning, Severity::kNote}) {
    const auto count = std::count_if(result.findings.begin(), result.findings.end(),
                                     [&](const Finding& f) { return f.severity == severity; });
    text += fmt::format("{}{} {}{}", text.empty() ? "" : ", ", count, luks::severity_name(severity),
                        count == 1 ? "" : "s");
  }
  return text;
}

std::string to_text(const Finding& finding) {
  std::string where;
  if (finding.offset_bytes && finding.size_bytes != 0) {
    where = fmt::format(", {} bytes from byte {}", finding.size_bytes, *finding.offset_bytes);
  }
  std::string text = fmt::format("  {:<8} {}{}: {}\n", luks::severity_name(finding.severity),
                                 finding.object, where, finding.problem);
  if (!finding.advice.empty()) text += fmt::format("           -> {}\n", finding.advice);
  return text;
}

class HeaderCheckCommand final : public Command {
 public:
  void declare(Options& options) override { volume_.declare(options); }

  void run(const Session& session) override {
    const auto device = open_device(volume_.header_path(), storage::Access::kRead);
    OrderedJson json = {{"volume", volume_.volume}};
    std::string text = printable(volume_.volume, 256);
    const HeaderCheck result = check(session, device, json, text);
    text += "\n";
    const bool good = std::all_of(result.findings.begin(), result.findings.end(),
                                  [](const Finding& f) { return f.severity == Severity::kNote; });
    for (const Finding& finding : result.findings) text += to_text(finding);
    if (!good) session.outcome->exit_status = 1;
    json["good"] = good;
    json.update(to_json(result));
    show(session, json, text + counts_text(result) + "\n");
  }

 private:
  // Also starts `json` and `text` with what the volume is.
  HeaderCheck check(const Session& session, const std::shared_ptr<Device>& device,
                    OrderedJson& json, std::string& text) const {
    std::optional<luks::HeaderFile> file;
    try {
      file.emplace(luks::HeaderFile::open(device));
      volume_.policy.enforce(*file);
    } catch (const Error& error) {
      if (error.code() != Code::kDamaged) throw;
      json["type"] = nullptr;
      json["uuid"] = nullptr;
      return luks::check_broken_header(*device, error);
    }
    const luks::Header& header = file->header();
    json["type"] = header.version == luks::Version::kLuks1 ? "luks1" : "luks2";
    json["uuid"] = header.uuid;
    text += ": " + summary_text(header);
    luks::CheckOptions options{.payload = nullptr, .cancel = session.cancel};
    if (!volume_.header.empty()) {
      options.payload = open_device(volume_.volume, storage::Access::kRead);
    }
    return luks::check_header(*file, options);
  }

  VolumeArgs volume_;
};

}  // namespace

std::unique_ptr<Command> make_header_check() { return std::make_unique<HeaderCheckCommand>(); }

}  // namespace lukskeep::cli
