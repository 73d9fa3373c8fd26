// SQLite with errors that are thrown and handles that are freed. One thread at a time.
//
// Every error names the database by what it was opened as. Throws Error: kDamaged if the file is no
// sound database, kIo, kPermissionDenied, kNoSpace, kOutOfMemory; kBusy if another process held it
// for longer than ten seconds, kInterrupted if the wait was cancelled.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <sqlite3.h>

#include <lukskeep/progress.h>

#include "base/bytes.h"

namespace lukskeep::storage {

class Database;

class Statement {
 public:
  Statement(const Database& database, std::string_view sql);

  Statement& bind(std::string_view text);
  Statement& bind(std::int64_t number);
  Statement& bind(ByteView blob);
  // True while there is a row.
  bool step();
  // Columns of the row, from 0.
  std::int64_t number(int column) const;
  std::string text(int column) const;
  Bytes blob(int column) const;
  // From the start, with nothing bound: for the next row of a loop.
  Statement& reset();

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const noexcept { sqlite3_finalize(statement); }
  };
  const Database* database_;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  int bound_ = 0;
};

class Database {
 public:
  // Opens or creates `path`. `what` names it in messages, e.g. "the catalogue of the archive".
  // `cancel` may be null; else it must outlive this.
  Database(const std::string& path, std::string what, const CancelToken* cancel = nullptr);

  void run(std::string_view sql);  // statements without results
  Statement prepare(std::string_view sql) const { return {*this, sql}; }
  // Rows that the last statement changed.
  std::int64_t changes() const noexcept { return sqlite3_changes64(handle_.get()); }

 private:
  friend class Statement;
  struct Close {
    void operator()(sqlite3* database) const noexcept { sqlite3_close_v2(database); }
  };
  // `preparing`: what the program asks is always the same, so where SQLite cannot make sense of it
  // tables are not what they should be.
  [[noreturn]] void fail(bool preparing = false) const;

  std::string what_;
  const CancelToken* cancel_;
  std::unique_ptr<sqlite3, Close> handle_;
};

// Everything between this and commit() happens or does not.
class Transaction {
 public:
  explicit Transaction(Database& database) : database_(database) {
    database_.run("BEGIN IMMEDIATE");
  }
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit();

 private:
  Database& database_;
  bool done_ = false;
};

}  // namespace lukskeep::storage
