// archive watch.
#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "archive/keeper.h"
#include "archive/mirror.h"
#include "archive/watch.h"
#include "base/bytes.h"
#include "cli/archive_args.h"
#include "cli/command.h"
#include "net/service_notify.h"

namespace lukskeep::cli {
namespace {

using archive::WatchNews;

constexpr std::uint32_t kIntervalMax = 86'400;
constexpr std::size_t kShortId = 12;

// One line each: whoever reads them reads on.
void print_line(const OrderedJson& json) {
  print(json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n");
}

void tell_in_json(const WatchNews& news) {
  switch (news.kind) {
    case WatchNews::Kind::kArchived:
      print_line(
          {{"event", "archived"}, {"path", news.path}, {"uuid", news.uuid}, {"id", news.id}});
      break;
    case WatchNews::Kind::kGone:
      print_line({{"event", "gone"},
                  {"path", news.path},
                  {"uuid", news.uuid},
                  {"id", news.id},
                  {"message", news.text}});
      break;
    case WatchNews::Kind::kTrouble:
      print_line({{"event", "trouble"}, {"path", news.path}, {"message", news.text}});
      break;
    case WatchNews::Kind::kRecovered:
      print_line({{"event", "recovered"}});
      break;
  }
}

void tell(const Session& session, const WatchNews& news) {
  const std::string path = printable(news.path, 256);
  switch (news.kind) {
    case WatchNews::Kind::kArchived:
      if (session.json || session.quiet) break;
      print(fmt::format("archived the header of '{}' as {}\n", path, news.id.substr(0, kShortId)));
      break;
    case WatchNews::Kind::kGone:
      warn(fmt::format("the header of '{}' can no longer be read: {} (its newest snapshot is {})",
                       path, news.text, news.id.substr(0, kShortId)));
      break;
    case WatchNews::Kind::kTrouble:
      warn(news.path.empty()
               ? fmt::format("nothing is archived, it will be tried again: {}", news.text)
               : fmt::format("'{}': {}", path, news.text));
      break;
    case WatchNews::Kind::kRecovered:
      warn("the archive takes snapshots again");
      break;
  }
  if (session.json) tell_in_json(news);
}

class ArchiveWatch final : public Command {
 public:
  void declare(Options& options) override {
    options.positionals(
        {.name = "PATH",
         .help = "folders, files and devices to watch (default: all block devices)"},
        paths_);
    options.add({.name = "--interval",
                 .value = "SECONDS",
                 .help = "how often to look at what no event tells of (default: 15)"},
                interval_);
    options.flag({.name = "--once", .help = "archive what changed, and end"}, once_);
    store_.declare(options);
  }

  void run(const Session& session) override {
    if (interval_ && (*interval_ == 0 || *interval_ > kIntervalMax)) {
      throw Error(Code::kUsage, fmt::format("--interval is from 1 to {} seconds", kIntervalMax));
    }
    const std::string directory = store_.chosen();
    make_store(session, directory);
    archive::WatchRequest request{.paths = paths_};
    if (interval_) request.interval = std::chrono::seconds(*interval_);
    archive::Watcher watcher(std::move(request), directory,
                             [&session, &directory](const WatchNews& news) {
                               tell(session, news);
                               if (news.kind == WatchNews::Kind::kArchived) {
                                 archive::leave_to_sync(archive::Store(directory));
                               }
                             });
    if (once_) return watcher.run_once(*session.cancel);
    net::notify_service_manager("READY=1");
    watcher.run(*session.cancel);
    net::notify_service_manager("STOPPING=1");
  }

 private:
  // An archive that cannot be had now may be had later; only --once does not wait.
  void make_store(const Session& session, const std::string& directory) const {
    try {
      static_cast<void>(open_or_make_archive(session, directory));
    } catch (const Error& error) {
      if (once_ || error.code() == Code::kUsage || error.code() == Code::kInvalidArgument) throw;
      tell(session, {.kind = WatchNews::Kind::kTrouble,
                     .path = {},
                     .uuid = {},
                     .id = {},
                     .text = error.message()});
    }
  }

  std::vector<std::string> paths_;
  std::optional<std::uint32_t> interval_;
  bool once_ = false;
  StoreArgs store_;
};

}  // namespace

std::unique_ptr<Command> make_archive_watch() { return std::make_unique<ArchiveWatch>(); }

}  // namespace lukskeep::cli
