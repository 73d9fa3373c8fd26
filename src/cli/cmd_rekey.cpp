// rekey: every binding of many volumes that depends on a Tang key gets new keys.
#include <algorithm>
#include <exception>
#include <filesystem>
#include <mutex>
#include <new>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "archive/scan.h"
#include "base/base64url.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "base/parallel_for.h"
#include "cli/binding_access.h"
#include "cli/command.h"
#include "nbde/binding_change.h"
#include "nbde/rekey.h"
#include "storage/file_device.h"
#include "storage/location.h"

namespace lukskeep::cli {
namespace {

// Which volumes: those named, those of a list, of a folder, of this machine.
struct VolumesArgs {
  std::vector<std::string> volumes;
  std::vector<std::string> lists;
  std::vector<std::string> folders;
  bool this_machine = false;

  void declare(Options& options) {
    options.positionals({.name = "VOLUME", .help = "volumes, or files with their headers"},
                        volumes);
    options.add_each({.name = "--list",
                      .value = "FILE",
                      .help = "the volumes that FILE names, one a line, # for remarks; - is "
                              "standard input; may be repeated"},
                     lists);
    options.add_each({.name = "--directory",
                      .value = "FOLDER",
                      .help = "all volumes in files below FOLDER; may be repeated"},
                     folders);
    options.flag({.name = "--this-machine", .help = "the volumes of all block devices"},
                 this_machine);
  }

  // Each once, in the order in which they are named. Where something could not be read `unseen`
  // gets what may be missing.
  std::vector<std::string> find(const Session& session,
                                std::vector<nbde::RekeyedVolume>& unseen) const {
    if (volumes.empty() && lists.empty() && folders.empty() && !this_machine) {
      throw Error(Code::kUsage, "nothing says which volumes",
                  "name them, or --list FILE, --directory FOLDER, --this-machine");
    }
    std::vector<std::string> found = volumes;
    for (const std::string& list : lists) read_list(session, list, found);
    const auto take = [&](const luks::HeaderFile&, const std::string& path) {
      found.push_back(path);
    };
    for (const std::string& folder : folders) {
      note_unseen(folder, "files and folders", archive::scan(folder, take, session.cancel), unseen);
    }
    if (this_machine) {
      const archive::ScanReport seen = archive::scan_block_devices(take, session.cancel);
      note_unseen("this machine", "block devices", seen, unseen);
      note_members(seen, unseen);
    }
    // A machine may have none; a folder or a list that is named is for the volumes there.
    if (found.empty() && unseen.empty() && !this_machine) {
      throw Error(Code::kNotFound, "there are no volumes there", "see --list and --directory");
    }
    return once(found);
  }

 private:
  // Neither it nor the whole is dealt with, and what is bound there needs its key still.
  static void note_members(const archive::ScanReport& seen,
                           std::vector<nbde::RekeyedVolume>& unseen) {
    for (const std::string& member : seen.members) {
      nbde::RekeyedVolume row;
      row.volume = member;
      row.left.push_back(
          {.keyslot = -1,
           .error =
               Error(Code::kBusy,
                     "it is a member of a RAID that is not assembled: the volume is on the "
                     "whole (or md's superblock is left from before: mdadm --zero-superblock)")});
      unseen.push_back(std::move(row));
    }
  }

  static void note_unseen(const std::string& where, std::string_view what,
                          const archive::ScanReport& seen,
                          std::vector<nbde::RekeyedVolume>& unseen) {
    if (seen.unreadable == 0) return;
    nbde::RekeyedVolume row;
    row.volume = where;
    row.left.push_back(
        {.keyslot = -1,
         .error = Error(Code::kIo, fmt::format("{} {} could not be read: volumes may be among them",
                                               seen.unreadable, what))});
    unseen.push_back(std::move(row));
  }

  static void read_list(const Session& session, const std::string& list,
                        std::vector<std::string>& found) {
    const keys::KeySource source{.kind = keys::KeySource::Kind::kFile, .path = list};
    const SecretBytes bytes = keys::read_key(source, {}, {}, session.cancel);
    std::string_view text = as_string_view(bytes.span());
    while (!text.empty()) {
      std::string_view line = text.substr(0, text.find('\n'));
      text.remove_prefix(std::min(text.size(), line.size() + 1));
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (!line.empty() && !line.starts_with('#')) found.emplace_back(line);
    }
  }

