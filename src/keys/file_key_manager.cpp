#include "keys/file_key_manager.h"

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/json.h"
#include "base/limits.h"
#include "base/uuid.h"
#include "crypto/hash.h"
#include "crypto/random.h"
#include "keys/record_seal.h"
#include "storage/database.h"
#include "storage/request.h"
#include "storage/unique_fd.h"

namespace lukskeep::keys {
namespace {

namespace fs = std::filesystem;
using storage::Database;
using storage::Statement;
using storage::Transaction;

constexpr std::int64_t kFormat = 1;
constexpr std::int64_t kApplicationId = 0x4c4b4b53;  // "LKKS"
constexpr std::size_t kSaltBytes = 32;

constexpr std::string_view kSchema = R"(
CREATE TABLE wrapping (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  generation INTEGER NOT NULL,
  source TEXT NOT NULL,
  kdf TEXT NOT NULL,
  iterations INTEGER NOT NULL,
  memory_kib INTEGER NOT NULL,
  parallel INTEGER NOT NULL,
  salt BLOB NOT NULL,
  master BLOB NOT NULL
) STRICT;
CREATE TABLE secrets (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  about TEXT NOT NULL,
  metadata TEXT NOT NULL,
  payload BLOB NOT NULL
) STRICT;
CREATE INDEX secrets_by_name ON secrets (name);
CREATE TABLE consumers (
  secret INTEGER NOT NULL REFERENCES secrets (number) ON DELETE CASCADE,
  service TEXT NOT NULL,
  resource_type TEXT NOT NULL,
  resource_id TEXT NOT NULL,
  PRIMARY KEY (secret, service, resource_type, resource_id)
) STRICT, WITHOUT ROWID;
)";

std::string in_quotes(const std::string& path) { return fmt::format("'{}'", printable(path, 256)); }

std::int64_t now_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// ---- keys
// ----------------------------------------------------------------------------------------

struct Wrapping {
  std::int64_t generation = 0;
  std::string source;
  std::optional<crypto::KdfCost> cost;
  Bytes salt;
  Bytes master;  // sealed

