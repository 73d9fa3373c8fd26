#include "server/tang_usage.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include <sys/stat.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "storage/database.h"

namespace lukskeep::server {
namespace {

constexpr std::chrono::seconds kWriteEvery{1};
// Who comes when so many are counted already.
constexpr std::string_view kOthers = "others";

void create_tables(storage::Database& database, std::int64_t now_s) {
  storage::Transaction transaction(database);
  database.run(
      "CREATE TABLE IF NOT EXISTS record (since_s INTEGER NOT NULL);"
      "CREATE TABLE IF NOT EXISTS uses (key TEXT NOT NULL, client TEXT NOT NULL,"
      " count INTEGER NOT NULL, first_s INTEGER NOT NULL, last_s INTEGER NOT NULL,"
      " PRIMARY KEY (key, client)) WITHOUT ROWID");
  database.prepare("INSERT INTO record SELECT ? WHERE NOT EXISTS (SELECT * FROM record)")
      .bind(now_s)
      .step();
  transaction.commit();
}

std::int64_t now_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// SQLite follows no symbolic link when it opens; those of the folder are the user's business.
std::string real_path(const std::string& path) {
  const std::filesystem::path file(path);
  std::error_code error;
  const auto folder = std::filesystem::canonical(
      file.has_parent_path() ? file.parent_path() : std::filesystem::path("."), error);
  return error ? path : (folder / file.filename()).string();
}

std::string what(const std::string& path) {
  return fmt::format("the usage record '{}'", printable(path, 256));
}

}  // namespace

std::optional<TangUsage> read_tang_usage(const std::string& path) {
  struct stat status{};
  if (stat(path.c_str(), &status) != 0) return std::nullopt;
  storage::Database database(real_path(path), what(path));
  TangUsage usage;
  auto since = database.prepare("SELECT since_s FROM record");
  if (since.step()) usage.since_s = since.number(0);
  auto rows = database.prepare(
      "SELECT key, client, count, first_s, last_s FROM uses ORDER BY key, last_s DESC, client");
  while (rows.step()) {
    usage.uses.push_back({.key = rows.text(0),
                          .client = rows.text(1),
                          .count = static_cast<std::uint64_t>(rows.number(2)),
                          .first_s = rows.number(3),
                          .last_s = rows.number(4)});
  }
  return usage;
}

std::vector<DeleteRisk> judge_delete(const std::optional<TangUsage>& usage,
                                     std::string_view thumbprint, std::int64_t quarantine_s,
                                     std::int64_t now_s) {
  if (!usage) {
    return {{"unrecorded", "there is no record of who used the key"}};
  }
  std::vector<DeleteRisk> risks;
  if (quarantine_s > 0 && usage->since_s > now_s - quarantine_s) {
    risks.push_back(
        {"unrecorded", "the record of who used the key does not reach back far enough"});
  }
  std::map<std::string_view, std::int64_t> latest;
  for (const TangUse& use : usage->uses) {
    std::int64_t& last = latest[use.client];
    last = std::max(last, use.last_s);
  }
  std::size_t recent = 0;
  std::size_t needing = 0;
  std::string example;
  for (const TangUse& use : usage->uses) {
    if (use.key != thumbprint) continue;
    if (use.last_s > now_s - quarantine_s) ++recent;
    if (use.last_s < latest[use.client]) continue;
    if (needing++ == 0) example = use.client;
  }
  if (recent > 0) {
    risks.push_back(
        {"used", fmt::format("{} client(s) used it in the time of quarantine", recent)});
  }
  if (needing > 0) {
    risks.push_back({"needed", fmt::format("{} client(s) used no other key since, such as {}",
                                           needing, example)});
  }
  return risks;
}

struct TangUsageRecorder::File {
  std::string path;
  storage::Database database;
};

std::unique_ptr<TangUsageRecorder::File> TangUsageRecorder::open_record(const std::string& path) {
  auto file = std::make_unique<File>(File{path, storage::Database(real_path(path), what(path))});
  chmod(path.c_str(), 0640);
  // Readers do not wait for writers, nor writers for the disk.
  file->database.run("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL");
  create_tables(file->database, now_seconds());
  return file;
}

TangUsageRecorder::TangUsageRecorder(const std::string& path)
    : file_(open_record(path)), thread_([this] { work(); }) {}

TangUsageRecorder::~TangUsageRecorder() {
  {
    const std::lock_guard lock(lock_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void TangUsageRecorder::note(std::string_view key, std::string_view client, std::int64_t now_s) {
  const std::lock_guard lock(lock_);
  const auto name = std::pair<std::string, std::string>(key, client);
  auto found = counts_.find(name);
  if (found == counts_.end()) {
    const bool full = counts_.size() >= limits::kTangClientsMax;
    found = counts_.try_emplace(full ? std::pair(name.first, std::string(kOthers)) : name).first;
    if (found->second.count == 0) found->second.first_s = now_s;
  }
  ++found->second.count;
  found->second.last_s = now_s;
}

std::string TangUsageRecorder::problem() const {
  const std::lock_guard lock(lock_);
  return problem_;
}

void TangUsageRecorder::work() {
  while (true) {
    bool last = false;
    {
      std::unique_lock lock(lock_);
      last = wake_.wait_for(lock, kWriteEvery, [this] { return stopping_; });
    }
    write();
    if (last) return;
  }
}

void TangUsageRecorder::write() {
  Counts counts;
  {
    const std::lock_guard lock(lock_);
    counts.swap(counts_);
  }
  if (counts.empty()) return;
  std::string problem;
  try {
    storage::Transaction transaction(file_->database);
    for (const auto& [name, count] : counts) {
      file_->database
          .prepare(
              "INSERT INTO uses VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
              " count = count + excluded.count, last_s = max(last_s, excluded.last_s)")
          .bind(name.first)
          .bind(name.second)
          .bind(static_cast<std::int64_t>(count.count))
          .bind(count.first_s)
          .bind(count.last_s)
          .step();
    }
    transaction.commit();
    counts.clear();
  } catch (const Error& error) {
    problem = error.message();
  }
  const std::lock_guard lock(lock_);
  problem_ = problem;
  for (const auto& [name, count] : counts) {  // what could not be written
    Count& present = counts_[name];
    present.count += count.count;
    present.first_s = count.first_s;
    present.last_s = std::max(present.last_s, count.last_s);
  }
}

}  // namespace lukskeep::server