  // Two names of one file would be two that wait for each other.
  static std::vector<std::string> once(const std::vector<std::string>& found) {
    if (found.size() > limits::kRekeyVolumesMax) {
      throw Error(Code::kInvalidArgument, fmt::format("{} volumes are too many for one run, which "
                                                      "takes {}",
                                                      found.size(), limits::kRekeyVolumesMax));
    }
    std::set<std::string> seen;
    std::vector<std::string> result;
    for (const std::string& path : found) {
      std::error_code error;
      const auto real = std::filesystem::canonical(path, error);
      if (seen.insert(error ? path : real.string()).second) result.push_back(path);
    }
    return result;
  }
};

class Rekey final : public Command {
 public:
  void declare(Options& options) override {
    volumes_.declare(options);
    options.add_each({.name = "--tang-key",
                      .value = "THUMBPRINT",
                      .help = "only bindings that depend on this key of a server, exchange or "
                              "signing; may be repeated (default: all with a server)"},
                     [this](const std::string& value) { add_key(value, keys_); });
    options.add_each({.name = "--new-key",
                      .value = "THUMBPRINT",
                      .help = "the only keys, exchange and signing, that a binding may get and did "
                              "not have; may be repeated (needed if a signing key is to go)"},
                     [this](const std::string& value) { add_key(value, new_keys_); });
    options.add({.name = "--key",
                 .value = "SOURCE",
                 .help = "with --new-key: opens the volumes whose servers do not answer any more"},
                source_);
    options.add({.name = "--journal",
                 .value = "FILE",
                 .help = "without --tang-key: remember in FILE what is done; a run that was cut "
                         "goes on there"},
                journal_);
    options.add({.name = "--report", .value = "FILE", .help = "write the report to FILE, as JSON"},
                report_);
    options.add({.name = "--jobs",
                 .value = "N",
                 .help = fmt::format("volumes at a time, 1 to {0} (default {0})",
                                     limits::kUnlockThreadsMax)},
                jobs_);
    policy_.declare(options);
    key_.declare_limits(options);
    servers_.declare(options);
    options.flag({.name = "--allow-pending",
                  .help = "leave out servers that are down, if the others suffice: see top-up"},
                 allow_pending_);
  }

  void run(const Session& session) override {
    if (keys_.empty() && journal_.empty()) {
      throw Error(Code::kUsage, "nothing says what is to be rekeyed",
                  "--tang-key THUMBPRINT for the bindings of one key; or all, with --journal FILE, "
                  "so that a run that is cut can go on");
    }
    refuse_contradictions();
    const std::uint32_t jobs = jobs_.value_or(limits::kUnlockThreadsMax);
    if (jobs == 0 || jobs > limits::kUnlockThreadsMax) {
      throw Error(Code::kUsage, fmt::format("--jobs takes 1 to {}", limits::kUnlockThreadsMax));
    }
    if (!session.dry_run) remove_report();
    std::vector<nbde::RekeyedVolume> unseen;
    const std::vector<std::string> paths = volumes_.find(session, unseen);
    std::optional<nbde::RekeyJournal> journal;
    if (!journal_.empty() && !session.dry_run) journal.emplace(journal_);
    std::vector<nbde::RekeyedVolume> results(paths.size());
    parallel_for(paths.size(), jobs, [&](std::size_t i) {
      results[i] = rekey(session, paths[i], journal ? &*journal : nullptr);
    });
    results.insert(results.end(), unseen.begin(), unseen.end());
    tell(session, results);
    const bool good =
        std::ranges::all_of(results, [](const auto& result) { return result.left.empty(); });
    if (journal && good) journal->finish();
  }

 private:
  void refuse_contradictions() const {
    if (!keys_.empty() && !journal_.empty()) {
      throw Error(Code::kUsage, "--journal is of no use with --tang-key",
                  "what is done shows in the volumes: their bindings do not depend on the key any "
                  "more");
    }
    refuse_sources();
    if (!journal_.empty() && storage::same_place(journal_, report_)) {
      throw Error(Code::kUsage, "--journal and --report name the same file");
    }
  }

