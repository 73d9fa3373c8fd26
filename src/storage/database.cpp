#include "storage/database.h"

#include <chrono>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"

namespace lukskeep::storage {
namespace {

constexpr int kBusyMs = 10'000;
constexpr int kBusyStepMs = 20;

// SQLite asks again and again while another process holds the database: 0 gives up.
int on_busy(void* user, int attempt) {
  const auto* cancel = static_cast<const CancelToken*>(user);
  if (attempt >= kBusyMs / kBusyStepMs || (cancel != nullptr && cancel->cancelled())) return 0;
  std::this_thread::sleep_for(std::chrono::milliseconds(kBusyStepMs));
  return 1;
}

}  // namespace

void Database::fail(bool preparing) const {
  int result = handle_ == nullptr ? SQLITE_NOMEM : sqlite3_errcode(handle_.get());
  if (cancel_ != nullptr && (result == SQLITE_BUSY || result == SQLITE_LOCKED)) cancel_->check();
  if (preparing && result == SQLITE_ERROR) result = SQLITE_CORRUPT;
  Code code = Code::kIo;
  switch (result) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      code = Code::kDamaged;
      break;
    case SQLITE_FULL:
      code = Code::kNoSpace;
      break;
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
      code = Code::kPermissionDenied;
      break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      code = Code::kBusy;
      break;
    case SQLITE_NOMEM:
      code = Code::kOutOfMemory;
      break;
    default:
      break;
  }
  throw Error(code,
              fmt::format("{}: {}", what_,
                          handle_ == nullptr ? "out of memory" : sqlite3_errmsg(handle_.get())));
}

Statement::Statement(const Database& database, std::string_view sql) : database_(&database) {
  sqlite3_stmt* statement = nullptr;
  const int result = sqlite3_prepare_v2(database.handle_.get(), sql.data(),
                                        static_cast<int>(sql.size()), &statement, nullptr);
  statement_.reset(statement);
  if (result != SQLITE_OK) database.fail(true);
}

Statement& Statement::bind(std::string_view text) {
  if (sqlite3_bind_text64(statement_.get(), ++bound_, text.data(), text.size(), SQLITE_TRANSIENT,
                          SQLITE_UTF8) != SQLITE_OK) {
    database_->fail();
  }
  return *this;
}

Statement& Statement::bind(std::int64_t number) {
  if (sqlite3_bind_int64(statement_.get(), ++bound_, number) != SQLITE_OK) database_->fail();
  return *this;
}

Statement& Statement::bind(ByteView blob) {
  if (sqlite3_bind_blob64(statement_.get(), ++bound_, blob.data(), blob.size(), SQLITE_TRANSIENT) !=
      SQLITE_OK) {
    database_->fail();
  }
  return *this;
}

bool Statement::step() {
  const int result = sqlite3_step(statement_.get());
  if (result == SQLITE_ROW) return true;
  if (result == SQLITE_DONE) return false;
  database_->fail();
}

std::int64_t Statement::number(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

std::string Statement::text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_.get(), column));
  if (text == nullptr) return {};
  return {text, static_cast<std::size_t>(sqlite3_column_bytes(statement_.get(), column))};
}

Bytes Statement::blob(int column) const {
  const auto* blob = static_cast<const std::byte*>(sqlite3_column_blob(statement_.get(), column));
  if (blob == nullptr) return {};
  return {blob, blob + sqlite3_column_bytes(statement_.get(), column)};
}

Statement& Statement::reset() {
  sqlite3_reset(statement_.get());
  sqlite3_clear_bindings(statement_.get());
  bound_ = 0;
  return *this;
}

Database::Database(const std::string& path, std::string what, const CancelToken* cancel)
    : what_(std::move(what)), cancel_(cancel) {
  sqlite3* database = nullptr;
  const int result = sqlite3_open_v2(
      path.c_str(), &database,
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_NOMUTEX,
      nullptr);
  handle_.reset(database);
  if (result != SQLITE_OK) fail();
  // The token is only read.
  sqlite3_busy_handler(database, &on_busy, const_cast<CancelToken*>(cancel));
}

void Database::run(std::string_view sql) {
  const std::string text(sql);
  if (sqlite3_exec(handle_.get(), text.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) fail();
}

Transaction::~Transaction() {
  if (done_) return;
  try {
    database_.run("ROLLBACK");
  } catch (const Error&) {
    // Whoever failed has said so; SQLite rolls back by itself when the database is closed.
    done_ = false;
  }
}

void Transaction::commit() {
  database_.run("COMMIT");
  done_ = true;
}

}  // namespace lukskeep::storage
