// tang keygen, rotate, keys, hide, unhide, delete, usage.
#include <algorithm>
#include <chrono>
#include <ctime>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "cli/command.h"
#include "cli/tang_args.h"
#include "nbde/jwk.h"
#include "nbde/rekey.h"
#include "server/tang_usage.h"
#include "storage/file_device.h"

namespace lukskeep::cli {
namespace {

constexpr const char* kQuarantineDefault = "30d";

void warn_of(const server::TangKeyFiles& files) {
  for (const std::string& problem : files.problems) warn(problem);
}

class TangKeygen final : public Command {
 public:
  void declare(Options& options) override {
    keys_.declare(options);
    curve_.declare(options);
  }

  void run(const Session& session) override {
    if (session.dry_run) {
      return report(session, {{"keys", keys_.path}}, "would make a signing and an exchange key");
    }
    const auto made = keys_.folder().generate(curve_.chosen());
    report(session, {{"keys", keys_.path}, {"made", made}},
           fmt::format("made the signing key {} and the exchange key {}", made[0], made[1]));
  }

 private:
  KeyFolderArgs keys_;
  CurveArgs curve_;
};

class TangRotate final : public Command {
 public:
  void declare(Options& options) override {
    keys_.declare(options);
    curve_.declare(options);
  }

  void run(const Session& session) override {
    if (session.dry_run) {
      std::vector<std::string> hidden;
      for (const auto& key : keys_.folder().read().keys) {
        if (!key.hidden) hidden.push_back(key.thumbprint);
      }
      return report(session, {{"keys", keys_.path}, {"hidden", hidden}},
                    fmt::format("would make new keys and hide {}", hidden.size()));
    }
    const auto rotation = keys_.folder().rotate(curve_.chosen());
    report(session, {{"keys", keys_.path}, {"made", rotation.made}, {"hidden", rotation.hidden}},
           fmt::format("made the signing key {} and the exchange key {}, and hid {} keys",
                       rotation.made[0], rotation.made[1], rotation.hidden.size()));
  }

 private:
  KeyFolderArgs keys_;
  CurveArgs curve_;
};

class TangKeyList final : public Command {
 public:
  void declare(Options& options) override {
    keys_.declare(options);
    options.flag({.name = "--fingerprint",
                  .help = "only one digest of all keys and states: servers that hold the same keys "
                          "print the same"},
                 fingerprint_);
  }

  void run(const Session& session) override {
    const server::TangKeyFiles files = keys_.folder().read();
    warn_of(files);
    const std::string fingerprint = server::key_set_fingerprint(files.keys);
    OrderedJson json = {{"keys", OrderedJson::array()}, {"fingerprint", fingerprint}};
    std::string text;
    for (const server::TangKeyFile& key : files.keys) {
      json["keys"].push_back({{"thumbprint", key.thumbprint},
                              {"purpose", purpose_name(key)},
                              {"state", state_name(key)},
                              {"curve", nbde::curve_name(key.key.point.curve())},
                              {"file", key.name},
                              {"changed", time_text(key.changed_s)}});
      text += fmt::format("{}  {:<8}  {:<10}  {}  {}\n", key.thumbprint, purpose_name(key),
                          state_name(key), nbde::curve_name(key.key.point.curve()),
                          time_text(key.changed_s));
    }
    if (fingerprint_) {
      json.erase("keys");
      text = fingerprint + "\n";
    }
    show(session, json, text);
  }

 private:
  KeyFolderArgs keys_;
  bool fingerprint_ = false;
};

class TangHide final : public Command {
 public:
  explicit TangHide(bool hidden) : hidden_(hidden) {}

  void declare(Options& options) override {
    options.positional({.name = "KEY", .help = "its thumbprint, or how that starts"}, key_);
    keys_.declare(options);
  }

  void run(const Session& session) override {
    const auto folder = keys_.folder();
    const auto files = folder.read();
    const std::string& thumbprint = server::find_key_file(files.keys, key_).thumbprint;
    const auto& key = server::find_key_file(files.keys, thumbprint);
    const bool changes = key.hidden != hidden_;
    if (!session.dry_run) folder.set_hidden(thumbprint, hidden_);
    report(
        session,
        {{"key", thumbprint}, {"state", hidden_ ? "hidden" : "advertised"}, {"changed", changes}},
        fmt::format("{}the key {} {} {}", session.dry_run ? "would see that " : "", thumbprint,
                    changes ? "is now" : "was already", hidden_ ? "hidden" : "advertised"));
  }

