#include "cli/compat.h"

#include <algorithm>
#include <array>
#include <new>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "cli/compat_io.h"
#include "cli/signals.h"

namespace lukskeep::cli {
namespace {

constexpr std::string_view kSummaryOption = "--summary";
constexpr int kNoSummary = 2;

constexpr std::array kEntries = {
    CompatEntry{"clevis", "", compat_clevis},
    CompatEntry{"clevis-decrypt", "Decrypts using the policy defined at encryption time",
                compat_decrypt},
    CompatEntry{"clevis-decrypt-null", "", compat_decrypt},
    CompatEntry{"clevis-decrypt-sss", "", compat_decrypt},
    CompatEntry{"clevis-decrypt-tang", "", compat_decrypt},
    CompatEntry{"clevis-decrypt-tpm2", "", compat_decrypt},
    CompatEntry{"clevis-encrypt-null", "", compat_encrypt},
    CompatEntry{"clevis-encrypt-sss", "Encrypts using a Shamir's Secret Sharing policy",
                compat_encrypt},
    CompatEntry{"clevis-encrypt-tang", "Encrypts using a Tang binding server policy",
                compat_encrypt},
    CompatEntry{"clevis-encrypt-tpm2", "Encrypts using a TPM2.0 chip binding policy",
                compat_encrypt},
    CompatEntry{"clevis-luks-bind", "Binds a LUKS device using the specified policy",
                compat_luks_bind},
    CompatEntry{"clevis-luks-edit", "Edit a binding from a clevis-bound slot in a LUKS device",
                compat_luks_edit},
    CompatEntry{"clevis-luks-list", "Lists pins bound to a LUKSv1 or LUKSv2 device",
                compat_luks_list},
    CompatEntry{"clevis-luks-pass",
                "Returns the LUKS passphrase used for binding a particular slot.",
                compat_luks_pass},
    CompatEntry{"clevis-luks-regen", "Regenerate clevis binding", compat_luks_regen},
    CompatEntry{"clevis-luks-report", "Report tang keys' rotations", compat_luks_report},
    CompatEntry{"clevis-luks-unbind", "Unbinds a pin bound to a LUKS volume", compat_luks_unbind},
    CompatEntry{"clevis-luks-unlock", "Unlocks a LUKS volume", compat_luks_unlock},
    CompatEntry{"tang-show-keys", "", compat_tang_show_keys},
    CompatEntry{"tangd", "", compat_tangd},
    CompatEntry{"tangd-keygen", "", compat_tangd_keygen},
    CompatEntry{"tangd-rotate-keys", "", compat_tangd_rotate_keys},
};

int run_entry(const CompatEntry& entry, std::string called, std::vector<std::string> arguments) {
  if (entry.name.starts_with("clevis-") && arguments.size() == 1 &&
      arguments.front() == kSummaryOption) {
    if (entry.summary.empty()) return kNoSummary;
    print(fmt::format("{}\n", entry.summary));
    return 0;
  }
  Outcome outcome;
  const CompatCall call{.name = std::string(entry.name),
                        .called = std::move(called),
                        .arguments = std::move(arguments),
                        .session = {.cancel = &cancel_token(), .outcome = &outcome}};
  return entry.run(call);
}

}  // namespace

std::span<const CompatEntry> compat_entries() { return kEntries; }

const CompatEntry* find_compat_entry(std::string_view name) {
  const auto found = std::ranges::find(kEntries, name, &CompatEntry::name);
  return found == kEntries.end() ? nullptr : &*found;
}

int run_compat_entry(const CompatEntry& entry, std::string called,
                     std::vector<std::string> arguments) noexcept {
  try {
    try {
      return run_entry(entry, std::move(called), std::move(arguments));
    } catch (const Error& error) {
      print_error(error, false);
      return error.code() == Code::kInterrupted ? exit_status(error.code()) : kCompatFailure;
    } catch (const std::bad_alloc&) {
      say("lukskeep: error: out of memory");
    } catch (const std::exception& error) {
      say(fmt::format("lukskeep: error: internal error: {}", error.what()));
    }
  } catch (...) {  // NOLINT(bugprone-empty-catch): not even the message could be made
  }
  return kCompatFailure;
}

std::optional<int> run_compat(std::string_view called,
                              const std::vector<std::string>& arguments) noexcept {
  const CompatEntry* entry = find_compat_entry(called.substr(called.rfind('/') + 1));
  if (entry == nullptr) return std::nullopt;
  try {
    return run_compat_entry(*entry, std::string(called), arguments);
  } catch (const std::bad_alloc&) {
    return kCompatFailure;
  }
}

}  // namespace lukskeep::cli
