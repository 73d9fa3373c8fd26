// Snapshots of headers whenever they changed, by whatever program.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <lukskeep/error.h>
#include <lukskeep/progress.h>

#include "archive/folder_watch.h"
#include "archive/store.h"
#include "luks/header_file.h"

namespace lukskeep::archive {

struct WatchRequest {
  // Folders with all below them, files and block devices; none: the block devices of this machine.
  std::vector<std::string> paths;
  // How often headers are looked at that nothing tells about: those of block devices, and of files
  // whose writer keeps them open.
  std::chrono::seconds interval{15};
};

struct WatchNews {
  enum class Kind : std::uint8_t {
    kArchived,   // `id` holds the header at `path`
    kGone,       // there is no readable header at `path` any more; `id` is its newest snapshot
    kTrouble,    // `path` or, if empty, the archive: `text` says what is wrong; tried again
    kRecovered,  // the archive takes snapshots again
  };
  Kind kind = Kind::kArchived;
  std::string path;
  std::string uuid;
  std::string id;
  std::string text;
};

// One thread at a time. Of a path whose header changes without end no more than
// limits::kWatchSnapshotsMax states are kept in a period, the last one among them. What is wrong
// with a device or the archive is told once and tried again: it ends nothing.
class Watcher {
 public:
  using Clock = std::chrono::steady_clock;
  using Tell = std::function<void(const WatchNews&)>;

  // Throws kNotFound if one of the paths is not there, kIo if folders cannot be watched at all.
  Watcher(WatchRequest request, std::string store_directory, Tell tell);

  // Looks at everything, and again at what is in the middle of a change for a few seconds. Throws
  // what the archive throws if it took not all of it, and kInterrupted.
  void run_once(const CancelToken& cancel);
  // Until cancelled: then it returns within a second, at once if by a signal.
  void run(const CancelToken& cancel);

 private:
  struct Known {
    std::string uuid;
    std::string content_id;
    std::string id;
    bool is_gone = false;
    Clock::time_point period_start;
    unsigned snapshots = 0;  // since then
  };
  struct Pending {
    Clock::time_point due;
    unsigned tries = 0;
  };
  enum class Seen : std::uint8_t { kDone, kChanging, kNotTaken, kTooOften };

  void watch_folders();
  void sweep(const CancelToken& cancel);
  void poll(const CancelToken& cancel);
  void take_in(const FolderChanges& changes, const CancelToken& cancel);
  void sweep_soon();
  void enqueue(const std::string& path, std::chrono::milliseconds delay);
  void look_at_due(const CancelToken& cancel);
  void look_again(const std::string& path, unsigned tries);
  Seen look(const std::string& path, bool patient);
  Seen look_at_header(const std::string& path, const luks::HeaderFile& file, bool patient);
  Seen no_header(const std::string& path, const Error& error, bool patient);
  Seen archive_it(const std::string& path, const luks::HeaderFile& file,
                  const std::string& content);
  template <typename Work>
  bool use_store(const Work& work);
  void remember(const std::string& path, const luks::HeaderFile& file, const std::string& content,
                const std::string& id);
  bool is_too_often(const std::string& path);
  void archive_failed(const Error& error);
  void trouble(const std::string& path, const Error& error);
  void wait(const CancelToken& cancel, Clock::time_point until) const;
  Clock::time_point next_work() const;

  WatchRequest request_;
  std::string store_directory_;
  Tell tell_;
  FolderWatch folders_;
  std::optional<Store> store_;
  std::map<std::string, Known> known_;
  std::map<std::string, Pending> pending_;
  std::map<std::string, std::string> troubles_;
  std::optional<Error> store_error_;
  std::chrono::seconds back_off_{0};
  Clock::time_point store_due_;
  Clock::time_point poll_due_;
  Clock::time_point sweep_due_;
  bool rewatch_ = false;
};

}  // namespace lukskeep::archive
