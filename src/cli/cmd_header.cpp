// header backup, restore, repair.
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "archive/device_identity.h"
#include "archive/store.h"
#include "base/bytes.h"
#include "cli/archive_args.h"
#include "cli/command.h"
#include "cli/copy_args.h"
#include "cli/header_view.h"
#include "cli/named_device.h"
#include "cli/target.h"
#include "cli/units.h"
#include "cli/volume_access.h"
#include "luks/header_backup.h"
#include "storage/memory_device.h"

namespace lukskeep::cli {
namespace {

class HeaderBackup final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    options.positional({.name = "FILE", .help = "the backup: a new file, or - for standard output"},
                       path_);
  }

  void run(const Session& session) override {
    if (is_pipe(path_)) {
      check_stdout_is_free(session);
    } else {
      refuse_same(volume_.header_path(), path_);
      confirm_overwrite(session, path_);
    }
    const luks::HeaderFile file = open_header(volume_);
    const Bytes backup = luks::backup_header(file, session.yes);
    if (is_pipe(path_)) return print(as_string_view(backup));
    if (!session.dry_run) {
      Target target(path_, backup.size());
      target.device()->write(0, backup);
      target.commit();
    }
    report(session,
           {{"volume", volume_.volume},
            {"backup", path_},
            {"size", backup.size()},
            {"uuid", file.header().uuid}},
           fmt::format("{} the header of '{}' ({}) to '{}'",
                       session.dry_run ? "would copy" : "copied", printable(volume_.volume, 256),
                       human_size(backup.size()), printable(path_, 256)));
  }

 private:
  VolumeArgs volume_;
  std::string path_;
};

// A header that is put back over whatever is there.
class Restoration {
 public:
  Restoration(const VolumeArgs& volume, std::string from)
      : volume_(volume), from_(std::move(from)) {}

  // Throws Error{kUnsafe} unless all objections are settled.
  void run(const Session& session, const std::shared_ptr<Device>& backup) const {
    const auto target =
        open_device(volume_.header_path(),
                    session.dry_run ? storage::Access::kRead : storage::Access::kReadWrite);
    const luks::RestorePlan plan = luks::plan_restore(judged(backup), target);
    settle_objections(session, plan);
    keep_header(session, volume_.header_path());
    if (!session.dry_run) luks::restore_header(plan, *target);
    report(session, to_json(plan), to_text(session, plan));
  }

 private:
  // What is to come, not what is there: that may be what the backup is to save from. The bytes that
  // are judged are those that will be written, whatever happens to the backup meanwhile.
  std::shared_ptr<Device> judged(const std::shared_ptr<Device>& backup) const {
    if (!volume_.policy.source) return backup;
    const luks::HeaderFile source = luks::HeaderFile::open(backup);
    auto copy =
        with_name(std::make_shared<storage::MemoryDevice>(luks::backup_header(source, true), false),
                  backup->name());
    volume_.policy.enforce(luks::HeaderFile::open(copy));
    return copy;
  }

  void settle_objections(const Session& session, const luks::RestorePlan& plan) const {
    if (plan.objections.empty()) return;
    const std::string objections = fmt::format("{}", fmt::join(plan.objections, "; "));
    if (session.yes) {
      for (const std::string& objection : plan.objections) warn(objection);
    }
    confirm(session,
            fmt::format("Restoring the header of '{}' from '{}' is not safe:\n  {}",
                        printable(volume_.volume, 256), from_, fmt::join(plan.objections, "\n  ")),
            Error(Code::kUnsafe, fmt::format("not restoring the header of '{}': {}",
                                             printable(volume_.volume, 256), objections)));
  }

  OrderedJson to_json(const luks::RestorePlan& plan) const {
    OrderedJson json = {{"volume", volume_.volume}, {"backup", from_}};
    json.update(summary_json(plan.from_backup));
    json["keyslots"] = keyslots_json(plan.from_backup);
    json["objections"] = plan.objections;
    json["notes"] = plan.notes;
    return json;
  }

  std::string to_text(const Session& session, const luks::RestorePlan& plan) const {
    std::string text =
        fmt::format("{} the header of '{}' from '{}': {}, {} keyslot{}",
                    session.dry_run ? "would restore" : "restored", printable(volume_.volume, 256),
                    from_, summary_text(plan.from_backup), plan.from_backup.keyslots.size(),
                    plan.from_backup.keyslots.size() == 1 ? "" : "s");
    for (const std::string& note : plan.notes) text += "\n  " + note;
    return text;
  }

