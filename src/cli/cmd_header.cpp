// header backup, header restore.
#include <memory>
#include <string>

#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/copy_args.h"
#include "cli/header_view.h"
#include "cli/target.h"
#include "cli/units.h"
#include "cli/volume_access.h"
#include "luks/header_backup.h"

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

class HeaderRestore final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    options.positional({.name = "FILE", .help = "the backup"}, path_);
  }

  void run(const Session& session) override {
    refuse_same(volume_.header_path(), path_);
    const auto backup = open_device(path_, storage::Access::kRead);
    const auto target =
        open_device(volume_.header_path(),
                    session.dry_run ? storage::Access::kRead : storage::Access::kReadWrite);
    const luks::RestorePlan plan = luks::plan_restore(backup, target);
    settle_objections(session, plan);
    keep_header(session, volume_.header_path());
    if (!session.dry_run) luks::restore_header(plan, *target);
    report(session, to_json(plan), to_text(session, plan));
  }

 private:
  void settle_objections(const Session& session, const luks::RestorePlan& plan) const {
    if (plan.objections.empty()) return;
    const std::string objections = fmt::format("{}", fmt::join(plan.objections, "; "));
    if (session.yes) {
      for (const std::string& objection : plan.objections) warn(objection);
    }
    confirm(session,
            fmt::format("Restoring the header of '{}' from '{}' is not safe:\n  {}",
                        printable(volume_.volume, 256), printable(path_, 256),
                        fmt::join(plan.objections, "\n  ")),
            Error(Code::kUnsafe, fmt::format("not restoring the header of '{}': {}",
                                             printable(volume_.volume, 256), objections)));
  }

  OrderedJson to_json(const luks::RestorePlan& plan) const {
    OrderedJson json = {{"volume", volume_.volume}, {"backup", path_}};
    json.update(summary_json(plan.from_backup));
    json["keyslots"] = keyslots_json(plan.from_backup);
    json["objections"] = plan.objections;
    json["notes"] = plan.notes;
    return json;
  }

  std::string to_text(const Session& session, const luks::RestorePlan& plan) const {
    std::string text = fmt::format("{} the header of '{}' from '{}': {}, {} keyslot{}",
                                   session.dry_run ? "would restore" : "restored",
                                   printable(volume_.volume, 256), printable(path_, 256),
                                   summary_text(plan.from_backup), plan.from_backup.keyslots.size(),
                                   plan.from_backup.keyslots.size() == 1 ? "" : "s");
    for (const std::string& note : plan.notes) text += "\n  " + note;
    return text;
  }

  VolumeArgs volume_;
  std::string path_;
};

}  // namespace

std::unique_ptr<Command> make_header_backup() { return std::make_unique<HeaderBackup>(); }
std::unique_ptr<Command> make_header_restore() { return std::make_unique<HeaderRestore>(); }

}  // namespace lukskeep::cli
