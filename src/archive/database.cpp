#include "archive/database.h"

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"

namespace lukskeep::archive {
namespace {

constexpr int kBusyMs = 10'000;

// `preparing`: what the program asks is always the same, so where SQLite cannot make sense of it
// tables are not what they should be.
[[noreturn]] void fail(sqlite3* database, bool preparing = false) {
  int result = database == nullptr ? SQLITE_NOMEM : sqlite3_errcode(database);
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
  throw Error(code, fmt::format("the catalogue of the archive: {}",
                                database == nullptr ? "out of memory" : sqlite3_errmsg(database)));
}

}  // namespace

Statement::Statement(sqlite3* database, std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int result =
      sqlite3_prepare_v2(database, sql.data(), static_cast<int>(sql.size()), &statement, nullptr);
  statement_.reset(statement);
  if (result != SQLITE_OK) fail(database, true);
}

Statement& Statement::bind(std::string_view text) {
  if (sqlite3_bind_text64(statement_.get(), ++bound_, text.data(), text.size(), SQLITE_TRANSIENT,
                          SQLITE_UTF8) != SQLITE_OK) {
    fail(sqlite3_db_handle(statement_.get()));
  }
  return *this;
}

Statement& Statement::bind(std::int64_t number) {
  if (sqlite3_bind_int64(statement_.get(), ++bound_, number) != SQLITE_OK) {
    fail(sqlite3_db_handle(statement_.get()));
  }
  return *this;
}

bool Statement::step() {
  const int result = sqlite3_step(statement_.get());
  if (result == SQLITE_ROW) return true;
  if (result == SQLITE_DONE) return false;
  fail(sqlite3_db_handle(statement_.get()));
}

std::int64_t Statement::number(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

std::string Statement::text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_.get(), column));
  if (text == nullptr) return {};
  return {text, static_cast<std::size_t>(sqlite3_column_bytes(statement_.get(), column))};
}

Database::Database(const std::string& path) {
  sqlite3* database = nullptr;
  const int result = sqlite3_open_v2(
      path.c_str(), &database,
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_NOMUTEX,
      nullptr);
  database_.reset(database);
  if (result != SQLITE_OK) fail(database);
  sqlite3_busy_timeout(database, kBusyMs);
}

void Database::run(std::string_view sql) {
  const std::string text(sql);
  if (sqlite3_exec(database_.get(), text.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
    fail(database_.get());
  }
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

}  // namespace lukskeep::archive