  void refuse_sources() const {
    if (source_.empty()) return;
    if (new_keys_.empty()) {
      throw Error(
          Code::kUsage, "--key is of no use without --new-key",
          "a binding that does not open proves nothing: --new-key says which keys are right");
    }
    const keys::KeySource source = keys::parse_key_source(source_);
    if (source.kind == keys::KeySource::Kind::kPrompt ||
        source.kind == keys::KeySource::Kind::kFd || source.path == "-") {
      throw Error(Code::kUsage, fmt::format("'{}' can be read once only", printable(source_)),
                  "each of the volumes is opened with it: file:PATH names a file");
    }
  }

  // One of an earlier run would speak for this one, if this one is cut.
  void remove_report() const {
    std::error_code error;
    if (report_.empty() || !std::filesystem::is_regular_file(report_, error)) return;
    std::filesystem::remove(report_, error);
    if (!error) return;
    throw Error(Code::kIo, fmt::format("cannot remove the report '{}' of an earlier run: {}",
                                       printable(report_, 256), error.message()));
  }

  static void add_key(const std::string& value, std::vector<std::string>& keys) {
    const auto bytes = from_base64url(value);
    // SHA-1 to SHA-512.
    if (!bytes || bytes->size() < 20 || bytes->size() > 64) {
      throw Error(Code::kUsage, fmt::format("'{}' is no thumbprint of a key", printable(value)),
                  "'lukskeep tang keys' lists those of a server");
    }
    keys.push_back(value);
  }

  VolumeArgs args_of(const std::string& path) const {
    VolumeArgs args;
    args.volume = path;
    args.policy = policy_;
    return args;
  }

  // Whatever is wrong with one volume, the others are done.
  nbde::RekeyedVolume rekey(const Session& session, const std::string& path,
                            nbde::RekeyJournal* journal) {
    nbde::RekeyedVolume result{.volume = path,
                               .uuid = {},
                               .rebound = {},
                               .unproven = {},
                               .left = {},
                               .unknown = {},
                               .in_use = {}};
    try {
      rekey_one(session, path, journal, result);
    } catch (const Error& error) {
      if (error.code() == Code::kInterrupted) throw;
      result.left.push_back({.keyslot = -1, .error = error});
    } catch (const std::bad_alloc&) {
      result.left.push_back({.keyslot = -1, .error = Error(Code::kOutOfMemory, "out of memory")});
    } catch (const std::exception& error) {
      result.left.push_back({.keyslot = -1, .error = Error(Code::kInternal, error.what())});
    }
    return result;
  }

  void rekey_one(const Session& session, const std::string& path, nbde::RekeyJournal* journal,
                 nbde::RekeyedVolume& result) {
    std::optional<luks::HeaderFile> file = open_header(args_of(path));
    result.uuid = file->header().uuid;
    std::vector<int> slots = slots_of(*file, journal, result);
    if (!slots.empty()) {
      file.reset();  // its lock
      file = open_for_change(session, path);
      // Somebody may have been at it between the two.
      result.left.clear();
      slots = slots_of(*file, journal, result);
      if (!slots.empty()) rebind_all(session, *file, slots, journal, result);
    }
    note_keys(*file, result);
  }

  // The archive takes one at a time.
  luks::HeaderFile open_for_change(const Session& session, const std::string& path) {
    const std::lock_guard lock(mutex_);
    return open_header_for_change(session, args_of(path), true);
  }

  // The keyslots whose bindings are to be rebound; what cannot be said of goes to result.left.
  std::vector<int> slots_of(const luks::HeaderFile& file, const nbde::RekeyJournal* journal,
                            nbde::RekeyedVolume& result) const {
    std::set<int> slots;
    for (const nbde::Binding& binding : nbde::list_bindings(file)) {
      if (binding.orphan) continue;
      const int slot = binding.replaces.value_or(binding.keyslot);
      try {
        const nbde::Jwe& jwe = nbde::sealed_of(binding);
        const nbde::SealedPin pin =
            nbde::describe(jwe, fmt::format("the binding of keyslot {}", slot));
        const bool unfinished = binding.replaces || binding.leftover;
        const bool done = journal != nullptr && !unfinished &&
                          journal->is_done(file.header().uuid, binding.keyslot, jwe);
        if (unfinished || (!done && nbde::depends_on(pin, keys_))) slots.insert(slot);
      } catch (const Error& error) {
        // Whom it is sealed to nobody can tell.
        result.left.push_back({.keyslot = binding.keyslot, .error = error});
      }
    }
    return {slots.begin(), slots.end()};
  }

