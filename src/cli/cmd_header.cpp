// header backup, restore, repair.
#include <algorithm>
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
#include "archive/keeper.h"
#include "archive/store.h"
#include "base/bytes.h"
#include "cli/command.h"
#include "cli/copy_args.h"
#include "cli/named_device.h"
#include "cli/restoration.h"
#include "cli/target.h"
#include "cli/units.h"
#include "cli/volume_access.h"
#include "luks/header_backup.h"
#include "luks/layout.h"
#include "luks/luks1_repair.h"
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
    PathKind settled = PathKind::kAbsent;
    if (is_pipe(path_)) {
      check_stdout_is_free(session);
    } else {
      refuse_same(volume_.header_path(), path_);
      settled = confirm_overwrite(session, path_);
    }
    const luks::HeaderFile file = open_header(volume_);
    const Bytes backup = luks::backup_header(file, session.yes);
    if (is_pipe(path_)) return print(as_string_view(backup));
    if (!session.dry_run) {
      Target target(path_, settled, backup.size());
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
    options.positional({.name = "FILE", .help = "the backup, or archive:ID for a snapshot"}, path_);
    args_.declare(options);
  }

  void run(const Session& session) override {
    constexpr std::string_view kArchive = "archive:";
    if (path_.starts_with(kArchive)) {
      archive::Store store = args_.store.open();
      const archive::Entry entry = store.find(std::string_view(path_).substr(kArchive.size()));
      return restore_to(session, volume_, args_,
                        open_snapshot(session, store, entry, args_.identity));
    }
    refuse_same(volume_.header_path(), path_);
    restore_to(session, volume_, args_,
               {.backup = open_device(path_, storage::Access::kRead), .name = path_});
  }

 private:
  VolumeArgs volume_;
  RestoreArgs args_;
  std::string path_;
};

class HeaderRepair final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    options.flag({.name = "--orphan-tokens",
                  .help = "remove the tokens that are assigned to no keyslot too"},
                 orphans_);
    args_.declare(options);
  }

  void run(const Session& session) override {
    std::optional<luks::HeaderFile> file;
    try {
      file.emplace(open_header(volume_));
    } catch (const Error& error) {
      if (error.code() != Code::kNotLuks && error.code() != Code::kDamaged) throw;
      if (mend(session)) return;
      return restore_newest(session, error);
    }
    std::vector<std::string> problems = file->report().problems;
    luks::Header mended = file->header();
    if (orphans_) remove_orphans(mended, problems);
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
      luks::HeaderFile changing = open_header_for_change(session, volume_, true);
      changing.commit({.header = std::move(mended),
                       .new_areas = {},
                       .obsolete = {},
                       .overwrite_foreign = foreign});
    }
    report(session, {{"volume", volume_.volume}, {"repaired", problems}},
           problems.empty() ? fmt::format("nothing to repair: the header of '{}' is whole", name)
                            : fmt::format("{} the header of '{}' anew: {}",
                                          session.dry_run ? "would write" : "wrote", name,
                                          fmt::join(problems, "; ")));
  }

 private:
  static void remove_orphans(luks::Header& header, std::vector<std::string>& problems) {
    std::erase_if(header.tokens, [&](const auto& entry) {
      if (!entry.second.keyslots.empty()) return false;
      problems.push_back(fmt::format("token {} ({}) is assigned to no keyslot", entry.first,
                                     printable(entry.second.type)));
      return true;
    });
  }

  // A LUKS1 header of which only such fields are damaged as can be known. False if it is none.
  bool mend(const Session& session) const {
    const auto device = open_header_device(
        volume_.header_path(),
        session.dry_run ? storage::Access::kRead : storage::Access::kReadWrite, true);
    if (device->size_bytes() < luks::kLuks1HeaderBytes) return false;
    Bytes head(luks::kLuks1HeaderBytes);
    device->read(0, head);
    const auto repair = luks::mend_luks1(head);
    if (!repair) return false;
    const luks::Header header = luks::decode_luks1(repair->header, "the mended header");
    if (!args_.key.key.empty()) prove(session, *device, header, repair->header);
    if (!session.dry_run) {
      if (session.keeper != nullptr) keep(session, *device, header);
      luks::write_mended(*device, head, *repair);
    }
    report(
        session, {{"volume", volume_.volume}, {"repaired", repair->changes}},
        fmt::format("{} in the LUKS1 header of '{}': {}", session.dry_run ? "would mend" : "mended",
                    printable(volume_.volume, 256), fmt::join(repair->changes, "; ")));
    return true;
  }

  // Throws unless the key opens what the header would be.
  void prove(const Session& session, const Device& device, const luks::Header& header,
             ByteView mended) const {
    Bytes bytes(std::min(luks::header_end_bytes(header), device.size_bytes()));
    device.read(0, bytes);
    std::ranges::copy(mended, bytes.begin());
    const auto copy = std::make_shared<storage::MemoryDevice>(std::move(bytes), false);
    static_cast<void>(unlock_volume(session, luks::HeaderFile::open(with_name(copy, device.name())),
                                    args_.key, args_.key.unlock_options(session)));
  }

  void keep(const Session& session, const Device& device, const luks::Header& header) const {
    Bytes bytes(std::min(luks::header_end_bytes(header), device.size_bytes()));
    device.read(0, bytes);
    const std::string& path = volume_.header_path();
    static_cast<void>(session.keeper->before(archive::capture_wreck(
        bytes, header, archive::identify_device(path, device.size_bytes()), "a damaged header")));
    session.keeper->will_write(path);
  }

  // Nothing on the device can be read: the archive knows what was there.
  void restore_newest(const Session& session, const Error& damage) const {
    const std::string directory = args_.store.chosen();
    if (archive::Store::exists(directory)) {
      archive::Store store(directory);
      if (const auto entry = store.newest_at(archive::absolute_path(volume_.header_path()))) {
        return restore_to(session, volume_, args_,
                          open_snapshot(session, store, *entry, args_.identity));
      }
    }
    throw Error(
        damage.code(),
        fmt::format("{}, and the archive has no snapshot of what was there", damage.message()),
        "if it was at another path, 'lukskeep archive list' may show it: 'lukskeep header "
        "restore VOLUME archive:ID'");
  }

  VolumeArgs volume_;
  RestoreArgs args_;
  bool orphans_ = false;
};

}  // namespace

std::unique_ptr<Command> make_header_backup() { return std::make_unique<HeaderBackup>(); }
std::unique_ptr<Command> make_header_repair() { return std::make_unique<HeaderRepair>(); }
std::unique_ptr<Command> make_header_restore() { return std::make_unique<HeaderRestore>(); }

}  // namespace lukskeep::cli
