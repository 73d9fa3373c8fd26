#include "archive/catalogue.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/bytes.h"
#include "crypto/hash.h"

namespace lukskeep::archive {
namespace {

using storage::Statement;

// Raised when the tables change: a catalogue of another version is made anew.
constexpr int kSchemaVersion = 2;
constexpr std::string_view kSchema = R"sql(
  CREATE TABLE snapshots (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE, file TEXT NOT NULL, uuid TEXT NOT NULL, device_path TEXT NOT NULL,
    reason TEXT NOT NULL, command TEXT NOT NULL, content_id TEXT NOT NULL,
    taken_ns INTEGER NOT NULL, sequence_id INTEGER NOT NULL, version INTEGER NOT NULL,
    keyslots INTEGER NOT NULL, file_bytes INTEGER NOT NULL, key_set INTEGER NOT NULL,
    trust INTEGER NOT NULL, reference INTEGER NOT NULL DEFAULT 0,
    revoked INTEGER NOT NULL DEFAULT 0);
  CREATE INDEX by_volume ON snapshots (uuid);
  CREATE INDEX by_place ON snapshots (uuid, device_path, trust, taken_ns DESC);
  CREATE INDEX by_path ON snapshots (device_path, trust, taken_ns DESC);
  CREATE INDEX by_reference ON snapshots (uuid, device_path) WHERE reference = 1;
  CREATE TABLE keys (
    snapshot INTEGER NOT NULL REFERENCES snapshots (number) ON DELETE CASCADE,
    fingerprint TEXT NOT NULL,
    PRIMARY KEY (snapshot, fingerprint)) WITHOUT ROWID;
)sql";

constexpr std::string_view kColumns =
    "id, file, uuid, device_path, reason, command, content_id, taken_ns, sequence_id, version, "
    "keyslots, file_bytes, key_set, trust, reference, revoked";

Entry entry_of(const Statement& row) {
  return {.id = row.text(0),
          .file = row.text(1),
          .uuid = row.text(2),
          .device_path = row.text(3),
          .reason = row.text(4),
          .command = row.text(5),
          .content_id = row.text(6),
          .taken_ns = row.number(7),
          .sequence_id = static_cast<std::uint64_t>(row.number(8)),
          .file_bytes = static_cast<std::uint64_t>(row.number(11)),
          .key_set = row.number(12),
          .version = static_cast<unsigned>(row.number(9)),
          .keyslots = static_cast<unsigned>(row.number(10)),
          .trust = static_cast<Trust>(row.number(13)),
          .reference = row.number(14) != 0,
          .revoked = row.number(15) != 0};
}

std::vector<Entry> entries_of(Statement rows) {
  std::vector<Entry> entries;
  while (rows.step()) entries.push_back(entry_of(rows));
  return entries;
}

// Those of the same time stay as they are.
std::vector<Entry> newest_first(std::vector<Entry> entries) {
  std::vector<std::pair<std::int64_t, std::size_t>> order;
  order.reserve(entries.size());
  for (const Entry& entry : entries) order.emplace_back(entry.taken_ns, order.size());
  const auto newer = [](const auto& a, const auto& b) { return a.first > b.first; };
  if (std::ranges::is_sorted(order, newer)) return entries;  // as they were taken
  std::ranges::stable_sort(order, newer);
  std::vector<Entry> sorted;
  sorted.reserve(entries.size());
  for (const auto& [taken_ns, at] : order) sorted.push_back(std::move(entries[at]));
  return sorted;
}

std::optional<Entry> first_of(Statement rows) {
  if (!rows.step()) return std::nullopt;
  return entry_of(rows);
}

// Eight bytes of a hash over the sorted fingerprints.
std::int64_t key_set_of(const Manifest& manifest) {
  std::vector<std::string> prints;
  prints.reserve(manifest.keyslots.size());
  for (const SnapshotKey& key : manifest.keyslots) prints.push_back(key.fingerprint);
  std::ranges::sort(prints);
  prints.erase(std::ranges::unique(prints).begin(), prints.end());
  std::string all;
  for (const std::string& print : prints) all += print;
  return static_cast<std::int64_t>(
      load_be<std::uint64_t>(crypto::hash("sha256", as_byte_view(all)).data()));
}

constexpr std::int64_t number_of(Trust trust) { return static_cast<std::int64_t>(trust); }

}  // namespace

