// seal, unseal: bytes to a policy of pins and back, as `clevis encrypt` and `clevis decrypt`.
#include <string>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "cli/command.h"
#include "cli/copy_args.h"
#include "cli/pin_args.h"
#include "nbde/jwe.h"
#include "nbde/seal.h"
#include "nbde/sealed_pin.h"

namespace lukskeep::cli {
namespace {

constexpr std::string_view kWhat = "standard input";

SecretBytes read_input(const Session& session) {
  const keys::KeySource source{.kind = keys::KeySource::Kind::kFile, .path = "-"};
  return keys::read_key(source, {}, {}, session.cancel);
}

nbde::Jwe read_jwe(const Session& session) {
  return nbde::parse_compact_jwe(as_string_view(read_input(session).span()), kWhat);
}

void print_sealed(const Session& session, const nbde::Jwe& jwe, OrderedJson more) {
  // As Clevis: nothing but the JWE, and no newline.
  if (!session.json) return print(nbde::to_compact(jwe));
  more["jwe"] = nbde::to_compact(jwe);
  more["policy"] = nbde::to_json(nbde::describe(jwe, "what was sealed"));
  print_json(more);
}

void warn_of_pending(const nbde::SealedPin& pin) {
  if (pin.state == nbde::ShareState::kPending) {
    return warn(fmt::format("{} is pending: seal --top-up adds it",
                            pin.url.empty() ? pin.pin : printable(pin.url, 128)));
  }
  for (const nbde::SealedPin& share : pin.shares) warn_of_pending(share);
}

class Seal final : public Command {
 public:
  void declare(Options& options) override {
    options.optional_positional(
        {.name = "POLICY", .help = "JSON as Clevis has it, or a file with JSON or TOML"},
        policy_.policy);
    policy_.declare(options);
    context_.declare_trust(options);
    options.flag({.name = "--top-up",
                  .help = "standard input was sealed before: add the shares that are pending"},
                 top_up_);
    context_.declare(options);
  }

  void run(const Session& session) override {
    if (top_up_) return top_up(session);
    const nbde::PinPolicy policy = policy_.read();
    const SecretBytes plain = read_input(session);
    const nbde::Jwe jwe = nbde::seal(policy, plain.span(), context_.context(session));
    print_sealed(session, jwe, OrderedJson::object());
    if (!session.quiet) warn_of_pending(nbde::describe(jwe, "what was sealed"));
  }

 private:
  void top_up(const Session& session) const {
    if (policy_.given())
      throw Error(Code::kUsage, "--top-up takes no policy: it is sealed already");
    const nbde::ToppedUp topped = nbde::top_up(read_jwe(session), context_.context(session));
    OrderedJson errors = OrderedJson::array();
    for (const Error& error : topped.errors) {
      errors.push_back(error.message());
      if (!session.quiet) warn(error.message());
    }
    print_sealed(session, topped.jwe,
                 {{"added", topped.added},
                  {"confirmed", topped.saved},
                  {"pending", topped.pending},
                  {"errors", errors}});
  }

  PinPolicyArgs policy_;
  PinContextArgs context_;
  bool top_up_ = false;
};

class Unseal final : public Command {
 public:
  void declare(Options& options) override {
    options.flag(
        {.name = "--show", .help = "say what it is sealed to, from its header, and ask nobody"},
        show_);
    options.flag({.name = "--all-shares",
                  .help = "ask every server, also when enough have answered, and say how it went"},
                 all_shares_);
    context_.declare(options);
  }

  void run(const Session& session) override {
    const nbde::Jwe jwe = read_jwe(session);
    if (show_) {
      const nbde::SealedPin pin = nbde::describe(jwe, kWhat);
      return show(session, nbde::to_json(pin), pin_tree_text(pin));
    }
    nbde::PinContext context = context_.context(session);
    context.all_shares = all_shares_;
    std::vector<nbde::ShareReport> shares;
    const SecretBytes plain = open(session, jwe, context, shares);
    if (!session.json) return print(as_string_view(plain.span()));
    OrderedJson rows = OrderedJson::array();
    for (const nbde::ShareReport& share : shares) rows.push_back(share_json(share));
    print_json({{"plain", to_base64(plain.span())}, {"shares", rows}});
  }

 private:
  SecretBytes open(const Session& session, const nbde::Jwe& jwe, const nbde::PinContext& context,
                   std::vector<nbde::ShareReport>& shares) const {
    const auto tell = [&] {
      if (!all_shares_ || session.quiet || session.json) return;
      for (const nbde::ShareReport& share : shares) warn(share_text(share));
    };
    try {
      SecretBytes plain = nbde::unseal(jwe, context, &shares);
      tell();
      return plain;
    } catch (const Error&) {
      tell();
      throw;
    }
  }

  PinContextArgs context_;
  bool show_ = false;
  bool all_shares_ = false;
};

}  // namespace

std::unique_ptr<Command> make_seal() { return std::make_unique<Seal>(); }
std::unique_ptr<Command> make_unseal() { return std::make_unique<Unseal>(); }

}  // namespace lukskeep::cli
