// The names of Tang's and Clevis' programs: called by one of them (a link in the folder compat/),
// this program takes that program's arguments and does what it does. lukskeep-compat(7) lists what
// differs.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/session.h"

namespace lukskeep::cli {

// One call of such a program.
struct CompatCall {
  std::string name;    // "clevis-luks-bind"
  std::string called;  // as it was called, for messages
  std::vector<std::string> arguments;
  Session session;
};

struct CompatEntry {
  std::string_view name;
  std::string_view summary;  // of --summary, as `clevis` lists it; empty: not listed
  // Returns the exit status. Errors that it throws are printed, and give status 1.
  int (*run)(const CompatCall& call);
};

// All of them, by name.
std::span<const CompatEntry> compat_entries();
const CompatEntry* find_compat_entry(std::string_view name);

// Runs the program that `called` (a path) names; absent if that is none of them. Throws nothing.
std::optional<int> run_compat(std::string_view called,
                              const std::vector<std::string>& arguments) noexcept;
int run_compat_entry(const CompatEntry& entry, std::string called,
                     std::vector<std::string> arguments) noexcept;

// Their status of most failures.
inline constexpr int kCompatFailure = 1;

int compat_clevis(const CompatCall& call);
int compat_decrypt(const CompatCall& call);
int compat_encrypt(const CompatCall& call);
int compat_luks_bind(const CompatCall& call);
int compat_luks_edit(const CompatCall& call);
int compat_luks_list(const CompatCall& call);
int compat_luks_pass(const CompatCall& call);
int compat_luks_regen(const CompatCall& call);
int compat_luks_report(const CompatCall& call);
int compat_luks_unbind(const CompatCall& call);
int compat_luks_unlock(const CompatCall& call);
int compat_tangd(const CompatCall& call);
int compat_tangd_keygen(const CompatCall& call);
int compat_tangd_rotate_keys(const CompatCall& call);
int compat_tang_show_keys(const CompatCall& call);

}  // namespace lukskeep::cli