 private:
  bool hidden_;
  std::string key_;
  KeyFolderArgs keys_;
};

class TangDelete final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "KEY", .help = "its thumbprint, or how that starts"}, key_);
    keys_.declare(options);
    usage_.declare(options);
    options.add({.name = "--quarantine",
                 .value = "TIME",
                 .help = "how long nobody must have used it, such as 12h (default: 30d)"},
                quarantine_);
    options.add({.name = "--allow",
                 .value = "RISK,…",
                 .help = "delete in spite of: advertised, used, needed, unrecorded"},
                [this](const std::string& value) { add_allowed(value); });
    options.add_each({.name = "--wait-for",
                      .value = "REPORT",
                      .help = "wait until this report of 'lukskeep rekey' says that nothing is "
                              "left and no volume needs the key; may be repeated"},
                     reports_);
    options.add({.name = "--wait-limit",
                 .value = "TIME",
                 .help = "how long to wait for that, such as 12h; 0: not at all (default: no "
                         "limit)"},
                wait_limit_);
  }

  void run(const Session& session) override {
    const auto folder = keys_.folder();
    const auto before = folder.read();
    const server::TangKeyFile& wanted = server::find_key_file(before.keys, key_);
    const std::string& thumbprint = wanted.thumbprint;
    wait_for_reports(session, wanted.key.point);
    // That may have taken days.
    const auto files = folder.read();
    const server::TangKeyFile& key = server::find_key_file(files.keys, thumbprint);
    const auto risks = risks_of(files.keys, key);
    std::vector<std::string> reasons;
    std::vector<std::string> names;
    for (const server::DeleteRisk& risk : risks) {
      if (std::ranges::find(allowed_, risk.name) != allowed_.end()) continue;
      reasons.push_back(risk.message);
      names.push_back(risk.name);
    }
    if (!reasons.empty()) {
      throw Error(
          Code::kUnsafe,
          fmt::format("the key {} is not deleted: {}", key.thumbprint, fmt::join(reasons, "; ")),
          fmt::format("lukskeep tang usage tells who it is; --allow {} deletes all the same",
                      fmt::join(names, ",")));
    }
    confirm(session,
            fmt::format("What is sealed to the key {} alone is lost for ever. Delete it?",
                        key.thumbprint),
            Error(Code::kUnsafe, fmt::format("the key {} is deleted only when that is confirmed",
                                             key.thumbprint)));
    if (!session.dry_run) folder.remove(key.thumbprint);
    report(
        session, {{"key", key.thumbprint}},
        fmt::format("{} the key {}", session.dry_run ? "would delete" : "deleted", key.thumbprint));
  }

 private:
  void add_allowed(const std::string& value) {
    std::string_view rest = value;
    while (!rest.empty()) {
      const std::size_t end = std::min(rest.find(','), rest.size());
      const std::string_view name = rest.substr(0, end);
      if (name != "advertised" && name != "used" && name != "needed" && name != "unrecorded") {
        throw Error(
            Code::kUsage,
            fmt::format("'{}' is none of advertised, used, needed, unrecorded", printable(name)));
      }
      allowed_.emplace_back(name);
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }

  // Why the reports do not allow it yet; empty: they do.
  std::string not_yet(const nbde::EcPoint& key) const {
    for (const std::string& path : reports_) {
      const std::string what = fmt::format("the report '{}'", printable(path, 256));
      try {
        const std::optional<std::string> text = read_report(path);
        if (!text) return what + " is not there";
        std::string why = objection(nbde::parse_rekey_report(*text, what), key);
        if (!why.empty()) return fmt::format("{} {}", what, why);
      } catch (const Error& error) {
        // Perhaps it is just being copied to here.
        if (error.code() != Code::kInvalidArgument && error.code() != Code::kTooSmall) throw;
        return error.message();
      }
    }
    return {};
  }

  static std::string objection(const nbde::RekeyVerdict& verdict, const nbde::EcPoint& key) {
    const auto is_key = [&](const std::string& text) { return nbde::has_thumbprint(key, text); };
    if (verdict.volumes == 0) return "is of no volume";
    if (!verdict.keys.empty() && std::ranges::none_of(verdict.keys, is_key)) {
      return "is of a rekeying of other keys";
    }
    if (verdict.left > 0) return fmt::format("says that {} are left", verdict.left);
    if (std::ranges::any_of(verdict.in_use, is_key)) return "has volumes that need the key";
    return {};
  }

  static std::optional<std::string> read_report(const std::string& path) {
    try {
      const auto file = storage::open_file(path, {.lock = false});
      if (file->size_bytes() > limits::kRekeyTextBytesMax) {
        throw Error(Code::kInvalidArgument,
                    fmt::format("the report '{}' is too large", printable(path, 256)));
      }
      std::string text(file->size_bytes(), '\0');
      file->read(0, std::as_writable_bytes(std::span(text)));
      return text;
    } catch (const Error& error) {
      if (error.code() == Code::kNotFound) return std::nullopt;
      throw;
    }
  }

  void wait_for_reports(const Session& session, const nbde::EcPoint& key) const {
    constexpr std::chrono::milliseconds kStep{100};
    constexpr int kStepsPerLook = 10;
    using Clock = std::chrono::steady_clock;
    std::optional<Clock::time_point> until;
    if (!wait_limit_.empty()) {
      until = Clock::now() + std::chrono::seconds(parse_period_s(wait_limit_));
    }
    std::string told;
    while (true) {
      const std::string why = not_yet(key);
      if (why.empty()) return;
      if (session.dry_run || (until && Clock::now() >= *until)) {
        throw Error(Code::kUnsafe,
                    fmt::format("the key {} is not deleted: {}", nbde::thumbprint(key), why),
                    "lukskeep rekey does what is left, and writes the report anew");
      }
      if (why != told && !session.quiet) warn(fmt::format("waiting: {}", why));
      told = why;
      for (int i = 0; i < kStepsPerLook; ++i) {
        session.cancel->check();
        std::this_thread::sleep_for(kStep);
      }
    }
  }

  std::vector<server::DeleteRisk> risks_of(const std::vector<server::TangKeyFile>& keys,
                                           const server::TangKeyFile& key) const {
    const std::int64_t quarantine_s = parse_period_s(quarantine_);
    const auto file = usage_.chosen(keys_);
    const auto record = file ? server::read_tang_usage(*file) : std::nullopt;
    auto risks = server::judge_delete(record, keys, key, quarantine_s, std::time(nullptr));
    if (!key.hidden) risks.push_back({"advertised", "clients are still told of it"});
    return risks;
  }

  std::string key_;
  KeyFolderArgs keys_;
  UsageArgs usage_;
  std::string quarantine_ = kQuarantineDefault;
  std::vector<std::string> allowed_;
  std::vector<std::string> reports_;
  std::string wait_limit_;
};

