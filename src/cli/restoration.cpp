#include "cli/restoration.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "archive/device_identity.h"
#include "archive/keeper.h"
#include "archive/restore_guard.h"
#include "base/bytes.h"
#include "cli/header_view.h"
#include "cli/named_device.h"
#include "luks/crypt_device.h"
#include "luks/payload_probe.h"
#include "storage/location.h"
#include "storage/memory_device.h"

namespace lukskeep::cli {
namespace {

using luks::Objection;
using luks::RestorePlan;
using luks::RestoreRisk;

std::vector<std::string_view> risk_names() {
  std::vector<std::string_view> names;
  names.reserve(luks::kRestoreRiskCount);
  for (int i = 0; i < luks::kRestoreRiskCount; ++i) {
    names.push_back(luks::risk_name(static_cast<RestoreRisk>(i)));
  }
  return names;
}

std::set<RestoreRisk> parse_risks(std::string_view text) {
  const std::vector<std::string_view> names = risk_names();
  std::set<RestoreRisk> risks;
  while (!text.empty()) {
    const std::string_view name = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), name.size() + 1));
    const auto found = std::ranges::find(names, name);
    if (found == names.end()) {
      throw Error(Code::kUsage, fmt::format("there is no reason '{}'", printable(name)),
                  fmt::format("the reasons are {}", fmt::join(names, ", ")));
    }
    risks.insert(static_cast<RestoreRisk>(found - names.begin()));
  }
  return risks;
}

class Restoration {
 public:
  Restoration(const Session& session, const VolumeArgs& volume, const RestoreArgs& args,
              const RestoreSource& source)
      : session_(session), volume_(volume), args_(args), source_(source) {}

  void run() {
    // Looked at without a lock; before it is written it is compared with what was seen.
    const auto target = open_to_look(volume_.header_path());
    RestorePlan plan = luks::plan_restore(judged_copy(), target);
    ask_the_archive(plan, *target);
    archive::object_to_users(plan, paths());
    if (!args_.key.key.empty()) try_key(plan);
    settle_objections(plan);
    const std::set<int> killed = args_.kill_revived ? plan.revived : std::set<int>();
    if (!killed.empty()) luks::leave_out_keyslots(plan, killed);
    warn_of_revived(plan, killed);
    const std::optional<std::string> undo = keep_present(plan, target->size_bytes());
    if (!session_.dry_run) write(plan);
    report(session_, to_json(plan, killed, undo), to_text(plan, killed, undo));
  }

 private:
  // What is there goes into the archive, readable or not.
  std::optional<std::string> keep_present(const RestorePlan& plan,
                                          std::uint64_t device_bytes) const {
    const std::string& path = volume_.header_path();
    std::optional<std::string> kept = keep_header(session_, path);
    if (kept || session_.keeper == nullptr || plan.present || all_zero(plan.replaced)) return kept;
    return session_.keeper->before(archive::capture_wreck(
        plan.replaced, plan.from_backup, archive::identify_device(path, device_bytes),
        plan.notes.empty() ? "" : plan.notes.front()));
  }

  // What is to come is judged, not what is there: that may be what the backup is to save from. The
  // bytes that are judged are those that will be written, whatever happens to the backup meanwhile.
  std::shared_ptr<Device> judged_copy() const {
    Bytes bytes = luks::backup_header(luks::HeaderFile::open(source_.backup), true);
    auto copy = with_name(std::make_shared<storage::MemoryDevice>(std::move(bytes), false),
                          source_.backup->name());
    volume_.policy.enforce(luks::HeaderFile::open(copy));
    return copy;
  }

  std::vector<std::string> paths() const {
    std::vector<std::string> paths = {volume_.volume};
    if (!volume_.header.empty()) paths.push_back(volume_.header);
    return paths;
  }

  void ask_the_archive(RestorePlan& plan, const Device& target) const {
    if (source_.manifest) {
      archive::compare_device(plan, source_.manifest->device,
                              archive::identify_device(volume_.header_path(), target.size_bytes()));
    }
    const auto directory = args_.store.directory.empty() ? default_store() : args_.store.directory;
    if (plan.present || !directory || !archive::Store::exists(*directory)) return;
    archive::Store store(*directory);
    if (const auto newest =
            store.newest(plan.from_backup.uuid, archive::absolute_path(volume_.header_path()))) {
      archive::compare_newest(plan, store.manifest(*newest));
    }
  }

  // With a key in hand guesses become knowledge: which volume key the backup holds, and whether the
  // payload makes sense under it.
  void try_key(RestorePlan& plan) const {
    const auto bytes = std::make_shared<storage::MemoryDevice>(plan.bytes, false);
    const luks::HeaderFile file = luks::HeaderFile::open(with_name(bytes, source_.name));
    const OpenedVolume opened =
        unlock_volume(session_, file, args_.key, args_.key.unlock_options(session_));
    const ByteView key = opened.unlocked.key.span();
    std::erase_if(plan.objections,
                  [](const Objection& one) { return one.risk == RestoreRisk::kVolumeKey; });
    if (plan.present && !luks::find_digest(*plan.present, key, args_.key.kdf_limit)) {
      plan.objections.push_back(
          {.risk = RestoreRisk::kVolumeKey,
           .text = "the volume key in the backup is not the one of the header that is there"});
    }
    const auto plain = luks::make_crypt_device(plan.from_backup, open_to_look(volume_.volume), key,
                                               {.allow_insecure = args_.key.allow_insecure});
    const std::string content = luks::probe_payload(*plain);
    if (content.empty()) {
      plan.objections.push_back(
          {.risk = RestoreRisk::kPayload,
           .text = "under the backup's volume key the payload has no known file system or "
                   "partition table: it is empty, of another kind, or of another volume"});
    } else {
      plan.notes.push_back(fmt::format("the payload holds {}", content));
    }
  }