  const VolumeArgs& volume_;
  std::string from_;  // as the user names it
};

// A snapshot's header as a device.
std::shared_ptr<Device> open_snapshot(const Session& session, const archive::Store& store,
                                      const archive::Entry& entry, const IdentityArgs& identity) {
  auto memory =
      std::make_shared<storage::MemoryDevice>(store.open(entry, identity.read(session)), false);
  return with_name(std::move(memory), fmt::format("snapshot {}", entry.id.substr(0, 12)));
}

class HeaderRestore final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    options.positional({.name = "FILE", .help = "the backup, or archive:ID for a snapshot"}, path_);
    store_.declare(options);
    identity_.declare(options);
  }

  void run(const Session& session) override {
    constexpr std::string_view kArchive = "archive:";
    if (path_.starts_with(kArchive)) {
      archive::Store store = store_.open();
      const archive::Entry entry = store.find(std::string_view(path_).substr(kArchive.size()));
      const auto backup = open_snapshot(session, store, entry, identity_);
      return Restoration(volume_, path_).run(session, backup);
    }
    refuse_same(volume_.header_path(), path_);
    const auto backup = open_device(path_, storage::Access::kRead);
    Restoration(volume_, path_).run(session, backup);
  }

 private:
  VolumeArgs volume_;
  StoreArgs store_;
  IdentityArgs identity_;
  std::string path_;
};

class HeaderRepair final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    store_.declare(options);
    identity_.declare(options);
  }

  void run(const Session& session) override {
    std::optional<luks::HeaderFile> file;
    try {
      file.emplace(open_header(volume_));
    } catch (const Error& error) {
      if (error.code() != Code::kNotLuks && error.code() != Code::kDamaged) throw;
      return restore_newest(session, error);
    }
    const std::vector<std::string> problems = file->report().problems;
    const bool foreign = file->report().foreign_start;
    file.reset();
    const std::string name = printable(volume_.volume, 256);
    if (foreign) {
      confirm(
          session,
          fmt::format("The start of '{}' holds other data than LUKS: a partition table or file "
                      "system that was made since, or noise. It will be overwritten.",
                      name),
          Error(Code::kUnsafe, fmt::format("not repairing '{}': its start holds other data than "
                                           "LUKS, which would be overwritten",
                                           name)));
    }
    if (!problems.empty()) {
      // Every commit leaves two good copies.
      luks::HeaderFile changing = open_header_for_change(session, volume_);
      changing.commit({.header = changing.header(),
                       .new_areas = {},
                       .obsolete = {},
                       .overwrite_foreign = foreign});
    }
    report(session, {{"volume", volume_.volume}, {"repaired", problems}},
           problems.empty() ? fmt::format("nothing to repair: the header of '{}' is whole", name)
                            : fmt::format("{} both copies of the header of '{}': {}",
                                          session.dry_run ? "would write" : "wrote", name,
                                          fmt::join(problems, "; ")));
  }

 private:
  // Nothing on the device can be read: the archive knows what was there.
  void restore_newest(const Session& session, const Error& damage) const {
    const std::string directory = store_.chosen();
    if (archive::Store::exists(directory)) {
      archive::Store store(directory);
      if (const auto entry = store.newest_at(archive::absolute_path(volume_.header_path()))) {
        const auto backup = open_snapshot(session, store, *entry, identity_);
        return Restoration(volume_, "archive:" + entry->id.substr(0, 12)).run(session, backup);
      }
    }
    throw Error(
        damage.code(),
        fmt::format("{}, and the archive has no snapshot of what was there", damage.message()),
        "if it was at another path, 'lukskeep archive list' may show it: 'lukskeep header "
        "restore VOLUME archive:ID'");
  }

  VolumeArgs volume_;
  StoreArgs store_;
  IdentityArgs identity_;
};

}  // namespace

std::unique_ptr<Command> make_header_backup() { return std::make_unique<HeaderBackup>(); }
std::unique_ptr<Command> make_header_repair() { return std::make_unique<HeaderRepair>(); }
std::unique_ptr<Command> make_header_restore() { return std::make_unique<HeaderRestore>(); }

}  // namespace lukskeep::cli
