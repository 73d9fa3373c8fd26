// config, erase: the rest of what a header holds, and its end.
#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <set>
#include <string>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/header_view.h"
#include "cli/units.h"
#include "cli/volume_access.h"
#include "luks/keyslots.h"

namespace lukskeep::cli {
namespace {

// What cryptsetup honours on activation (LUKS2 §3.2.6).
constexpr std::array<std::string_view, 6> kFlags = {"allow-discards",         "same-cpu-crypt",
                                                    "submit-from-crypt-cpus", "no-read-workqueue",
                                                    "no-write-workqueue",     "no-journal"};

std::set<std::string> parse_flags(std::string_view text) {
  std::set<std::string> flags;
  while (!text.empty()) {
    const std::string_view flag = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), flag.size() + 1));
    if (std::find(kFlags.begin(), kFlags.end(), flag) == kFlags.end()) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("there is no persistent flag '{}'", printable(flag)),
                  fmt::format("the flags are {}", fmt::join(kFlags, ", ")));
    }
    flags.emplace(flag);
  }
  return flags;
}

class ConfigCommand final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    options.add({.name = "--label", .value = "TEXT", .help = "name the volume; '' for none"},
                label_);
    options.add({.name = "--subsystem", .value = "TEXT", .help = "its second name; '' for none"},
                subsystem_);
    options.add({.name = "--priority",
                 .value = "WHEN",
                 .help = "when the keyslot of --slot is tried",
                 .choices = {"prefer", "normal", "ignore"}},
                priority_);
    options.add({.name = "--slot", .value = "N", .help = "the keyslot for --priority"}, slot_);
    options.add({.name = "--flags",
                 .value = "LIST",
                 .help = "activation flags, with commas between, that are kept in the header: "
                         "allow-discards, same-cpu-crypt, submit-from-crypt-cpus, "
                         "no-read-workqueue, no-write-workqueue, no-journal; '' for none"},
                flags_);
  }

  void run(const Session& session) override {
    if (priority_.has_value() != slot_.has_value()) {
      throw Error(Code::kUsage, "--priority and --slot belong together");
    }
    if (!label_ && !subsystem_ && !priority_ && !flags_) {
      const luks::HeaderFile file = open_header(volume_);
      return show(session, to_json(file.header()), to_text(file.header()) + "\n");
    }
    luks::HeaderFile file = open_header_for_change(session, volume_, true);
    luks::Header header = file.header();
    change(header);
    file.commit({.header = std::move(header), .new_areas = {}, .obsolete = {}});
    report(session, to_json(file.header()),
           fmt::format("{} '{}', which now has\n{}", session.dry_run ? "would change" : "changed",
                       printable(volume_.volume, 256), to_text(file.header())));
  }

 private:
  void change(luks::Header& header) const {
    if (header.version == luks::Version::kLuks1) {
      throw Error(Code::kUnsupported,
                  fmt::format("'{}' is LUKS1, which has no labels, priorities and flags",
                              printable(volume_.volume, 256)));
    }
    if (label_) header.label = *label_;
    if (subsystem_) header.subsystem = *subsystem_;
    if (flags_) header.config.flags = parse_flags(*flags_);
    if (!priority_) return;
    const auto keyslot = header.keyslots.find(*slot_);
    if (keyslot == header.keyslots.end()) {
      throw Error(Code::kNotFound,
                  fmt::format("'{}' has no keyslot {}", printable(volume_.volume, 256), *slot_));
    }
    keyslot->second.priority = priority_of(*priority_);
  }

  OrderedJson to_json(const luks::Header& header) const {
    OrderedJson priorities = OrderedJson::object();
    for (const auto& [number, keyslot] : header.keyslots) {
      priorities[std::to_string(number)] = priority_name(keyslot.priority);
    }
    return {{"volume", volume_.volume},
            {"label", header.label},
            {"subsystem", header.subsystem},
            {"flags", header.config.flags},
            {"requirements", header.config.requirements},
            {"priorities", priorities}};
  }

  static std::string to_text(const luks::Header& header) {
    const auto or_none = [](const std::string& value) { return value.empty() ? "none" : value; };
    std::string text = fmt::format(
        "  label      {}\n  subsystem  {}\n  flags      {}", or_none(printable(header.label)),
        or_none(printable(header.subsystem)), or_none(printable_list(header.config.flags)));
    for (const auto& [number, keyslot] : header.keyslots) {
      text += fmt::format("\n  keyslot {:<2} priority {}", number, priority_name(keyslot.priority));
    }
    return text;
  }

  VolumeArgs volume_;
  std::optional<std::string> label_;
  std::optional<std::string> subsystem_;
  std::optional<std::string> priority_;
  std::optional<std::string> flags_;
  std::optional<int> slot_;
};

class EraseCommand final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    options.flag({.name = "--unused",
                  .help = "keep all keyslots; overwrite what none of them uses, which may be left "
                          "of removed ones"},
                 unused_);
  }

  void run(const Session& session) override {
    luks::HeaderFile file = open_header_for_change(session, volume_);
    if (unused_) return wipe_unused(session, file);
    const std::size_t count = file.header().keyslots.size();
    const std::string name = printable(volume_.volume, 256);
    confirm(
        session,
        fmt::format("Every keyslot of '{}' will be removed ({}). Without a header backup nobody "
                    "will ever read its data again.",
                    name, count),
        Error(Code::kUnsafe, fmt::format("not erasing the keyslots of '{}'", name)));
    luks::erase_keyslots(file);
    report(session, {{"volume", volume_.volume}, {"keyslots_removed", count}},
           fmt::format("{} every keyslot of '{}' (there {})",
                       session.dry_run ? "would remove" : "removed", name,
                       count == 1 ? "was 1" : fmt::format("were {}", count)));
  }

 private:
  // Nothing that opens the volume is touched: no question.
  void wipe_unused(const Session& session, luks::HeaderFile& file) const {
    const std::uint64_t wiped_bytes = luks::wipe_unused_areas(file);
    report(session,
           {{"volume", volume_.volume}, {"keyslots_removed", 0}, {"wiped_bytes", wiped_bytes}},
           fmt::format("{} {} of '{}' that no keyslot uses",
                       session.dry_run ? "would overwrite" : "overwrote", human_size(wiped_bytes),
                       printable(volume_.volume, 256)));
  }

  VolumeArgs volume_;
  bool unused_ = false;
};

}  // namespace

std::unique_ptr<Command> make_config() { return std::make_unique<ConfigCommand>(); }
std::unique_ptr<Command> make_erase() { return std::make_unique<EraseCommand>(); }

}  // namespace lukskeep::cli
