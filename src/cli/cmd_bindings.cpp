// bindings, passphrase, unlock: what there is and whether it opens.
#include <algorithm>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/parallel_for.h"
#include "cli/binding_access.h"
#include "cli/binding_view.h"
#include "cli/command.h"

namespace lukskeep::cli {
namespace {

class Bindings final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    options.flag({.name = "--probe", .help = "ask every server and TPM whether it opens its share"},
                 probe_);
    servers_.declare(options);
  }

  void run(const Session& session) override {
    const luks::HeaderFile file = open_header(volume_);
    nbde::PinContext context = servers_.context(session);
    context.all_shares = true;
    OrderedJson list = OrderedJson::array();
    std::string text;
    for (const nbde::Binding& binding : nbde::list_bindings(file)) {
      OrderedJson json = binding_json(binding);
      text += binding_text(binding);
      if (probe_ && binding.jwe && !binding.orphan) text += probe(binding, context, json);
      list.push_back(std::move(json));
    }
    if (list.empty()) text = "  none\n";
    const OrderedJson beside = others(file, text);
    show(session, {{"volume", volume_.volume}, {"bindings", list}, {"others", beside}}, text);
  }

 private:
  // What is not ours to change, named so that nobody takes it for nothing.
  static OrderedJson others(const luks::HeaderFile& file, std::string& text) {
    const bool luks1 = file.header().version == luks::Version::kLuks1;
    OrderedJson list = OrderedJson::array();
    for (const nbde::OtherRecord& other : nbde::list_other_records(file)) {
      list.push_back({{luks1 ? "record" : "token", other.number},
                      {"type", other.type},
                      {"keyslots", other.keyslots}});
      text += fmt::format("  {} {}: {}, of another program\n", luks1 ? "luksmeta record" : "token",
                          other.number, printable(other.type));
    }
    return list;
  }

  static std::string probe(const nbde::Binding& binding, const nbde::PinContext& context,
                           OrderedJson& json) {
    std::vector<nbde::ShareReport> shares;
    std::string text;
    try {
      static_cast<void>(nbde::unseal(nbde::sealed_of(binding), context, &shares));
      json["opens"] = true;
    } catch (const Error& error) {
      if (error.code() == Code::kInterrupted) throw;
      json["opens"] = false;
      json["error"] = error_json(error);
      text = fmt::format("    it does not open: {}\n", error.message());
    }
    json["shares"] = OrderedJson::array();
    for (const nbde::ShareReport& share : shares) {
      json["shares"].push_back(share_json(share));
      text += fmt::format("    {}\n", share_text(share));
    }
    return text;
  }

  VolumeArgs volume_;
  PinContextArgs servers_;
  bool probe_ = false;
};

class Passphrase final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    options.add({.name = "--slot", .value = "N", .help = "of this keyslot (default: any)"}, slot_);
    key_.declare_limits(options);
    servers_.declare(options);
  }

  void run(const Session& session) override {
    const luks::HeaderFile file = open_header(volume_);
    luks::UnlockOptions options = key_.unlock_options(session);
    options.keyslot = slot_;
    const OpenedVolume opened = unlock_by_binding(file, servers_.context(session), options);
    const int keyslot = opened.unlocked.keyslot;
    if (!session.quiet) {
      warn(
          fmt::format("whoever sees this passphrase opens '{}' without any server, until "
                      "'lukskeep rebind {} --slot {}' is done",
                      printable(volume_.volume, 256), printable(volume_.volume, 256), keyslot));
    }
    // JSON is text, and what others sealed may be any bytes.
    const std::string_view text = as_string_view(opened.passphrase.span());
    if (session.json) {
      if (!is_utf8(text)) {
        throw Error(Code::kUnsupported, "the passphrase is no text, so JSON cannot hold it",
                    "leave out --json");
      }
      return print_json({{"volume", volume_.volume}, {"keyslot", keyslot}, {"passphrase", text}});
    }
    print(text);
    print("\n");
  }

 private:
  VolumeArgs volume_;
  KeyArgs key_;
  PinContextArgs servers_;
  std::optional<int> slot_;
};

class Unlock final : public Command {
 public:
  void declare(Options& options) override {
    options.positionals({.name = "VOLUME", .help = "volumes, or files with their headers"},
                        volumes_);
    policy_.declare(options);
    key_.declare_limits(options);
    servers_.declare(options);
  }

  void run(const Session& session) override {
    if (volumes_.empty()) throw Error(Code::kUsage, "VOLUME is missing");
    const nbde::PinContext context = servers_.context(session);
    std::vector<Result> results(volumes_.size());
    parallel_for(volumes_.size(), limits::kUnlockThreadsMax,
                 [&](std::size_t i) { results[i] = open(session, context, volumes_[i]); });
    OrderedJson list = OrderedJson::array();
    std::string text;
    for (const Result& result : results) {
      OrderedJson json = {{"volume", result.volume}, {"opens", !result.error}};
      const std::string name = printable(result.volume, 256);
      if (result.error) {
        json["error"] = error_json(*result.error);
        text += fmt::format("{}: {}\n", name, result.error->message());
        worst(session, *result.error);
      } else {
        json["keyslot"] = result.keyslot;
        text += fmt::format("{}: keyslot {} opens\n", name, result.keyslot);
      }
      list.push_back(std::move(json));
    }
    show(session, {{"volumes", list}}, session.quiet ? "" : text);
  }

 private:
  struct Result {
    std::string volume;
    int keyslot = -1;
    std::optional<Error> error;
  };

  Result open(const Session& session, const nbde::PinContext& context,
              const std::string& volume) const {
    Result result{.volume = volume, .keyslot = -1, .error = {}};
    try {
      VolumeArgs args;
      args.volume = volume;
      args.policy = policy_;
      const luks::HeaderFile file = open_header(args);
      result.keyslot =
          unlock_by_binding(file, context, key_.unlock_options(session)).unlocked.keyslot;
    } catch (const Error& error) {
      if (error.code() == Code::kInterrupted) throw;
      result.error = error;
    }
    return result;
  }

  // The status is that of the first that fails.
  static void worst(const Session& session, const Error& error) {
    int& status = session.outcome->exit_status;
    if (status == 0) status = exit_status(error.code());
  }

  std::vector<std::string> volumes_;
  PolicyArgs policy_;
  KeyArgs key_;
  PinContextArgs servers_;
};

}  // namespace

std::unique_ptr<Command> make_bindings() { return std::make_unique<Bindings>(); }
std::unique_ptr<Command> make_passphrase() { return std::make_unique<Passphrase>(); }
std::unique_ptr<Command> make_unlock() { return std::make_unique<Unlock>(); }

}  // namespace lukskeep::cli
