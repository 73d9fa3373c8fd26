// Who used which key of a Tang server, and when last: counted in memory, written to SQLite by and
// by.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "server/tang_key_folder.h"

namespace lukskeep::server {

struct TangUse {
  std::string key;     // thumbprint, SHA-256
  std::string client;  // an address, "certificate SHA256", or "others": not told apart
  std::uint64_t count = 0;
  std::int64_t first_s = 0;  // seconds since 1970
  std::int64_t last_s = 0;
};

// The file as others read it.
struct TangUsage {
  std::int64_t since_s = 0;   // when the record was begun
  std::vector<TangUse> uses;  // by key, the latest first
};

// Absent if there is no file. Throws Error: kDamaged, kPermissionDenied, kIo.
std::optional<TangUsage> read_tang_usage(const std::string& path);

// What speaks against deleting a key; empty: nothing does.
struct DeleteRisk {
  std::string name;  // "used", "needed", "unrecorded"
  std::string message;
};
// "used": within `quarantine_s`. "needed": by a client that used no other key for the same purpose
// since, among `keys`; by clients that were not told apart, always. "unrecorded": the record does
// not reach back as far as `quarantine_s`.
std::vector<DeleteRisk> judge_delete(const std::optional<TangUsage>& usage,
                                     const std::vector<TangKeyFile>& keys, const TangKeyFile& key,
                                     std::int64_t quarantine_s, std::int64_t now_s);

// Writes the record of a server that runs. Thread-safe.
class TangUsageRecorder {
 public:
  // Makes the file if it is not there. Once it tells `uses_max` apart, clients that are new to a
  // key count as "others". Throws Error as read_tang_usage.
  explicit TangUsageRecorder(const std::string& path, std::size_t uses_max = limits::kTangUsesMax);
  // Writes what is left.
  ~TangUsageRecorder();
  TangUsageRecorder(const TangUsageRecorder&) = delete;
  TangUsageRecorder& operator=(const TangUsageRecorder&) = delete;

  void note(std::string_view key, std::string_view client, std::int64_t now_s);

  // Why the last attempt to write failed; empty: it did not. What could not be written stays to be.
  std::string problem() const;

 private:
  struct Count {
    std::uint64_t count = 0;
    std::int64_t first_s = 0;
    std::int64_t last_s = 0;
  };
  using Counts = std::map<std::pair<std::string, std::string>, Count, std::less<>>;
  struct File;
  static std::unique_ptr<File> open_record(const std::string& path);

  Count& count_of(const std::string& key, const std::string& client);
  void work();
  void write();
  void write_all(const Counts& counts);

  std::unique_ptr<File> file_;
  std::size_t uses_max_;
  mutable std::mutex lock_;
  std::condition_variable wake_;
  Counts counts_;
  std::string problem_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace lukskeep::server
