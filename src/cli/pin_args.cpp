#include "cli/pin_args.h"

#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "base/bytes.h"

namespace lukskeep::cli {
namespace {

constexpr std::uint32_t kSecondsMax = 3600;
constexpr std::uint32_t kTriesMax = 1000;

std::uint32_t to_ms(std::string_view name, std::uint32_t seconds) {
  if (seconds == 0 || seconds > kSecondsMax) {
    throw Error(Code::kUsage, fmt::format("{} takes 1 to {} seconds", name, kSecondsMax));
  }
  return seconds * 1000;
}

}  // namespace

void PinPolicyArgs::declare(Options& options) {
  options.heading("Policy");
  options.add({.name = "--pin",
               .value = "NAME",
               .help = "what POLICY configures, where it does not say so itself",
               .choices = {"tang", "tpm2", "sss", "null"}},
              pin);
  options.add_each({.name = "--tang",
                    .value = "URL[,thp=…][,adv=FILE]",
                    .help = "a Tang server, and the key or advertisement that is trusted"},
                   [this](const std::string& text) { tang.push_back(text); });
  options.add_each({.name = "--tpm2",
                    .value = "[pcrs=7+8][,bank=sha256]",
                    .help = "the TPM of this machine, while its PCRs are what they are now"},
                   [this](const std::string& text) { tpm2.push_back(text); });
  options.add(
      {.name = "--threshold", .value = "N", .help = "how many of --tang and --tpm2 are needed"},
      threshold);
}

nbde::PinPolicy PinPolicyArgs::read() const {
  const bool has_options = !tang.empty() || !tpm2.empty() || threshold;
  if (!policy.empty()) {
    if (has_options) {
      throw Error(Code::kUsage, "a policy and --tang, --tpm2 or --threshold exclude each other");
    }
    return nbde::load_pin_policy(policy, pin);
  }
  if (!pin.empty()) throw Error(Code::kUsage, "--pin goes with a policy");
  std::vector<nbde::PinPolicy> pins;
  pins.reserve(tang.size() + tpm2.size());
  for (const std::string& text : tang) pins.push_back(nbde::parse_tang_option(text));
  for (const std::string& text : tpm2) pins.push_back(nbde::parse_tpm2_option(text));
  return nbde::join_pins(std::move(pins), threshold);
}

void PinContextArgs::declare(Options& options) {
  options.heading("Servers and TPM");
  options.add({.name = "--timeout",
               .value = "SECONDS",
               .help = "wait no longer than this for all servers together (default 30)"},
              timeout_s);
  options.add({.name = "--try-timeout",
               .value = "SECONDS",
               .help = "wait no longer than this for one answer (default 5)"},
              try_timeout_s);
  options.add({.name = "--tries",
               .value = "N",
               .help = "ask a server that is down or busy up to N times (default 4)"},
              tries);
  options.add({.name = "--tpm",
               .value = "TCTI",
               .help = "how the TPM is reached (default TPM2TOOLS_TCTI, or /dev/tpmrm0)"},
              tpm);
  options.add({.name = "--tang-ca",
               .value = "FILE",
               .help = "who vouches for servers of https: URLs, PEM (default: CURL_CA_BUNDLE, "
                       "SSL_CERT_FILE, or whom the system trusts)"},
              tang_ca);
}

void PinContextArgs::declare_trust(Options& options) {
  options.heading("Trust");
  options.flag({.name = "--trust-on-first-use",
                .help = "take the keys of servers as they come, if nothing says which to trust"},
               trust_on_first_use);
  options.flag({.name = "--allow-pending",
                .help = "leave servers that are down for later, if the others suffice"},
               allow_pending);
}

nbde::PinContext PinContextArgs::context(const Session& session) const {
  nbde::PinContext context{.cancel = session.cancel,
                           .send = {},
                           .ca_file = tang_ca,
                           .tcti = tpm,
                           .trust_on_first_use = trust_on_first_use,
                           .allow_pending = allow_pending};
  if (timeout_s) context.total_ms = to_ms("--timeout", *timeout_s);
  if (try_timeout_s) context.try_ms = to_ms("--try-timeout", *try_timeout_s);
  if (tries) {
    if (*tries == 0 || *tries > kTriesMax) {
      throw Error(Code::kUsage, fmt::format("--tries takes 1 to {}", kTriesMax));
    }
    context.tries = *tries;
  }
  // As curl: for who cannot give --tang-ca, and for programs that go by Clevis' names.
  for (const char* name : {"CURL_CA_BUNDLE", "SSL_CERT_FILE"}) {
    const char* file = std::getenv(name);
    if (file != nullptr && context.ca_file.empty()) context.ca_file = file;
  }
  // libtss2 would write its own messages to standard error. No thread runs yet.
  setenv("TSS2_LOG", "all+none", 0);  // NOLINT(concurrency-mt-unsafe)
  if (const char* tcti = std::getenv("TPM2TOOLS_TCTI"); tpm.empty() && tcti != nullptr) {
    context.tcti = tcti;
  }
  return context;
}

std::string share_text(const nbde::ShareReport& share) {
  std::string text = share.pin;
  if (!share.url.empty()) text += " " + printable(share.url, 128);
  switch (share.outcome) {
    case nbde::ShareReport::Outcome::kOpened:
      return text + fmt::format(": opened in {} ms", share.elapsed_ms);
    case nbde::ShareReport::Outcome::kNotNeeded:
      return text + ": not needed";
    case nbde::ShareReport::Outcome::kFailed:
      break;
  }
  return text + fmt::format(": {}", share.error ? share.error->message() : "failed");
}

OrderedJson share_json(const nbde::ShareReport& share) {
  OrderedJson json = {{"path", share.path}, {"pin", share.pin}};
  if (!share.url.empty()) json["url"] = share.url;
  switch (share.outcome) {
    case nbde::ShareReport::Outcome::kOpened:
      json["outcome"] = "opened";
      break;
    case nbde::ShareReport::Outcome::kNotNeeded:
      json["outcome"] = "not-needed";
      break;
    case nbde::ShareReport::Outcome::kFailed:
      json["outcome"] = "failed";
      break;
  }
  json["elapsed_ms"] = share.elapsed_ms;
  if (share.error) {
    json["error"] = {{"code", code_name(share.error->code())},
                     {"message", share.error->message()},
                     {"hint", share.error->hint()}};
  }
  return json;
}

std::string pin_tree_text(const nbde::SealedPin& pin, std::size_t depth) {
  std::string text(2 * depth + 2, ' ');
  text += printable(pin.pin);
  if (!pin.url.empty()) text += " " + printable(pin.url, 128);
  if (!pin.thumbprint.empty()) text += ", trusts " + printable(pin.thumbprint);
  if (pin.pin == "tpm2" && !pin.tpm2.pcrs.empty()) {
    text +=
        fmt::format(", PCRs {} of {}", fmt::join(pin.tpm2.pcrs, ","), printable(pin.tpm2.pcr_bank));
  }
  if (pin.pin == "sss") text += fmt::format(", {} of {}", pin.threshold, pin.shares.size());
  text += fmt::format(": {}\n", pin.problem                   ? pin.problem->message()
                                : nbde::is_known_pin(pin.pin) ? nbde::share_state_name(pin.state)
                                                              : "a pin that is not known here");
  for (const nbde::SealedPin& share : pin.shares) text += pin_tree_text(share, depth + 1);
  return text;
}

}  // namespace lukskeep::cli
