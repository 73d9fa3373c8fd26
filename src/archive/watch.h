// Snapshots of headers whenever they changed, by whatever program.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <lukskeep/error.h>
#include <lukskeep/progress.h>

#include "archive/store.h"
#include "base/limits.h"
#include "luks/header_file.h"
#include "storage/folder_watch.h"

namespace lukskeep::archive {

// Tests have smaller ones.
struct WatchBounds {
  std::size_t files_max = limits::kWatchFilesMax;
  unsigned snapshots_max = limits::kWatchSnapshotsMax;             // of one path in a period
  unsigned snapshots_total_max = limits::kWatchSnapshotsTotalMax;  // of all
  std::chrono::seconds period{limits::kWatchPeriodSeconds};
};

// Counts snapshots, so that whoever writes headers without end fills no archive with them. Knows
// nothing of files: a path that goes and comes again has spent what it has spent. Holds no more
// than files_max + snapshots_total_max paths. One thread at a time.
class SnapshotBudget {
 public:
  using Clock = std::chrono::steady_clock;

  explicit SnapshotBudget(const WatchBounds& bounds) : bounds_(bounds) {}

  // Those taken from now on count together too. Until then there is what was there at the start:
  // each path once, and all of them have to be taken.
  void limit_total() noexcept { is_total_limited_ = true; }

  struct Verdict {
    bool is_granted = false;
    std::string news;  // why not; empty if that was told in this period
  };
  Verdict ask(const std::string& path, Clock::time_point now);
  // One was taken.
  void spend(const std::string& path, Clock::time_point now);
  // When the period is over.
  Clock::time_point renewed_at() const noexcept { return period_start_ + bounds_.period; }

 private:
  struct Count {
    unsigned snapshots = 0;
    bool is_told = false;
  };

  WatchBounds bounds_;
  bool is_total_limited_ = false;
  // Of this period.
  Clock::time_point period_start_;
  std::map<std::string, Count> counts_;
  unsigned total_ = 0;
  bool is_total_told_ = false;
};

struct WatchRequest {
  // Folders with all below them, files and block devices; none: the block devices of this machine.
  std::vector<std::string> paths;
  // How often headers are looked at that nothing tells about: those of block devices, and of files
  // whose writer keeps them open.
  std::chrono::seconds interval{15};
  WatchBounds bounds;
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
// limits::kWatchSnapshotsMax states are kept in a period, the last one among them; of all paths no
// more than limits::kWatchSnapshotsTotalMax after the start, and who waited longest is next then.
// What is wrong with a device or the archive is told once and tried again: it ends nothing.
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
  };
  struct Pending {
    Clock::time_point since;
    Clock::time_point due;
    unsigned tries = 0;
  };
  enum class Seen : std::uint8_t { kDone, kChanging, kNotTaken, kTooOften };

  void watch_folders();
  void sweep(const CancelToken& cancel);
  void poll(const CancelToken& cancel);
  void take_in(const storage::FolderChanges& changes, const CancelToken& cancel);
  void sweep_soon();
  bool is_full() const noexcept { return pending_.size() >= request_.bounds.files_max; }
  void enqueue(const std::string& path, std::chrono::milliseconds delay);
  void enqueue_found(const std::string& path, std::chrono::milliseconds delay,
                     const CancelToken& cancel);
  void make_room(const CancelToken& cancel);
  void look_at_due(const CancelToken& cancel);
  bool is_behind_link(const std::string& path) const;
  void look_again(const std::string& path, Pending pending);
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
  storage::FolderWatch folders_;
  std::optional<Store> store_;
  SnapshotBudget budget_;
  std::map<std::string, Known> known_;
  // Those that are known have a place always, others while there are fewer than files_max.
  std::map<std::string, Pending> pending_;
  Clock::time_point full_until_;  // if it is full: before, nothing in it is due
  std::map<std::string, std::string> troubles_;
  std::optional<Error> store_error_;
  std::chrono::seconds back_off_{0};
  Clock::time_point store_due_;
  Clock::time_point poll_due_;
  Clock::time_point sweep_due_;
  bool rewatch_ = false;
};

}  // namespace lukskeep::archive