  // Who was told that the volume is in use has said that it is to be written all the same.
  void write(const RestorePlan& plan) const {
    const bool in_use = std::ranges::any_of(
        plan.objections, [](const Objection& one) { return one.risk == RestoreRisk::kInUse; });
    const auto target = storage::open_location(
        volume_.header_path(),
        with_named_files(
            {.access = storage::Access::kReadWrite, .lock = !in_use, .cancel = session_.cancel}));
    luks::restore_header(plan, *target);
  }

  void settle_objections(const RestorePlan& plan) const {
    std::vector<std::string> refused;
    std::set<std::string_view> names;
    for (const Objection& objection : plan.objections) {
      const bool allowed = args_.allowed.contains(objection.risk);
      if (allowed) {
        warn(objection.text);
      } else if (session_.dry_run) {
        warn(fmt::format("{}: refused without --allow {}", objection.text,
                         luks::risk_name(objection.risk)));
      } else if (objection.risk == RestoreRisk::kForeign) {
        confirm_overwriting(objection);
      } else {
        refused.push_back(objection.text);
        names.insert(luks::risk_name(objection.risk));
      }
    }
    if (refused.empty()) return;
    throw Error(Code::kUnsafe,
                fmt::format("not restoring the header of '{}': {}", printable(volume_.volume, 256),
                            fmt::join(refused, "; ")),
                fmt::format("--allow {} does it all the same", fmt::join(names, ",")));
  }

  // The question that every command asks before it overwrites something.
  void confirm_overwriting(const Objection& objection) const {
    if (session_.yes) warn(objection.text);
    confirm(session_,
            fmt::format("Restoring the header of '{}' from '{}': {}",
                        printable(volume_.volume, 256), source_.name, objection.text),
            Error(Code::kUnsafe, fmt::format("not restoring the header of '{}': {}",
                                             printable(volume_.volume, 256), objection.text)));
  }

  void warn_of_revived(const RestorePlan& plan, const std::set<int>& killed) const {
    for (const int id : plan.revived) {
      if (killed.contains(id)) continue;
      warn(
          fmt::format("keyslot {} comes back: a passphrase that the present header does not have "
                      "opens the volume again (--kill-revived leaves it out)",
                      id));
    }
  }

  OrderedJson to_json(const RestorePlan& plan, const std::set<int>& killed,
                      const std::optional<std::string>& undo) const {
    OrderedJson json = {{"volume", volume_.volume}, {"backup", source_.name}};
    json.update(summary_json(plan.from_backup));
    json["keyslots"] = keyslots_json(plan.from_backup);
    json["objections"] = OrderedJson::array();
    for (const Objection& objection : plan.objections) {
      json["objections"].push_back(
          {{"reason", luks::risk_name(objection.risk)},
           {"text", objection.text},
           {"allowed", args_.allowed.contains(objection.risk) ||
                           (session_.yes && objection.risk == RestoreRisk::kForeign)}});
    }
    json["notes"] = plan.notes;
    json["revived"] = plan.revived;
    json["killed"] = killed;
    if (undo) json["undo"] = *undo;
    return json;
  }

  std::string to_text(const RestorePlan& plan, const std::set<int>& killed,
                      const std::optional<std::string>& undo) const {
    std::string text =
        fmt::format("{} the header of '{}' from '{}': {}, {} keyslot{}",
                    session_.dry_run ? "would restore" : "restored", printable(volume_.volume, 256),
                    source_.name, summary_text(plan.from_backup), plan.from_backup.keyslots.size(),
                    plan.from_backup.keyslots.size() == 1 ? "" : "s");
    for (const std::string& note : plan.notes) text += "\n  " + note;
    if (!killed.empty())
      text += fmt::format("\n  keyslots {} are left out", fmt::join(killed, ", "));
    if (undo) {
      text += fmt::format("\n  what was there is kept as archive:{}", undo->substr(0, 12));
    }
    return text;
  }

  const Session& session_;
  const VolumeArgs& volume_;
  const RestoreArgs& args_;
  const RestoreSource& source_;
};

}  // namespace

void RestoreArgs::declare(Options& options) {
  options.add({.name = "--allow",
               .value = "REASONS",
               .help = "restore although: damaged, version, uuid, device, size, offsets, "
                       "metadata-size, cipher, older, requirements, volume-key, payload, foreign, "
                       "in-use; with commas between"},
              [this](const std::string& text) { allowed = parse_risks(text); });
  options.flag({.name = "--kill-revived",
                .help = "leave out the keyslots whose passphrases the present header has not"},
               kill_revived);
  options.add({.name = "--key",
               .value = "SOURCE",
               .help = "a passphrase of the backup: proves its volume key and looks whether the "
                       "payload makes sense"},
              key.key);
  key.declare_limits(options);
  store.declare(options);
  identity.declare(options);
}

RestoreSource open_snapshot(const Session& session, archive::Store& store,
                            const archive::Entry& entry, const IdentityArgs& identity) {
  const std::string name = fmt::format("archive:{}", entry.id.substr(0, 12));
  auto memory =
      std::make_shared<storage::MemoryDevice>(store.open(entry, identity.read(session)), false);
  return {.backup = with_name(std::move(memory), name),
          .name = name,
          .manifest = store.manifest(entry)};
}

void restore_to(const Session& session, const VolumeArgs& volume, const RestoreArgs& args,
                const RestoreSource& source) {
  Restoration(session, volume, args, source).run();
}

}  // namespace lukskeep::cli