  std::string kdf() const { return cost ? std::string(crypto::kdf_name(cost->type)) : ""; }
  // What the sealed master key is bound to.
  std::string bound() const {
    const crypto::KdfCost none;
    const crypto::KdfCost& costs = cost ? *cost : none;
    return Json{"lukskeep keystore", kFormat,          generation,     source,      kdf(),
                costs.iterations,    costs.memory_kib, costs.parallel, to_hex(salt)}
        .dump();
  }
};

SecretBytes wrapping_key(const Wrapping& wrapping, ByteView bytes, const CancelToken* cancel) {
  if (wrapping.cost) {
    SecretBytes key(kSealKeyBytes);
    crypto::derive(*wrapping.cost, bytes, wrapping.salt, key.span(), 1, cancel);
    return key;
  }
  // HKDF-SHA256 (RFC 5869), one block.
  const SecretBytes prk = crypto::hmac("sha256", wrapping.salt, bytes);
  return crypto::hmac("sha256", prk.span(), as_byte_view("lukskeep keystore wrapping\x01"));
}

SecretBytes record_key(const SecretBytes& master, std::string_view id) {
  return crypto::hmac("sha256", master.span(),
                      as_byte_view(fmt::format("lukskeep keystore record {}", id)));
}

Wrapping new_wrapping(const WrappingKey& key, std::int64_t generation, const SecretBytes& master,
                      const CancelToken* cancel) {
  if (!key.cost && key.bytes.size() < limits::kWrappingKeyBytesMin) {
    throw Error(Code::kInvalidArgument,
                fmt::format("the wrapping key has {} bytes, fewer than {}", key.bytes.size(),
                            limits::kWrappingKeyBytesMin),
                "if it is a passphrase add --passphrase; else make one: head -c 32 /dev/urandom");
  }
  Wrapping wrapping{.generation = generation,
                    .source = key.source,
                    .cost = key.cost,
                    .salt = crypto::random_bytes(kSaltBytes),
                    .master = {}};
  const SecretBytes wrap = wrapping_key(wrapping, key.bytes.span(), cancel);
  wrapping.master = seal_record(wrap.span(), master.span(), as_byte_view(wrapping.bound()));
  return wrapping;
}

void write_wrapping(const Database& database, const Wrapping& wrapping) {
  const crypto::KdfCost none;
  const crypto::KdfCost& cost = wrapping.cost ? *wrapping.cost : none;
  database.prepare("INSERT OR REPLACE INTO wrapping VALUES (1,?,?,?,?,?,?,?,?)")
      .bind(wrapping.generation)
      .bind(wrapping.source)
      .bind(wrapping.kdf())
      .bind(std::int64_t{cost.iterations})
      .bind(std::int64_t{cost.memory_kib})
      .bind(std::int64_t{cost.parallel})
      .bind(ByteView(wrapping.salt))
      .bind(ByteView(wrapping.master))
      .step();
}

std::uint32_t cost_number(const Statement& row, int column) {
  const std::int64_t number = row.number(column);
  return number < 0 || number > UINT32_MAX ? 0 : static_cast<std::uint32_t>(number);
}

std::optional<Wrapping> read_wrapping(const Database& database) {
  Statement row = database.prepare(
      "SELECT generation, source, kdf, iterations, memory_kib, parallel, salt, master "
      "FROM wrapping");
  if (!row.step()) return std::nullopt;
  Wrapping wrapping{.generation = row.number(0),
                    .source = row.text(1),
                    .cost = std::nullopt,
                    .salt = row.blob(6),
                    .master = row.blob(7)};
  const std::string kdf = row.text(2);
  if (kdf.empty()) return wrapping;
  if (kdf != crypto::kdf_name(crypto::KdfType::kArgon2id)) return std::nullopt;
  wrapping.cost = crypto::KdfCost{.type = crypto::KdfType::kArgon2id,
                                  .hash = {},
                                  .iterations = cost_number(row, 3),
                                  .memory_kib = cost_number(row, 4),
                                  .parallel = cost_number(row, 5)};
  return wrapping;
}

// ---- records
// -------------------------------------------------------------------------------------

Json optional_number(const auto& number) { return number ? Json(*number) : Json(nullptr); }

std::string about_text(const SecretInfo& info) {
  return Json{{"name", info.name},
              {"type", secret_type_name(info.type)},
              {"algorithm", info.algorithm},
              {"bit_length", optional_number(info.bit_length)},
              {"mode", info.mode},
              {"content_type", info.content_type},
              {"expires", optional_number(info.expires_s)},
              {"created", info.created_s}}
      .dump();
}

std::string metadata_text(const Metadata& metadata) { return Json(metadata).dump(); }

// A row as it is stored.
struct Row {
  std::int64_t number = 0;
  std::string id;
  std::string name;
  std::string about;
  std::string metadata;
  Bytes payload;

  std::string bound() const { return Json{"lukskeep keystore record", id, about, metadata}.dump(); }
};

constexpr std::string_view kColumns = "number, id, name, about, metadata, payload";

Row row_of(const Statement& statement) {
  return {.number = statement.number(0),
          .id = statement.text(1),
          .name = statement.text(2),
          .about = statement.text(3),
          .metadata = statement.text(4),
          .payload = statement.blob(5)};
}

SecretInfo info_of(const Row& row) {
  const Json about = parse_json(row.about, fmt::format("secret '{}'", printable(row.id)));
  SecretInfo info{.id = row.id, .name = row.name};
  info.type = parse_secret_type(about.at("type").get<std::string>());
  info.algorithm = about.at("algorithm");
  if (!about.at("bit_length").is_null()) info.bit_length = about.at("bit_length");
  info.mode = about.at("mode");
  info.content_type = about.at("content_type");
  if (!about.at("expires").is_null()) info.expires_s = about.at("expires");
  info.created_s = about.at("created");
  return info;
}

// ---- the file
// ------------------------------------------------------------------------------------

void flush_file(const std::string& path, int flags) {
  const storage::UniqueFd fd(open(path.c_str(), flags | O_CLOEXEC));
  if (!fd.valid() || fsync(fd.get()) != 0) {
    storage::throw_errno(errno, fmt::format("cannot flush {}", in_quotes(path)));
  }
}

// A name that is gone at the end, with what SQLite puts beside it.
struct TemporaryFile {
  std::string path;
  explicit TemporaryFile(std::string where) : path(std::move(where)) {
    const storage::UniqueFd fd(
        open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd.valid()) storage::throw_errno(errno, fmt::format("cannot create {}", in_quotes(path)));
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    for (const char* suffix : {"", "-wal", "-shm", "-journal"}) {
      std::error_code ignored;
      fs::remove(path + suffix, ignored);
    }
  }
};

void check_file(const std::string& path) {
  struct stat status{};
  if (lstat(path.c_str(), &status) != 0) {
    const int error = errno;
    if (error == ENOENT) {
      throw Error(Code::kNotFound, fmt::format("there is no keystore {}", in_quotes(path)),
                  "make one: lukskeep keystore init");
    }
    storage::throw_errno(error, fmt::format("cannot open the keystore {}", in_quotes(path)));
  }
  if (!S_ISREG(status.st_mode)) {
    throw Error(Code::kUnsupported, fmt::format("{} is no regular file", in_quotes(path)));
  }
  // Whoever writes to it could put a secret that they know where one that they do not is expected.
  if (status.st_uid != geteuid()) {
    throw Error(Code::kUnsafe, fmt::format("the keystore {} belongs to another user (id {})",
                                           in_quotes(path), status.st_uid));
  }
  if ((status.st_mode & 077) != 0) {
    throw Error(Code::kUnsafe,
                fmt::format("others than its owner may open the keystore {}", in_quotes(path)),
                fmt::format("chmod 600 {}", printable(path, 256)));
  }
}

}  // namespace

