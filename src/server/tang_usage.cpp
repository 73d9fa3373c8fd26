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
// Who comes when so many are counted already: any number of clients.
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

bool same_purpose(const nbde::EcKey& a, const nbde::EcKey& b) {
  return is_exchange_key(a) == is_exchange_key(b) && is_signing_key(a) == is_signing_key(b);
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
                                     const std::vector<TangKeyFile>& keys, const TangKeyFile& key,
                                     std::int64_t quarantine_s, std::int64_t now_s) {
  if (!usage) {
    return {{"unrecorded", "there is no record of who used the key"}};
  }
  std::vector<DeleteRisk> risks;
  if (quarantine_s > 0 && usage->since_s > now_s - quarantine_s) {
    risks.push_back(
        {"unrecorded", "the record of who used the key does not reach back far enough"});
  }
  // Who fetched an advertisement of another key may still need this one to recover.
  std::set<std::string_view> alike;
  for (const TangKeyFile& other : keys) {
    if (same_purpose(other.key, key.key)) alike.insert(other.thumbprint);
  }
  std::map<std::string_view, std::int64_t> latest;
  for (const TangUse& use : usage->uses) {
    if (!alike.contains(use.key)) continue;
    std::int64_t& last = latest[use.client];
    last = std::max(last, use.last_s);
  }
  std::size_t recent = 0;
  std::size_t needing = 0;
  std::string example;
  for (const TangUse& use : usage->uses) {
    if (use.key != key.thumbprint) continue;
    if (use.last_s > now_s - quarantine_s) ++recent;
    if (use.client != kOthers && use.last_s < latest[use.client]) continue;
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

TangUsageRecorder::TangUsageRecorder(const std::string& path, std::size_t uses_max)
    : file_(open_record(path)), uses_max_(uses_max), thread_([this] { work(); }) {}

TangUsageRecorder::~TangUsageRecorder() {
  {
    const std::lock_guard lock(lock_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

// Of what is to be written; the caller has the lock.
TangUsageRecorder::Count& TangUsageRecorder::count_of(const std::string& key,
                                                      const std::string& client) {
  const auto found = counts_.find(std::pair(key, client));
  if (found != counts_.end()) return found->second;
  const bool full = counts_.size() >= limits::kTangClientsMax;
  return counts_[std::pair(key, full ? std::string(kOthers) : client)];
}

void TangUsageRecorder::note(std::string_view key, std::string_view client, std::int64_t now_s) {
  const std::lock_guard lock(lock_);
  Count& count = count_of(std::string(key), std::string(client));
  if (count.count++ == 0) count.first_s = now_s;
  count.last_s = now_s;
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
    write_all(counts);
    counts.clear();
  } catch (const Error& error) {
    problem = error.message();
  }
  const std::lock_guard lock(lock_);
  problem_ = problem;
  for (const auto& [name, count] : counts) {  // what could not be written
    Count& present = count_of(name.first, name.second);
    present.first_s = present.count == 0 ? count.first_s : std::min(present.first_s, count.first_s);
    present.count += count.count;
    present.last_s = std::max(present.last_s, count.last_s);
  }
}

void TangUsageRecorder::write_all(const Counts& counts) {
  storage::Database& database = file_->database;
  storage::Transaction transaction(database);
  std::size_t uses = 0;
  {
    auto rows = database.prepare("SELECT count(*) FROM uses");
    if (rows.step()) uses = static_cast<std::size_t>(rows.number(0));
  }
  for (const auto& [name, count] : counts) {
    auto known = database.prepare("SELECT 1 FROM uses WHERE key = ? AND client = ?");
    const bool is_new = !known.bind(name.first).bind(name.second).step();
    const bool full = is_new && uses >= uses_max_;
    if (is_new) ++uses;
    database
        .prepare(
            "INSERT INTO uses VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " count = count + excluded.count, last_s = max(last_s, excluded.last_s)")
        .bind(name.first)
        .bind(full ? std::string(kOthers) : name.second)
        .bind(static_cast<std::int64_t>(count.count))
        .bind(count.first_s)
        .bind(count.last_s)
        .step();
  }
  transaction.commit();
}

}  // namespace lukskeep::server