class TangUsageShow final : public Command {
 public:
  void declare(Options& options) override {
    options.optional_positional({.name = "KEY", .help = "only this one (default: all)"}, key_);
    keys_.declare(options);
    usage_.declare(options);
  }

  void run(const Session& session) override {
    const auto file = usage_.chosen(keys_);
    const auto record = file ? server::read_tang_usage(*file) : std::nullopt;
    if (!record) {
      throw Error(
          Code::kNotFound,
          fmt::format("there is no usage record '{}'", printable(file.value_or("none"), 256)),
          "lukskeep tang serve writes it");
    }
    const auto files = keys_.folder().read();
    std::string wanted;
    if (!key_.empty()) wanted = server::find_key_file(files.keys, key_).thumbprint;
    OrderedJson uses = OrderedJson::array();
    std::string text;
    for (const server::TangUse& use : record->uses) {
      if (!wanted.empty() && use.key != wanted) continue;
      const auto key = std::ranges::find(files.keys, use.key, &server::TangKeyFile::thumbprint);
      const std::string state = key == files.keys.end() ? "deleted" : state_name(*key);
      uses.push_back({{"key", use.key},
                      {"state", state},
                      {"client", use.client},
                      {"count", use.count},
                      {"first", time_text(use.first_s)},
                      {"last", time_text(use.last_s)}});
      text += fmt::format("{}  {:<10}  {:>8}  {}  {}\n", use.key, state, use.count,
                          time_text(use.last_s), printable(use.client, 256));
    }
    show(session, {{"since", time_text(record->since_s)}, {"uses", uses}}, text);
  }

 private:
  std::string key_;
  KeyFolderArgs keys_;
  UsageArgs usage_;
};

}  // namespace

std::unique_ptr<Command> make_tang_keygen() { return std::make_unique<TangKeygen>(); }
std::unique_ptr<Command> make_tang_rotate() { return std::make_unique<TangRotate>(); }
std::unique_ptr<Command> make_tang_keys() { return std::make_unique<TangKeyList>(); }
std::unique_ptr<Command> make_tang_hide() { return std::make_unique<TangHide>(true); }
std::unique_ptr<Command> make_tang_unhide() { return std::make_unique<TangHide>(false); }
std::unique_ptr<Command> make_tang_delete() { return std::make_unique<TangDelete>(); }
std::unique_ptr<Command> make_tang_usage() { return std::make_unique<TangUsageShow>(); }

}  // namespace lukskeep::cli