struct FileKeyManager::State {
  std::string path;
  std::string what;
  const CancelToken* cancel;
  Database database;
  SecretBytes master;
  std::int64_t generation = 0;

  State(const std::string& where, const CancelToken* token)
      : path(where),
        what(fmt::format("the keystore {}", in_quotes(where))),
        cancel(token),
        database(where, what, token) {}

  [[noreturn]] void fail(Code code, std::string_view problem, std::string_view hint = {}) const {
    throw Error(code, fmt::format("{} {}", what, problem), std::string(hint));
  }

  void check_format() const {
    Statement id = database.prepare("PRAGMA application_id");
    if (!id.step() || id.number(0) != kApplicationId) {
      throw Error(Code::kDamaged, fmt::format("{} is no keystore", in_quotes(path)));
    }
    Statement version = database.prepare("PRAGMA user_version");
    if (!version.step() || version.number(0) != kFormat) {
      fail(Code::kUnsupported, "has a format that this program does not know");
    }
  }

  void open_master(const ReadWrappingKey& read_key) {
    const auto wrapping = read_wrapping(database);
    if (!wrapping) fail(Code::kDamaged, "does not say how its key is wrapped");
    if (wrapping->cost) {
      crypto::check_limit(*wrapping->cost, kSealKeyBytes, {}, what);
    }
    const SecretBytes bytes =
        read_key({.source = wrapping->source, .passphrase = wrapping->cost.has_value()});
    const SecretBytes key = wrapping_key(*wrapping, bytes.span(), cancel);
    auto opened = open_record(key.span(), wrapping->master, as_byte_view(wrapping->bound()));
    if (!opened) fail(Code::kWrongPassphrase, "does not open with this key");
    master = std::move(*opened);
    generation = wrapping->generation;
  }

  // Within a transaction, or before a single statement.
  void check_generation() const {
    Statement row = database.prepare("SELECT generation FROM wrapping");
    if (!row.step() || row.number(0) != generation) {
      fail(Code::kConflict, "got another key meanwhile", "start again");
    }
  }

  std::optional<Row> find_row(std::string_view id) const {
    Statement rows = database.prepare(fmt::format("SELECT {} FROM secrets WHERE id = ?", kColumns));
    rows.bind(id);
    if (!rows.step()) return std::nullopt;
    return row_of(rows);
  }

  Row need_row(const std::string& id) const {
    auto row = find_row(id);
    if (!row) {
      throw Error(Code::kNotFound, fmt::format("{} has no secret '{}'", what, printable(id, 128)));
    }
    return std::move(*row);
  }

  SecretBytes open_payload(const Row& row) const {
    auto payload =
        open_record(record_key(master, row.id).span(), row.payload, as_byte_view(row.bound()));
    if (!payload) {
      check_generation();
      fail(Code::kDamaged,
           fmt::format("has a record '{}' that was changed by something else", printable(row.id)));
    }
    return std::move(*payload);
  }

  Secret open(const Row& row) const {
    Secret secret{.info = info_of(row), .payload = open_payload(row)};
    if (parse_json(row.about, what).at("name") != row.name) {
      fail(Code::kDamaged, fmt::format("has another name for '{}'", printable(row.id)));
    }
    return secret;
  }

  SecretInfo open_info(const Row& row) const { return open(row).info; }

  void seal(Row& row, const SecretBytes& payload) const {
    row.payload =
        seal_record(record_key(master, row.id).span(), payload.span(), as_byte_view(row.bound()));
  }

