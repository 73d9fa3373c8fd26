// archive scan.
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "archive/device_identity.h"
#include "archive/mirror.h"
#include "archive/scan.h"
#include "archive/store.h"
#include "base/bytes.h"
#include "cli/archive_args.h"
#include "cli/command.h"

namespace lukskeep::cli {
namespace {

class ArchiveScan final : public Command {
 public:
  void declare(Options& options) override {
    options.optional_positional(
        {.name = "PATH", .help = "a folder, file or device (default: all block devices)"}, root_);
    store_.declare(options);
    options.flag({.name = "--add", .help = "archive what the archive has not got as it is"}, add_);
  }

  void run(const Session& session) override {
    std::optional<archive::Store> store;
    if (add_ && !session.dry_run) {
      store.emplace(open_or_make_archive(session, store_.chosen()));
    } else if (archive::Store::exists(store_.chosen())) {
      store.emplace(store_.open());
    }
    OrderedJson volumes = OrderedJson::array();
    std::string text;
    const auto found = [&](const luks::HeaderFile& file, const std::string& path) {
      std::string problem;
      const std::string state = settle(session, store, file, path, problem);
      OrderedJson volume = {{"path", path},
                            {"uuid", file.header().uuid},
                            {"version", file.header().version == luks::Version::kLuks1 ? 1 : 2},
                            {"state", state}};
      if (!problem.empty()) volume["problem"] = problem;
      volumes.push_back(std::move(volume));
      text += fmt::format("{:<8}  {}  {}{}\n", state, printable(file.header().uuid),
                          printable(path, 256), problem.empty() ? "" : ": " + problem);
    };
    const archive::ScanReport seen = root_.empty()
                                         ? archive::scan_block_devices(found, session.cancel)
                                         : archive::scan(root_, found, session.cancel);
    // There may be many: `archive sync` sends them.
    if (store && !store->new_files().empty()) archive::leave_to_sync(*store);
    text += fmt::format("{} volume{} among {} files and devices, {} of which could not be read\n",
                        volumes.size(), volumes.size() == 1 ? "" : "s", seen.looked_at,
                        seen.unreadable);
    for (const std::string& member : seen.members) {
      text += fmt::format("passed over: {}, a member of a RAID that is not assembled\n",
                          printable(member, 256));
    }
    OrderedJson json = {{"volumes", std::move(volumes)},
                        {"members", seen.members},
                        {"looked_at", seen.looked_at},
                        {"unreadable", seen.unreadable},
                        {"dry_run", session.dry_run}};
    if (session.quiet && !session.json) return;
    show(session, json, session.dry_run ? "dry run: would find\n" + text : text);
  }

 private:
  // "current", "added", "changed" (to be added), "new" (likewise), "failed" with the problem. One
  // volume that cannot be read does not keep others from being archived; an archive that fails
  // does.
  std::string settle(const Session& session, std::optional<archive::Store>& store,
                     const luks::HeaderFile& file, const std::string& path,
                     std::string& problem) const {
    if (!store) return "new";
    const auto newest = store->newest(file.header().uuid, archive::absolute_path(path));
    std::optional<archive::Capture> taken;
    try {
      if (newest && newest->content_id == archive::content_id(file) && store->holds(*newest)) {
        return "current";
      }
      if (!add_ || session.dry_run) return newest ? "changed" : "new";
      taken = archive::capture(file, path);
    } catch (const Error& error) {
      if (ends_a_scan(error.code())) throw;
      session.outcome->exit_status = exit_status(error.code());
      problem = error.message();
      return "failed";
    }
    const auto added =
        store->add(std::move(*taken), {.path = path, .reason = "scan", .command = ""});
    return added.is_new ? "added" : "current";
  }

  static bool ends_a_scan(Code code) {
    return code == Code::kInterrupted || code == Code::kOutOfMemory || code == Code::kNoSpace;
  }

  std::string root_;
  StoreArgs store_;
  bool add_ = false;
};

}  // namespace

std::unique_ptr<Command> make_archive_scan() { return std::make_unique<ArchiveScan>(); }

}  // namespace lukskeep::cli
