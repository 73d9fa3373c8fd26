// clevis, clevis-encrypt-*, clevis-decrypt*.
#include "cli/compat_clevis.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/limits.h"
#include "cli/compat_io.h"
#include "cli/pin_args.h"
#include "nbde/jwe.h"

namespace lukskeep::cli {
namespace {

constexpr int kUsage = 2;
constexpr std::string_view kEncryptPrefix = "clevis-encrypt-";
constexpr std::string_view kDecryptPrefix = "clevis-decrypt-";
// Base64url of the sealed bytes, and the header.
constexpr std::size_t kJweBytesMax =
    limits::kSealedBytesMax / 3 * 4 + limits::kJweHeaderBytesMax + 1024;

// An sss without a threshold wants one share.
void add_thresholds(Json& json, std::size_t depth = 0) {
  if (depth > limits::kJsonDepthMax || !json.is_structured()) return;
  if (json.is_object() && json.contains("pins") && !json.contains("t")) json["t"] = 1;
  for (Json& member : json) add_thresholds(member, depth + 1);
}

nbde::TrustQuestion terminal_question(const CancelToken& cancel) {
  return [&cancel](std::string_view url, const std::vector<std::string>& thumbprints) {
    say(fmt::format("{}\nThe advertisement contains the following signing keys:\n\n{}\n",
                    printable(url, 128), fmt::join(thumbprints, "\n")));
    return terminal_yes("Do you wish to trust these keys? [ynYN] ",
                        fmt::format("give the thumbprint of a key of '{}' that is trusted "
                                    "(\"thp\"), a saved advertisement (\"adv\"), or -y",
                                    printable(url, 128)),
                        cancel);
  };
}

void print_usage(const std::string& input) {
  if (!input.empty()) say(fmt::format("\nCommand 'clevis {}' is invalid", printable(input, 256)));
  say("\nUsage: clevis COMMAND [OPTIONS]\n");
  for (const CompatEntry& entry : compat_entries()) {
    if (entry.summary.empty()) continue;
    std::string name(entry.name);
    std::ranges::replace(name, '-', ' ');
    say(fmt::format("  {:<28} {}", name, entry.summary));
  }
  say("");
}

void check_pin(const std::string& name, const nbde::Jwe& jwe) {
  if (!name.starts_with(kDecryptPrefix)) return;
  if (nbde::describe(jwe, "the JWE").pin == name.substr(kDecryptPrefix.size())) return;
  throw Error(Code::kInvalidArgument, "JWE pin mismatch!");
}

}  // namespace

nbde::PinContext compat_context(const Session& session, Trust trust) {
  nbde::PinContext context = PinContextArgs().context(session);
  context.trust_on_first_use = trust == Trust::kTake;
  if (trust == Trust::kAsk) context.ask_trust = terminal_question(*session.cancel);
  return context;
}

nbde::PinPolicy parse_clevis_config(std::string_view pin, std::string_view config) {
  Json json = parse_json(config, "the configuration");
  if (pin == "sss") add_thresholds(json);
  return nbde::parse_pin_policy(json.dump(), pin);
}

// The first words name the program, as far as there is one.
int compat_clevis(const CompatCall& call) {
  std::string name = "clevis";
  for (std::size_t i = 0; i < call.arguments.size(); ++i) {
    const std::string& word = call.arguments[i];
    if (word.starts_with('-')) break;
    name += "-" + word;
    const CompatEntry* entry = find_compat_entry(name);
    if (entry == nullptr) continue;
    const auto rest = call.arguments.begin() + static_cast<std::ptrdiff_t>(i) + 1;
    return run_compat_entry(*entry, name, {rest, call.arguments.end()});
  }
  print_usage(name == "clevis" ? "" : fmt::format("{}", fmt::join(call.arguments, " ")));
  return kUsage;
}

int compat_encrypt(const CompatCall& call) {
  const std::string pin = call.name.substr(kEncryptPrefix.size());
  if (isatty(STDIN_FILENO) != 0 || call.arguments.empty()) {
    say(
        fmt::format("\nUsage: clevis encrypt {} CONFIG{} < PLAINTEXT > JWE\n\n"
                    "lukskeep-seal(1) describes the configuration of each pin",
                    pin, pin == "tang" || pin == "sss" ? " [-y]" : ""));
    return kUsage;
  }
  const bool yes =
      std::find(call.arguments.begin() + 1, call.arguments.end(), "-y") != call.arguments.end();
  nbde::PinPolicy policy;
  try {
    policy = parse_clevis_config(pin, call.arguments.front());
  } catch (const Error&) {
    say("Configuration is malformed!");
    throw;
  }
  const SecretBytes plain = read_all_input(limits::kSealedBytesMax, *call.session.cancel);
  const nbde::PinContext context = compat_context(call.session, yes ? Trust::kTake : Trust::kAsk);
  print(nbde::to_compact(nbde::seal(policy, plain.span(), context)));
  return 0;
}

int compat_decrypt(const CompatCall& call) {
  if (isatty(STDIN_FILENO) != 0) {
    say("\nUsage: clevis decrypt < JWE > PLAINTEXT\n");
    return kUsage;
  }
  const SecretBytes text = read_all_input(kJweBytesMax, *call.session.cancel);
  const nbde::Jwe jwe = nbde::parse_compact_jwe(as_string_view(text.span()), "standard input");
  check_pin(call.name, jwe);
  const SecretBytes plain = nbde::unseal(jwe, compat_context(call.session, Trust::kAsk));
  print(as_string_view(plain.span()));
  return 0;
}

}  // namespace lukskeep::cli