  void update(const Row& row) const {
    database.prepare("UPDATE secrets SET metadata = ?, payload = ? WHERE number = ?")
        .bind(row.metadata)
        .bind(ByteView(row.payload))
        .bind(row.number)
        .step();
  }

  std::vector<Consumer> consumers_of(std::int64_t number) const {
    Statement rows = database.prepare(
        "SELECT service, resource_type, resource_id FROM consumers WHERE secret = ? "
        "ORDER BY service, resource_type, resource_id");
    rows.bind(number);
    std::vector<Consumer> consumers;
    while (rows.step()) {
      consumers.push_back(
          {.service = rows.text(0), .resource_type = rows.text(1), .resource_id = rows.text(2)});
    }
    return consumers;
  }
};

void FileKeyManager::create(const std::string& path, const WrappingKey& key,
                            const CancelToken* cancel) {
  const fs::path place(path);
  if (fs::exists(fs::symlink_status(place))) {
    throw Error(Code::kExists, fmt::format("{} is there already", in_quotes(path)));
  }
  const fs::path folder = place.has_parent_path() ? place.parent_path() : fs::path(".");
  const SecretBytes master = crypto::random_secret(kSealKeyBytes);
  const Wrapping wrapping = new_wrapping(key, 1, master, cancel);
  const TemporaryFile file((folder / fmt::format(".{}.part", random_uuid())).string());
  {
    Database database(file.path, fmt::format("the keystore {}", in_quotes(path)), cancel);
    database.run("PRAGMA journal_mode = WAL");
    database.run("PRAGMA synchronous = FULL");
    Transaction transaction(database);
    database.run(kSchema);
    database.run(fmt::format("PRAGMA application_id = {}", kApplicationId));
    database.run(fmt::format("PRAGMA user_version = {}", kFormat));
    write_wrapping(database, wrapping);
    transaction.commit();
  }
  flush_file(file.path, O_RDONLY);
  if (link(file.path.c_str(), path.c_str()) != 0) {
    storage::throw_errno(errno, fmt::format("cannot create {}", in_quotes(path)));
  }
  flush_file(folder.string(), O_RDONLY | O_DIRECTORY);
}

FileKeyManager::FileKeyManager(const std::string& path, const ReadWrappingKey& read_key,
                               const CancelToken* cancel) {
  check_file(path);
  state_ = std::make_unique<State>(path, cancel);
  state_->check_format();
  // Durable at each commit; what is deleted is overwritten.
  state_->database.run(
      "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON");
  state_->open_master(read_key);
}

FileKeyManager::~FileKeyManager() = default;

std::string FileKeyManager::description() const { return state_->what; }

std::string FileKeyManager::store(const SecretInfo& info, ByteView payload,
                                  const Metadata& metadata) {
  check_new_secret(info, payload, metadata);
  SecretInfo stored = info;
  stored.created_s = now_s();
  Row row{.id = random_uuid(),
          .name = stored.name,
          .about = about_text(stored),
          .metadata = metadata_text(metadata),
          .payload = {}};
  row.payload =
      seal_record(record_key(state_->master, row.id).span(), payload, as_byte_view(row.bound()));
  Transaction transaction(state_->database);
  state_->check_generation();
  state_->database
      .prepare("INSERT INTO secrets (id, name, about, metadata, payload) VALUES (?,?,?,?,?)")
      .bind(row.id)
      .bind(row.name)
      .bind(row.about)
      .bind(row.metadata)
      .bind(ByteView(row.payload))
      .step();
  transaction.commit();
  return row.id;
}

std::string FileKeyManager::order(const Order& order) {
  if (order.bit_length == 0 || order.bit_length % 8 != 0 ||
      order.bit_length > limits::kOrderBitsMax) {
    throw Error(Code::kInvalidArgument, fmt::format("a key cannot have {} bits: at most {}, in "
                                                    "whole bytes",
                                                    order.bit_length, limits::kOrderBitsMax));
  }
  SecretInfo info{.id = {}, .name = order.name, .type = SecretType::kSymmetric};
  info.algorithm = order.algorithm;
  info.bit_length = order.bit_length;
  info.mode = order.mode;
  info.expires_s = order.expires_s;
  return store(info, crypto::random_secret(order.bit_length / 8).span(), {});
}

std::optional<SecretInfo> FileKeyManager::find(const std::string& id) {
  const auto row = state_->find_row(id);
  if (!row) return std::nullopt;
  return state_->open_info(*row);
}