  void rebind_all(const Session& session, luks::HeaderFile& file, const std::vector<int>& slots,
                  nbde::RekeyJournal* journal, nbde::RekeyedVolume& result) const {
    nbde::PinContext context = servers_.context(session);
    context.allow_pending = allow_pending_;
    const OpenedVolume opened = open(session, file, context);
    for (const int slot : slots) {
      try {
        const nbde::SealedPin before = binding_before(file, slot);
        refuse_signing_keys(before);
        const bool unproven = rebind_one(session, file, opened.unlocked, slot, context, before);
        if (unproven) result.unproven.push_back(slot);
        if (journal != nullptr) {
          journal->note(file.header().uuid, slot, nbde::sealed_of(nbde::find_binding(file, slot)));
        }
        result.rebound.push_back(slot);
      } catch (const Error& error) {
        if (error.code() == Code::kInterrupted) throw;
        result.left.push_back({.keyslot = slot, .error = error});
      }
    }
  }

  // With --key if that opens it.
  OpenedVolume open(const Session& session, const luks::HeaderFile& file,
                    const nbde::PinContext& context) const {
    const luks::UnlockOptions unlock = key_.unlock_options(session);
    if (source_.empty()) return unlock_by_binding(file, context, unlock);
    try {
      // One at a time: what people type costs far more memory than what bindings hold.
      const std::lock_guard lock(unlocking_);
      return unlock_for_binding(session, file, source_, key_, context);
    } catch (const Error& error) {
      if (error.code() != Code::kWrongPassphrase) throw;
      return unlock_by_binding(file, context, unlock);
    }
  }

  // True if the binding did not open, so that its policy is the header's word.
  bool rebind_one(const Session& session, luks::HeaderFile& file, const luks::Unlocked& key,
                  int slot, nbde::PinContext context, const nbde::SealedPin& before) const {
    const luks::UnlockOptions unlock = key_.unlock_options(session);
    // Whether nothing says that the policy is the one that was bound.
    bool unproven = false;
    bool ever_unproven = false;
    context.ask_trust = [&](auto&&...) { return unproven; };
    const auto policy = [&] {
      unproven = false;
      try {
        return policy_of_binding(file, slot, context, unlock);
      } catch (const Error& error) {
        if (source_.empty() || error.code() != Code::kUnsafe) throw;
        unproven = ever_unproven = true;
        return policy_for_new_keys(nbde::policy_of(before), error);
      }
    };
    const auto check = [&](const nbde::Jwe& jwe) {
      refuse_wrong_keys(unproven ? nbde::SealedPin{} : before, jwe);
    };
    rebind_keyslot(file, key, slot, context, unlock, {.check = check, .policy = policy});
    return ever_unproven;
  }

  // The same servers, by whatever keys --new-key names: refuse_wrong_keys() sees to these. Another
  // pin anybody could have put there.
  static nbde::PinPolicy policy_for_new_keys(nbde::PinPolicy policy, const Error& error) {
    if (auto* tang = std::get_if<nbde::TangPin>(&policy.pin)) {
      tang->thumbprint.clear();
      tang->trusted_keys = {};
      return policy;
    }
    auto* sss = std::get_if<nbde::SssPin>(&policy.pin);
    if (sss == nullptr) throw Error(error);
    for (nbde::PinPolicy& pin : sss->pins) pin = policy_for_new_keys(std::move(pin), error);
    return policy;
  }

  // What a keyslot is bound by, not what a run that was cut was about to bind it by.
  static nbde::SealedPin binding_before(const luks::HeaderFile& file, int slot) {
    nbde::SealedPin before;
    for (const nbde::Binding& binding : nbde::list_bindings(file)) {
      const bool exact = binding.keyslot == slot;
      if (binding.orphan || !binding.jwe || (!exact && binding.replaces != slot)) continue;
      before = nbde::describe(*binding.jwe, fmt::format("the binding of keyslot {}", slot));
      if (exact) break;
    }
    return before;
  }

