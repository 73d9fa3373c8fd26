// policy show, check: what a header may say, and whether one does.
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/volume_access.h"
#include "luks/policy.h"

namespace lukskeep::cli {
namespace {

constexpr const char* kDefaultPolicy = "untrusted";

class PolicyShow final : public Command {
 public:
  void declare(Options& options) override {
    options.optional_positional(
        {.name = "NAME|FILE", .help = "a policy (default: list those that are built in)"}, source_);
  }

  void run(const Session& session) override {
    if (source_.empty()) return list(session);
    const luks::Policy policy = luks::load_policy(source_);
    const std::string_view builtin = luks::builtin_policy_text(source_);
    show(session, {{"name", policy.name}, {"policy", luks::to_json(policy)}},
         builtin.empty() ? luks::to_toml(policy) : builtin);
  }

 private:
  static void list(const Session& session) {
    OrderedJson policies = OrderedJson::array();
    std::string text;
    for (const std::string_view name : luks::builtin_policy_names()) {
      const luks::Policy policy = luks::load_policy(std::string(name));
      policies.push_back({{"name", name}, {"description", policy.description}});
      text += fmt::format("{:<12}{}\n", name, policy.description);
    }
    show(session, {{"policies", policies}}, text);
  }

  std::string source_;
};

// What a policy could pin.
struct Pins {
  std::optional<std::string> fingerprint;  // absent: the device ends before its header does
  std::vector<std::string> digests;        // of segments, hex
};

Pins pins_of(const luks::HeaderFile& file) {
  Pins pins;
  try {
    pins.fingerprint = luks::header_fingerprint(file);
  } catch (const Error& error) {
    if (error.code() != Code::kTooSmall && error.code() != Code::kUnsupported) throw;
  }
  for (const auto& [id, digest] : file.header().digests) {
    if (!digest.segments.empty() && !digest.digest.empty()) {
      pins.digests.push_back(to_hex(digest.digest));
    }
  }
  return pins;
}

class PolicyCheck final : public Command {
 public:
  void declare(Options& options) override { volume_.declare(options); }

  void run(const Session& session) override {
    const luks::Policy policy = luks::load_policy(volume_.policy.source.value_or(kDefaultPolicy));
    const luks::HeaderFile file = open_header_unjudged(volume_);
    const Pins pins = pins_of(file);
    const auto violations = luks::judge(policy, file.header(), pins.fingerprint);
    if (!violations.empty()) session.outcome->exit_status = exit_status(Code::kUnsafe);
    show(session, to_json(policy, pins, violations), to_text(policy, pins, violations));
  }

 private:
  OrderedJson to_json(const luks::Policy& policy, const Pins& pins,
                      const std::vector<luks::Violation>& violations) const {
    OrderedJson list = OrderedJson::array();
    for (const luks::Violation& violation : violations) {
      list.push_back({{"rule", violation.rule},
                      {"object", violation.object},
                      {"found", violation.found},
                      {"message", violation.message}});
    }
    return {{"volume", volume_.volume},
            {"policy", policy.name},
            {"allowed", violations.empty()},
            {"violations", list},
            {"fingerprint", pins.fingerprint ? OrderedJson(*pins.fingerprint) : OrderedJson()},
            {"volume_key_digests", pins.digests}};
  }

  std::string to_text(const luks::Policy& policy, const Pins& pins,
                      const std::vector<luks::Violation>& violations) const {
    std::string text = fmt::format(
        "policy '{}' {} the header of '{}'\n", printable(policy.name, 256),
        violations.empty() ? "allows" : "does not allow", printable(volume_.volume, 256));
    for (const luks::Violation& violation : violations) text += "  " + violation.message + "\n";
    text += "\nto pin it\n";
    text += fmt::format("  fingerprint        {}\n", pins.fingerprint.value_or("none: it is cut"));
    for (const std::string& digest : pins.digests) {
      text += fmt::format("  volume key digest  {}\n", digest);
    }
    return text;
  }

  VolumeArgs volume_;
};

}  // namespace

std::unique_ptr<Command> make_policy_show() { return std::make_unique<PolicyShow>(); }
std::unique_ptr<Command> make_policy_check() { return std::make_unique<PolicyCheck>(); }

}  // namespace lukskeep::cli