Secret FileKeyManager::get(const std::string& id) { return state_->open(state_->need_row(id)); }

std::vector<SecretInfo> FileKeyManager::list(const std::string& name) {
  Statement rows = state_->database.prepare(fmt::format(
      "SELECT {} FROM secrets {} ORDER BY number", kColumns, name.empty() ? "" : "WHERE name = ?"));
  if (!name.empty()) rows.bind(name);
  std::vector<SecretInfo> infos;
  while (infos.size() < limits::kSecretsMax && rows.step()) {
    if (state_->cancel != nullptr) state_->cancel->check();
    infos.push_back(state_->open_info(row_of(rows)));
  }
  return infos;
}

Metadata FileKeyManager::metadata(const std::string& id) {
  const Row row = state_->need_row(id);
  static_cast<void>(state_->open_payload(row));
  return parse_json(row.metadata, state_->what).get<Metadata>();
}

void FileKeyManager::set_metadata(const std::string& id, const Metadata& metadata) {
  check_metadata(metadata);
  Transaction transaction(state_->database);
  state_->check_generation();
  Row row = state_->need_row(id);
  const SecretBytes payload = state_->open_payload(row);
  row.metadata = metadata_text(metadata);
  state_->seal(row, payload);
  state_->update(row);
  transaction.commit();
}

std::vector<Consumer> FileKeyManager::consumers(const std::string& id) {
  return state_->consumers_of(state_->need_row(id).number);
}

void FileKeyManager::add_consumer(const std::string& id, const Consumer& consumer) {
  Transaction transaction(state_->database);
  const Row row = state_->need_row(id);
  if (state_->consumers_of(row.number).size() >= limits::kSecretConsumersMax) {
    state_->fail(Code::kInvalidArgument, "allows no more consumers of one secret");
  }
  state_->database.prepare("INSERT OR IGNORE INTO consumers VALUES (?,?,?,?)")
      .bind(row.number)
      .bind(consumer.service)
      .bind(consumer.resource_type)
      .bind(consumer.resource_id)
      .step();
  transaction.commit();
}

void FileKeyManager::remove_consumer(const std::string& id, const Consumer& consumer) {
  Transaction transaction(state_->database);
  const Row row = state_->need_row(id);
  state_->database
      .prepare(
          "DELETE FROM consumers WHERE secret = ? AND service = ? AND resource_type = ? AND "
          "resource_id = ?")
      .bind(row.number)
      .bind(consumer.service)
      .bind(consumer.resource_type)
      .bind(consumer.resource_id)
      .step();
  transaction.commit();
}

void FileKeyManager::remove(const std::string& id, bool used_too) {
  // In one transaction: nobody becomes a consumer between the look and the deletion.
  Transaction transaction(state_->database);
  const Row row = state_->need_row(id);
  if (!used_too) refuse_used(id, state_->consumers_of(row.number));
  state_->database.prepare("DELETE FROM secrets WHERE number = ?").bind(row.number).step();
  transaction.commit();
}

std::size_t FileKeyManager::rewrap(const WrappingKey& key) {
  State& state = *state_;
  SecretBytes master = crypto::random_secret(kSealKeyBytes);
  const Wrapping wrapping = new_wrapping(key, state.generation + 1, master, state.cancel);
  std::size_t count = 0;
  {
    Transaction transaction(state.database);
    state.check_generation();
    Statement rows = state.database.prepare(
        fmt::format("SELECT {} FROM secrets WHERE number > ? ORDER BY number LIMIT 1", kColumns));
    std::int64_t last = 0;
    while (rows.reset().bind(last).step()) {
      if (state.cancel != nullptr) state.cancel->check();
      Row row = row_of(rows);
      const SecretBytes payload = state.open_payload(row);
      row.payload =
          seal_record(record_key(master, row.id).span(), payload.span(), as_byte_view(row.bound()));
      state.update(row);
      last = row.number;
      ++count;
    }
    rows.reset();
    write_wrapping(state.database, wrapping);
    transaction.commit();
  }
  state.master = std::move(master);
  state.generation = wrapping.generation;
  // What is sealed with the old key goes from the log too; if it cannot now, a later one does it,
  // and who is told of a failure would throw the new key away.
  try {
    state.database.run("PRAGMA wal_checkpoint(TRUNCATE)");
  } catch (const Error& error) {
    if (error.code() == Code::kOutOfMemory) throw;
  }
  return count;
}

}  // namespace lukskeep::keys
