#include "archive/watch.h"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include <poll.h>
#include <pthread.h>

#include <fmt/format.h>

#include "archive/device_identity.h"
#include "archive/scan.h"
#include "archive/snapshot.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "storage/file_device.h"

namespace lukskeep::archive {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;

// Programs write a header in several steps: one snapshot of the last is enough.
constexpr milliseconds kSettle{100};
// How long a header may be in the middle of a change before it is taken as it is.
constexpr milliseconds kRetry{200};
constexpr unsigned kTriesMax = 25;
// Between two tries of an archive that takes nothing.
constexpr seconds kBackOffFirst{1};
constexpr seconds kBackOffMax{300};
// What no event told of is found by looking through the folders anew.
constexpr seconds kSweepInterval{3600};
constexpr seconds kSweepDelay{1};
// CancelToken has nothing to wait for.
constexpr seconds kCancelLook{1};

// One copy is written after the other.
bool is_mid_change(const luks::HeaderFile& file, const std::string& path) {
  return !file.report().problems.empty() || storage::is_metadata_locked(path);
}

enum class PathKind : std::uint8_t { kGone, kFolder, kFile, kDevice };

PathKind kind_of(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (error || !fs::exists(status)) return PathKind::kGone;
  if (fs::is_directory(status)) return PathKind::kFolder;
  return fs::is_block_file(status) ? PathKind::kDevice : PathKind::kFile;
}

void check_there(const std::string& path) {
  if (kind_of(path) != PathKind::kGone) return;
  throw Error(Code::kNotFound,
              fmt::format("cannot watch '{}': it is not there", printable(path, 256)));
}

}  // namespace

SnapshotBudget::Verdict SnapshotBudget::ask(const std::string& path, Clock::time_point now) {
  if (now >= renewed_at()) return {.is_granted = true, .news = {}};
  const auto minutes = std::chrono::ceil<std::chrono::minutes>(bounds_.period);
  const auto refuse = [](bool& is_told, std::string why) {
    return Verdict{.is_granted = false, .news = std::exchange(is_told, true) ? "" : std::move(why)};
  };
  const auto count = counts_.find(path);
  if (count != counts_.end() && count->second.snapshots >= bounds_.snapshots_max) {
    return refuse(count->second.is_told,
                  fmt::format("its header changed {} times in {} minutes: the next snapshot waits "
                              "until these are over",
                              bounds_.snapshots_max, minutes / std::chrono::minutes(1)));
  }
  if (is_total_limited_ && total_ >= bounds_.snapshots_total_max) {
    return refuse(is_total_told_,
                  fmt::format("{} headers changed in {} minutes: the next snapshots, of this one "
                              "and of others, wait until these are over",
                              bounds_.snapshots_total_max, minutes / std::chrono::minutes(1)));
  }
  return {.is_granted = true, .news = {}};
}

void SnapshotBudget::spend(const std::string& path, Clock::time_point now) {
  if (now >= renewed_at()) {
    period_start_ = now;
    counts_.clear();
    total_ = 0;
    is_total_told_ = false;
  }
  if (is_total_limited_) {
    ++total_;
  } else if (counts_.size() >= bounds_.files_max && !counts_.contains(path)) {
    return;
  }
  ++counts_[path].snapshots;
}

Watcher::Watcher(WatchRequest request, std::string store_directory, Tell tell)
    : request_(std::move(request)),
      store_directory_(std::move(store_directory)),
      tell_(std::move(tell)),
      budget_(request_.bounds) {
  for (std::string& path : request_.paths) {
    check_there(path);
    path = absolute_path(path);
  }
  watch_folders();
}

void Watcher::watch_folders() {
  folders_ = storage::FolderWatch();
  for (const std::string& path : request_.paths) {
    switch (kind_of(path)) {
      case PathKind::kFolder:
        folders_.add_tree(path);
        break;
      case PathKind::kFile:
      case PathKind::kGone:
        folders_.add_file(path);
        break;
      case PathKind::kDevice:
        break;
    }
  }
}

// ---- when to look
// --------------------------------------------------------------------------------

void Watcher::run_once(const CancelToken& cancel) {
  sweep(cancel);
  while (!pending_.empty() && !store_error_) {
    cancel.check();
    wait(cancel, next_work());
    look_at_due(cancel);
  }
  if (store_error_) throw Error(*store_error_);
}