Catalogue::Catalogue(const std::string& path) : database_(path, "the catalogue of the archive") {
  database_.run("PRAGMA foreign_keys = ON");
}

bool Catalogue::usable() {
  Statement version = database_.prepare("PRAGMA user_version");
  return version.step() && version.number(0) == kSchemaVersion;
}

bool Catalogue::sound() {
  Statement check = database_.prepare("PRAGMA integrity_check(1)");
  return check.step() && check.text(0) == "ok";
}

void Catalogue::reset() {
  database_.run("DROP TABLE IF EXISTS keys; DROP TABLE IF EXISTS snapshots");
  database_.run(kSchema);
  database_.run(fmt::format("PRAGMA user_version = {}", kSchemaVersion));
}

void Catalogue::insert(const SnapshotFile& snapshot, const Stored& stored) {
  const Manifest& manifest = snapshot.manifest;
  Statement row = database_.prepare(
      "INSERT OR IGNORE INTO snapshots (id, file, uuid, device_path, reason, command, content_id, "
      "taken_ns, sequence_id, version, keyslots, file_bytes, key_set, trust) "
      "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?) RETURNING number");
  row.bind(snapshot.id).bind(stored.file).bind(manifest.uuid).bind(manifest.device.path);
  row.bind(manifest.reason).bind(manifest.command).bind(manifest.content_id);
  row.bind(manifest.taken_ns).bind(static_cast<std::int64_t>(manifest.sequence_id));
  row.bind(std::int64_t{manifest.version});
  row.bind(static_cast<std::int64_t>(manifest.keyslots.size()));
  row.bind(static_cast<std::int64_t>(stored.file_bytes)).bind(key_set_of(manifest));
  row.bind(number_of(stored.trust));
  if (!row.step()) return;  // there already
  const std::int64_t number = row.number(0);
  for (const SnapshotKey& key : manifest.keyslots) {
    Statement insert = database_.prepare("INSERT OR IGNORE INTO keys VALUES (?,?)");
    insert.bind(number).bind(key.fingerprint).step();
  }
}

void Catalogue::erase(std::string_view id) {
  database_.prepare("DELETE FROM snapshots WHERE id = ?").bind(id).step();
}

// Time alone would let an older state of a volume, seen again at its path (a clone on a removable
// disk), pass for what it has become; the sequence id alone would never let a header be put back on
// purpose. Nothing is counted from before the last restore by this program, nor across a
// conversion.
void Catalogue::find_references(const std::string& uuid, const std::string& device_path) {
  constexpr std::string_view kOwnHere = "uuid = ?1 AND device_path = ?2 AND trust = 0";
  Statement newest =
      database_.prepare(fmt::format("SELECT number, version FROM snapshots WHERE {} "
                                    "ORDER BY taken_ns DESC, number DESC LIMIT 1",
                                    kOwnHere));
  std::int64_t by_time = 0;
  std::int64_t by_sequence = 0;
  if (newest.bind(uuid).bind(device_path).step()) {
    by_time = newest.number(0);
    // A sequence id of 2^63 or more is stored as a negative number.
    Statement highest = database_.prepare(fmt::format(
        "SELECT number FROM snapshots WHERE {0} AND version = ?3 AND taken_ns >= coalesce(("
        "SELECT max(taken_ns) FROM snapshots WHERE {0} AND reason = 'after' AND "
        "command IN ('header restore', 'header repair')), taken_ns) "
        "ORDER BY sequence_id < 0 DESC, sequence_id DESC, taken_ns DESC, number DESC LIMIT 1",
        kOwnHere));
    highest.bind(uuid).bind(device_path).bind(newest.number(1)).step();
    by_sequence = highest.number(0);
  }
  database_
      .prepare(
          "UPDATE snapshots SET reference = 0 WHERE uuid = ?1 AND device_path = ?2 AND "
          "reference = 1 AND number NOT IN (?3, ?4)")
      .bind(uuid)
      .bind(device_path)
      .bind(by_time)
      .bind(by_sequence)
      .step();
  database_.prepare("UPDATE snapshots SET reference = 1 WHERE number IN (?1, ?2) AND reference = 0")
      .bind(by_time)
      .bind(by_sequence)
      .step();
}

