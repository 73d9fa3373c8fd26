// archive mirror, sync.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "archive/mirror.h"
#include "base/bytes.h"
#include "cli/archive_args.h"
#include "cli/command.h"
#include "cli/mirrors.h"

namespace lukskeep::cli {
namespace {

// What could not be done is an error of the command, told with all of it.
void finish(const Session& session, OrderedJson json, const std::string& text,
            const std::vector<std::string>& problems, Code code = Code::kRemote) {
  json["problems"] = problems;
  for (const std::string& problem : problems) warn(problem);
  if (!problems.empty()) session.outcome->exit_status = exit_status(code);
  report(session, std::move(json), text);
}

class ArchiveMirror final : public Command {
 public:
  void declare(Options& options) override {
    options.optional_positional(
        {.name = "URI",
         .help = "a folder, or s3+https://HOST[:PORT]/BUCKET[/PREFIX] (default: list the mirrors)"},
        uri_);
    options.flag({.name = "--remove", .help = "forget the mirror; what is there stays there"},
                 remove_);
    store_.declare(options);
  }

  void run(const Session& session) override {
    archive::Store store = store_.open();
    std::vector<std::string> mirrors = archive::mirrors_of(store);
    if (uri_.empty()) return list(session, store, mirrors);
    const auto found = std::ranges::find(mirrors, uri_);
    if (remove_) {
      if (found == mirrors.end()) {
        throw Error(Code::kNotFound, fmt::format("'{}' is no mirror of '{}'", printable(uri_, 256),
                                                 printable(store.directory(), 256)));
      }
      mirrors.erase(found);
      if (!session.dry_run) mirrors = archive::remove_mirror(store, uri_);
      return report(session, {{"store", store.directory()}, {"mirrors", mirrors}},
                    fmt::format("{} the mirror '{}'", session.dry_run ? "would forget" : "forgot",
                                printable(uri_, 256)));
    }
    if (found != mirrors.end()) {
      throw Error(Code::kExists,
                  fmt::format("'{}' is a mirror of '{}' already", printable(uri_, 256),
                              printable(store.directory(), 256)));
    }
    mirrors.push_back(uri_);
    add(session, store, std::move(mirrors));
  }

 private:
  void list(const Session& session, const archive::Store& store,
            const std::vector<std::string>& mirrors) const {
    const bool unsynced = archive::has_unsynced(store);
    std::string text;
    for (const std::string& mirror : mirrors) text += printable(mirror, 512) + "\n";
    if (mirrors.empty()) text = "no mirrors\n";
    if (unsynced) text += "not all of them have the newest snapshots: lukskeep archive sync\n";
    show(session, {{"store", store.directory()}, {"mirrors", mirrors}, {"unsynced", unsynced}},
         text);
  }

  void add(const Session& session, archive::Store& store, std::vector<std::string> mirrors) {
    const archive::MirrorOptions options = mirror_options(session);
    static_cast<void>(archive::open_mirror(uri_, options));
    archive::SyncReport done;
    if (!session.dry_run) {
      archive::prepare_mirror(uri_, options);
      mirrors = archive::add_mirror(store, uri_);
      done = archive::sync_mirrors(store, options);
    }
    finish(session, {{"store", store.directory()}, {"mirrors", mirrors}, {"sent", done.sent}},
           fmt::format("{} '{}' a mirror of '{}'; {} snapshot{} sent",
                       session.dry_run ? "would make" : "made", printable(uri_, 256),
                       printable(store.directory(), 256), done.sent, done.sent == 1 ? "" : "s"),
           done.problems);
  }

  std::string uri_;
  bool remove_ = false;
  StoreArgs store_;
};

class ArchiveSync final : public Command {
 public:
  void declare(Options& options) override {
    options.add({.name = "--from",
                 .value = "URI",
                 .help = "take in what this mirror has and the archive lacks, instead of sending"},
                from_);
    store_.declare(options);
    identity_.declare(options);
  }

  void run(const Session& session) override {
    const archive::MirrorOptions options = mirror_options(session);
    if (!from_.empty()) return fetch(session, options);
    archive::Store store = store_.open();
    const std::size_t mirrors = archive::mirrors_of(store).size();
    archive::SyncReport done;
    if (!session.dry_run) done = archive::sync_mirrors(store, options);
    finish(session, {{"store", store.directory()}, {"sent", done.sent}},
           session.dry_run
               ? fmt::format("would bring {} mirror{} up to date", mirrors, mirrors == 1 ? "" : "s")
               : fmt::format("sent {} snapshot{} to {} mirror{}", done.sent,
                             done.sent == 1 ? "" : "s", mirrors, mirrors == 1 ? "" : "s"),
           done.problems);
  }

 private:
  void fetch(const Session& session, const archive::MirrorOptions& options) {
    const std::unique_ptr<archive::Mirror> mirror = archive::open_mirror(from_, options);
    if (session.dry_run) {
      return report(session, {{"from", from_}},
                    fmt::format("would take in the {} snapshots of '{}' that are not there yet",
                                mirror->list().size(), printable(from_, 256)));
    }
    archive::Store store = open_or_make_archive(session, store_.chosen());
    std::vector<std::string> problems;
    const std::size_t fetched = archive::fetch_from_mirror(
        store, *mirror, identity_.read_if_any(session), problems, session.cancel);
    finish(session, {{"store", store.directory()}, {"from", from_}, {"fetched", fetched}},
           fmt::format("took in {} snapshot{} of '{}'", fetched, fetched == 1 ? "" : "s",
                       printable(from_, 256)),
           problems, Code::kDamaged);
  }

  std::string from_;
  StoreArgs store_;
  IdentityArgs identity_;
};

}  // namespace

std::unique_ptr<Command> make_archive_mirror() { return std::make_unique<ArchiveMirror>(); }
std::unique_ptr<Command> make_archive_sync() { return std::make_unique<ArchiveSync>(); }

}  // namespace lukskeep::cli