void Watcher::run(const CancelToken& cancel) {
  try {
    sweep(cancel);
    budget_.limit_total();
    while (!cancel.cancelled()) {
      const Clock::time_point now = Clock::now();
      if (now >= sweep_due_) {
        sweep(cancel);
      } else if (now >= poll_due_) {
        poll(cancel);
      }
      look_at_due(cancel);
      wait(cancel, next_work());
      take_in(folders_.read(), cancel);
    }
  } catch (const Error& error) {
    if (error.code() != Code::kInterrupted) throw;
  }
}

Watcher::Clock::time_point Watcher::next_work() const {
  Clock::time_point next = std::min(poll_due_, sweep_due_);
  for (const auto& [path, pending] : pending_) {
    next = std::min(next, std::max(pending.due, store_due_));
  }
  return next;
}

// A signal that comes between the look at `cancel` and the wait ends the wait: it is held back
// until then.
void Watcher::wait(const CancelToken& cancel, Clock::time_point until) const {
  sigset_t ending;
  sigset_t before;
  sigemptyset(&ending);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) sigaddset(&ending, number);
  pthread_sigmask(SIG_BLOCK, &ending, &before);
  const auto left = std::clamp<std::chrono::nanoseconds>(until - Clock::now(),
                                                         std::chrono::nanoseconds(0), kCancelLook);
  const timespec time{.tv_sec = left.count() / 1'000'000'000,
                      .tv_nsec = left.count() % 1'000'000'000};
  pollfd events{.fd = folders_.fd(), .events = POLLIN, .revents = 0};
  if (!cancel.cancelled()) ppoll(&events, 1, &time, &before);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

// Looks for headers everywhere, also where no event told of one.
void Watcher::sweep(const CancelToken& cancel) {
  if (rewatch_) watch_folders();
  rewatch_ = false;
  // Before: what finds no place asks for the next one sooner.
  sweep_due_ = Clock::now() + kSweepInterval;
  const auto found = [&](const luks::HeaderFile&, const std::string& path) {
    enqueue_found(path, milliseconds(0), cancel);
  };
  for (const std::string& path : request_.paths) {
    try {
      scan(path, found, &cancel);
    } catch (const Error& error) {
      if (error.code() == Code::kInterrupted) throw;
      trouble(path, error);
    }
  }
  poll(cancel);
}

// Looks at the headers that are known, and for new block devices.
void Watcher::poll(const CancelToken& cancel) {
  for (const auto& [path, known] : known_) enqueue(path, milliseconds(0));
  if (request_.paths.empty()) {
    const ScanReport report = scan_block_devices(
        [&](const luks::HeaderFile&, const std::string& path) {
          enqueue_found(path, milliseconds(0), cancel);
        },
        &cancel);
    // A snapshot changes nothing, and md's superblock may be left from before the volume.
    for (const std::string& path : report.members) enqueue_found(path, milliseconds(0), cancel);
  }
  for (const std::string& path : request_.paths) {
    if (kind_of(path) == PathKind::kDevice) enqueue(path, milliseconds(0));
  }
  look_at_due(cancel);
  poll_due_ = Clock::now() + request_.interval;
  // Where events do not come, or the folder itself is gone, looking is all there is.
  if (folders_.unwatched() > 0) {
    rewatch_ = true;
    sweep_due_ = poll_due_;
  }
}

void Watcher::take_in(const storage::FolderChanges& changes, const CancelToken& cancel) {
  if (changes.lost) {
    rewatch_ = true;
    sweep_soon();
  }
  for (const std::string& path : changes.files) enqueue(path, kSettle);
  for (const std::string& folder : changes.folders) {
    try {
      scan(
          folder,
          [&](const luks::HeaderFile&, const std::string& path) {
            enqueue_found(path, kSettle, cancel);
          },
          &cancel);
    } catch (const Error& error) {
      if (error.code() == Code::kInterrupted) throw;
      // Gone already: then there is nothing to look at.
    }
  }
}

// Not at once: who overflows the queue of events once does it again. And not before there is room
// for what it finds.
void Watcher::sweep_soon() {
  Clock::time_point due = Clock::now() + kSweepDelay;
  if (is_full()) due = std::max(due, full_until_);
  sweep_due_ = std::min(sweep_due_, due);
}

void Watcher::enqueue(const std::string& path, milliseconds delay) {
  if (is_full() && !known_.contains(path)) {
    sweep_soon();
    return;
  }
  // What is to be looked at already keeps its time: a writer without end does not put it off.
  const Clock::time_point now = Clock::now();
  pending_.try_emplace(path, Pending{.since = now, .due = now + delay});
}

// Looks at what waits if there is no place for more: else those who fill the queue by what comes
// early in the order of a scan keep what comes later from ever being looked at.
void Watcher::enqueue_found(const std::string& path, milliseconds delay,
                            const CancelToken& cancel) {
  if (is_full()) make_room(cancel);
  enqueue(path, delay);
}

void Watcher::make_room(const CancelToken& cancel) {
  // Else each file found would cost a walk through all that waits.
  if (Clock::now() < full_until_) return;
  look_at_due(cancel);
  if (!is_full()) return;
  full_until_ = Clock::time_point::max();
  for (const auto& [path, pending] : pending_) {
    full_until_ = std::min(full_until_, std::max(pending.due, store_due_));
  }
}

void Watcher::look_at_due(const CancelToken& cancel) {
  const Clock::time_point now = Clock::now();
  std::vector<std::pair<std::string, Pending>> due;
  for (const auto& [path, pending] : pending_) {
    if (std::max(pending.due, store_due_) <= now) due.emplace_back(path, pending);
  }
  // Not by name: whoever makes many of them would always be before the others.
  std::ranges::stable_sort(due, {}, [](const auto& entry) { return entry.second.since; });
  for (const auto& [path, pending] : due) {
    cancel.check();
    look_again(path, pending);
  }
  // Between changes nothing keeps the archive's disk from being unmounted.
  store_.reset();
}

void Watcher::look_again(const std::string& path, Pending pending) {
  // With an archive that takes nothing the others wait too.
  if (Clock::now() < store_due_) return;
  switch (look(path, pending.tries < kTriesMax)) {
    case Seen::kDone:
      pending_.erase(path);
      return;
    case Seen::kChanging:
      pending.due = Clock::now() + kRetry;
      ++pending.tries;
      break;
    case Seen::kNotTaken:
      pending.due = store_due_;
      break;
    case Seen::kTooOften:
      pending.due = budget_.renewed_at();
      pending.tries = 0;
      break;
  }
  pending_[path] = pending;
}

// ---- looking
// -------------------------------------------------------------------------------------

// Whoever may write to a watched folder does not choose what is opened elsewhere with the rights of
// the watcher: links below such a folder are not followed, to files or on the way to them. What was
// named itself is.
bool Watcher::is_behind_link(const std::string& path) const {
  bool is_linked = false;
  for (const std::string& root : request_.paths) {
    if (path == root) return false;
    const fs::path below = fs::path(path).lexically_relative(root);
    if (below.empty() || *below.begin() == "..") continue;
    fs::path at = root;
    const bool has_link = std::ranges::any_of(below, [&](const fs::path& name) {
      std::error_code ignored;
      return fs::is_symlink(fs::symlink_status(at /= name, ignored));
    });
    if (!has_link) return false;
    is_linked = true;
  }
  return is_linked;
}

// `patient`: a header that is in the middle of a change may be looked at later.
Watcher::Seen Watcher::look(const std::string& path, bool patient) {
  try {
    // Pipes and folders may stand where a file was.
    if (kind_of(path) == PathKind::kFolder) return Seen::kDone;
    if (is_behind_link(path)) {
      throw Error(Code::kNotFound, fmt::format("'{}' is a symbolic link", printable(path, 256)));
    }
    const auto file = luks::HeaderFile::open(storage::open_file(path, {.lock = false}));
    const Seen seen = look_at_header(path, file, patient);
    if (seen == Seen::kDone) troubles_.erase(path);
    return seen;
  } catch (const Error& error) {
    return no_header(path, error, patient);
  }
}

Watcher::Seen Watcher::no_header(const std::string& path, const Error& error, bool patient) {
  const auto known = known_.find(path);
  if (error.code() == Code::kNotFound) {
    if (known != known_.end()) known_.erase(known);
    troubles_.erase(path);
    return Seen::kDone;
  }
  if (known == known_.end()) {
    // Most files are no volumes, and some things are no files.
    if (error.code() == Code::kNotLuks || error.code() == Code::kUnsupported) return Seen::kDone;
    if (patient) return Seen::kChanging;
    trouble(path, error);
    return Seen::kDone;
  }
  if (known->second.is_gone) return Seen::kDone;
  if (patient) return Seen::kChanging;
  known->second.is_gone = true;
  tell_({.kind = WatchNews::Kind::kGone,
         .path = path,
         .uuid = known->second.uuid,
         .id = known->second.id,
         .text = error.message()});
  return Seen::kDone;
}

Watcher::Seen Watcher::look_at_header(const std::string& path, const luks::HeaderFile& file,
                                      bool patient) {
  const std::string content = content_id(file);
  const auto known = known_.find(path);
  if (known != known_.end() && known->second.uuid == file.header().uuid &&
      known->second.content_id == content) {
    known->second.is_gone = false;
    return Seen::kDone;
  }
  if (patient && is_mid_change(file, path)) return Seen::kChanging;
  const Seen seen = archive_it(path, file, content);
  if (seen == Seen::kDone && store_error_) {
    store_error_.reset();
    back_off_ = seconds(0);
    tell_({.kind = WatchNews::Kind::kRecovered, .path = {}, .uuid = {}, .id = {}, .text = {}});
  }
  return seen;
}

Watcher::Seen Watcher::archive_it(const std::string& path, const luks::HeaderFile& file,
                                  const std::string& content) {
  const std::string& uuid = file.header().uuid;
  std::optional<Entry> present;
  if (!use_store([&] { present = store_->newest(uuid, absolute_path(path)); })) {
    return Seen::kNotTaken;
  }
  const bool is_new = !present || present->content_id != content;
  std::string id = is_new ? std::string() : present->id;
  if (is_new) {
    if (is_too_often(path)) return Seen::kTooOften;
    Capture taken = capture(file, path);
    taken.manifest.reason = "watch";
    // It may have been changed while it was read.
    if (taken.manifest.content_id != content || content_id(file) != content) {
      return Seen::kChanging;
    }
    const auto add = [&] {
      id = store_->add(std::move(taken), {.path = path, .reason = "watch", .command = {}}).id;
    };
    if (!use_store(add)) return Seen::kNotTaken;
    budget_.spend(path, Clock::now());
  }
  remember(path, file, content, id);
  if (is_new) {
    tell_({.kind = WatchNews::Kind::kArchived, .path = path, .uuid = uuid, .id = id, .text = {}});
  }
  return Seen::kDone;
}

void Watcher::remember(const std::string& path, const luks::HeaderFile& file,
                       const std::string& content, const std::string& id) {
  if (known_.size() >= request_.bounds.files_max && !known_.contains(path)) return;
  Known& known = known_[path];
  known.uuid = file.header().uuid;
  known.content_id = content;
  known.id = id;
  known.is_gone = false;
}

bool Watcher::is_too_often(const std::string& path) {
  const SnapshotBudget::Verdict verdict = budget_.ask(path, Clock::now());
  if (!verdict.news.empty()) trouble(path, Error(Code::kBusy, verdict.news));
  return !verdict.is_granted;
}

// False if the archive did not take it: then it is left alone for a while.
template <typename Work>
bool Watcher::use_store(const Work& work) {
  try {
    if (!store_) store_.emplace(store_directory_);
    work();
  } catch (const Error& error) {
    archive_failed(error);
    return false;
  }
  return true;
}

void Watcher::archive_failed(const Error& error) {
  const bool is_news = !store_error_ || store_error_->message() != error.message();
  store_error_ = error;
  // What is open may be on a disk that is no more.
  store_.reset();
  back_off_ = std::clamp(back_off_ * 2, kBackOffFirst, kBackOffMax);
  store_due_ = Clock::now() + back_off_;
  if (is_news) {
    tell_({.kind = WatchNews::Kind::kTrouble,
           .path = {},
           .uuid = {},
           .id = {},
           .text = error.message()});
  }
}

void Watcher::trouble(const std::string& path, const Error& error) {
  if (troubles_.size() >= request_.bounds.files_max) troubles_.clear();
  std::string& told = troubles_[path];
  if (told == error.message()) return;
  told = error.message();
  tell_({.kind = WatchNews::Kind::kTrouble, .path = path, .uuid = {}, .id = {}, .text = told});
}

}  // namespace lukskeep::archive