// Where the path has references.
void Catalogue::mark_revoked(const std::string& uuid, const std::string& device_path) {
  database_
      .prepare(
          "UPDATE snapshots SET revoked = NOT revoked WHERE uuid = ?1 AND device_path = ?2 AND "
          "revoked != EXISTS (SELECT 1 FROM keys WHERE keys.snapshot = snapshots.number AND "
          "fingerprint NOT IN (SELECT k.fingerprint FROM snapshots r JOIN keys k "
          "ON k.snapshot = r.number WHERE r.uuid = ?1 AND r.device_path = ?2 AND r.reference = 1))")
      .bind(uuid)
      .bind(device_path)
      .step();
}

// Where it has none.
void Catalogue::mark_revoked_elsewhere(const std::string& uuid) {
  database_
      .prepare(
          "UPDATE snapshots SET revoked = NOT revoked WHERE uuid = ?1 AND trust != 0 AND "
          "device_path NOT IN (SELECT device_path FROM snapshots WHERE uuid = ?1 AND "
          "reference = 1) AND revoked != ("
          "EXISTS (SELECT 1 FROM snapshots WHERE uuid = ?1 AND reference = 1) AND "
          "EXISTS (SELECT 1 FROM keys WHERE keys.snapshot = snapshots.number AND "
          "fingerprint NOT IN (SELECT k.fingerprint FROM snapshots r JOIN keys k "
          "ON k.snapshot = r.number WHERE r.uuid = ?1 AND r.reference = 1)))")
      .bind(uuid)
      .step();
}

void Catalogue::settle(const std::string& uuid, const std::string& device_path) {
  find_references(uuid, device_path);
  Statement any = database_.prepare(
      "SELECT 1 FROM snapshots WHERE uuid = ?1 AND device_path = ?2 AND reference = 1");
  if (any.bind(uuid).bind(device_path).step()) mark_revoked(uuid, device_path);
  mark_revoked_elsewhere(uuid);
}

void Catalogue::settle_all() {
  std::vector<std::pair<std::string, std::string>> places;
  {
    Statement rows = database_.prepare("SELECT DISTINCT uuid, device_path FROM snapshots");
    while (rows.step()) places.emplace_back(rows.text(0), rows.text(1));
  }
  for (const auto& [uuid, device_path] : places) settle(uuid, device_path);
}

storage::Statement Catalogue::last_first(std::string_view uuid) {
  // Reading the table from end to end and sorting here takes half the time of going by an index.
  Statement rows =
      database_.prepare(fmt::format("SELECT {} FROM snapshots {} ORDER BY number DESC", kColumns,
                                    uuid.empty() ? "NOT INDEXED" : "WHERE uuid = ?"));
  if (!uuid.empty()) rows.bind(uuid);
  return rows;
}

std::vector<Entry> Catalogue::list(std::string_view uuid) {
  return newest_first(entries_of(last_first(uuid)));
}

void Catalogue::for_each(std::string_view uuid, const std::function<void(const Entry&)>& visit) {
  Statement rows = last_first(uuid);
  while (rows.step()) visit(entry_of(rows));
}

std::optional<Entry> Catalogue::by_id(std::string_view id) {
  Statement rows =
      database_.prepare(fmt::format("SELECT {} FROM snapshots WHERE id = ?", kColumns));
  rows.bind(id);
  return first_of(std::move(rows));
}

std::vector<Entry> Catalogue::starting_with(std::string_view id_prefix) {
  Statement rows = database_.prepare(
      fmt::format("SELECT {} FROM snapshots WHERE id >= ?1 AND id < ?1 || 'g' LIMIT 2", kColumns));
  rows.bind(id_prefix);
  return entries_of(std::move(rows));
}

std::optional<Entry> Catalogue::newest_at(std::string_view device_path, Trust trust) {
  Statement rows =
      database_.prepare(fmt::format("SELECT {} FROM snapshots WHERE device_path = ? AND trust = ? "
                                    "ORDER BY taken_ns DESC, number DESC LIMIT 1",
                                    kColumns));
  rows.bind(device_path).bind(number_of(trust));
  return first_of(std::move(rows));
}

std::optional<Entry> Catalogue::newest(std::string_view uuid, std::string_view device_path,
                                       Trust trust) {
  Statement rows = database_.prepare(
      fmt::format("SELECT {} FROM snapshots WHERE uuid = ? AND device_path = ? AND trust = ? "
                  "ORDER BY taken_ns DESC, number DESC LIMIT 1",
                  kColumns));
  rows.bind(uuid).bind(device_path).bind(number_of(trust));
  return first_of(std::move(rows));
}

}  // namespace lukskeep::archive