  // Whoever has the key can sign keys of his own, and answer at the server's address.
  void refuse_signing_keys(const nbde::SealedPin& before) const {
    if (!new_keys_.empty() || !nbde::trusts(before, keys_)) return;
    throw Error(Code::kUnsafe,
                "it takes as new what the key that is to go has signed, and so perhaps a thief's: "
                "--new-key says which keys are right",
                "'lukskeep tang keys' on the server lists its new keys");
  }

  // Before anything is written.
  void refuse_wrong_keys(const nbde::SealedPin& before, const nbde::Jwe& jwe) const {
    const nbde::SealedPin after = nbde::describe(jwe, "the new binding");
    if (!keys_.empty() && nbde::depends_on(after, keys_)) {
      throw Error(Code::kConflict,
                  "its server still tells of the key that is to go, or is pending and trusts it",
                  "hide it there first: lukskeep tang rotate");
    }
    if (new_keys_.empty()) return;
    const std::set<std::string> unexpected = nbde::unexpected_keys(before, after, new_keys_);
    if (unexpected.empty()) return;
    throw Error(Code::kUnsafe,
                fmt::format("its server tells of keys that no --new-key names: {}",
                            printable(fmt::format("{}", fmt::join(unexpected, ", ")), 1024)),
                "compare them with 'lukskeep tang keys' on the server itself");
  }

  static void note_keys(const luks::HeaderFile& file, nbde::RekeyedVolume& result) {
    for (const nbde::Binding& binding : nbde::list_bindings(file)) {
      if (binding.orphan || !binding.jwe) continue;
      try {
        const nbde::SealedPin pin = nbde::describe(*binding.jwe, "the binding");
        result.in_use.merge(nbde::keys_of(pin));
        for (const std::string& name : nbde::unknown_pins(pin)) {
          result.unknown.emplace_back(binding.keyslot, name);
        }
      } catch (const Error& error) {
        // In result.left already.
        if (error.code() == Code::kInterrupted) throw;
      }
    }
  }

  void tell(const Session& session, const std::vector<nbde::RekeyedVolume>& results) const {
    OrderedJson json = nbde::rekey_report(keys_, results);
    std::string text;
    std::size_t done = 0;
    for (const nbde::RekeyedVolume& result : results) {
      const std::string name = printable(result.volume, 256);
      done += result.rebound.size();
      if (!result.rebound.empty()) {
        text += fmt::format("{}: rebound keyslot {}\n", name, fmt::join(result.rebound, ", "));
      }
      for (const int slot : result.unproven) {
        text += fmt::format(
            "{}: keyslot {} did not open: its policy is the header's word; look at its threshold "
            "(lukskeep bindings)\n",
            name, slot);
      }
      for (const auto& problem : result.left) {
        text += problem.keyslot < 0 ? fmt::format("{}: LEFT: {}\n", name, problem.error.message())
                                    : fmt::format("{}: keyslot {} LEFT: {}\n", name,
                                                  problem.keyslot, problem.error.message());
      }
      for (const auto& [keyslot, pin] : result.unknown) {
        text += fmt::format("{}: keyslot {} has the pin '{}', which is not known here\n", name,
                            keyslot, printable(pin));
      }
    }
    const auto left = json["left"].get<std::size_t>();
    text +=
        fmt::format("{} volumes: {} bindings {}, {} left\n", results.size(), done, "rebound", left);
    if (left > 0) session.outcome->exit_status = 1;
    if (!report_.empty() && !session.dry_run) write_report(json);
    json["dry_run"] = session.dry_run;
    if (session.quiet && !session.json) return;
    show(session, json, session.dry_run ? "dry run: would do this:\n" + text : text);
  }

  void write_report(const OrderedJson& json) const {
    const std::string text = json.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
    storage::PendingFile file(report_, text.size(), true);
    file.device().write(0, as_byte_view(text));
    file.commit();
  }

  VolumesArgs volumes_;
  std::vector<std::string> keys_;
  std::vector<std::string> new_keys_;
  std::string source_;
  std::string journal_;
  std::string report_;
  std::optional<std::uint32_t> jobs_;
  PolicyArgs policy_;
  KeyArgs key_;
  PinContextArgs servers_;
  bool allow_pending_ = false;
  std::mutex mutex_;
  mutable std::mutex unlocking_;
};

}  // namespace

std::unique_ptr<Command> make_rekey() { return std::make_unique<Rekey>(); }

}  // namespace lukskeep::cli
