// archive init, add, list, show, diff, export, import, verify, prune, status, drill.
#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "archive/compact.h"
#include "archive/device_identity.h"
#include "archive/keeper.h"
#include "archive/manifest_text.h"
#include "archive/prune.h"
#include "archive/store.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "cli/archive_args.h"
#include "cli/command.h"
#include "cli/copy_args.h"
#include "cli/key_manager_args.h"
#include "cli/mirrors.h"
#include "cli/named_device.h"
#include "cli/target.h"
#include "cli/units.h"
#include "cli/volume_access.h"
#include "luks/crypt_device.h"
#include "luks/payload_probe.h"
#include "storage/memory_device.h"

namespace lukskeep::cli {
namespace {

using archive::Entry;
using archive::Trust;

constexpr std::size_t kShortId = 12;

std::string short_id(const std::string& id) { return id.substr(0, kShortId); }

// "2026-03-01T12:00:00Z".
std::string time_text(std::int64_t taken_ns) {
  using std::chrono::floor;
  const std::chrono::sys_time<std::chrono::nanoseconds> time{std::chrono::nanoseconds(taken_ns)};
  const auto day = floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(floor<std::chrono::seconds>(time - day));
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                     clock.hours().count(), clock.minutes().count(), clock.seconds().count());
}

OrderedJson to_json(const Entry& entry) {
  return {{"id", entry.id},
          {"uuid", entry.uuid},
          {"device", entry.device_path},
          {"taken", time_text(entry.taken_ns)},
          {"taken_ns", entry.taken_ns},
          {"reason", entry.reason},
          {"command", entry.command},
          {"version", entry.version},
          {"sequence_id", entry.sequence_id},
          {"keyslots", entry.keyslots},
          {"revoked", entry.revoked},
          {"imported", entry.trust != Trust::kOwn},
          {"proven", entry.trust != Trust::kUnproven},
          {"file", entry.file}};
}

std::string_view trust_note(Trust trust) {
  switch (trust) {
    case Trust::kOwn:
      return "";
    case Trust::kImported:
      return "  imported";
    case Trust::kUnproven:
      return "  imported, not proven";
  }
  return "";
}

std::string to_line(const Entry& entry) {
  return fmt::format(
      "{}  {}  {}  LUKS{}  {:>2} key{}  {:<6}  {}{}{}{}\n", short_id(entry.id),
      time_text(entry.taken_ns), printable(entry.uuid), entry.version, entry.keyslots,
      entry.keyslots == 1 ? " " : "s", printable(entry.reason), printable(entry.device_path, 256),
      entry.command.empty() ? "" : fmt::format("  ({})", printable(entry.command)),
      trust_note(entry.trust), entry.revoked ? "  holds a key that was removed since" : "");
}

class ArchiveInit final : public Command {
 public:
  void declare(Options& options) override {
    store_.declare(options);
    options.add({.name = "--recipient",
                 .value = "KEYS",
                 .help = "seal to these public keys, age1… with commas between, or those of "
                         "identities in a key manager, manager:ID (default: to a key made here)"},
                recipients_);
  }

  void run(const Session& session) override {
    const std::string directory = store_.chosen();
    if (archive::Store::exists(directory)) {
      throw Error(Code::kExists,
                  fmt::format("'{}' is an archive already", printable(directory, 256)));
    }
    OrderedJson json = {{"store", directory}};
    std::string text = fmt::format("{} the archive '{}'", session.dry_run ? "would make" : "made",
                                   printable(directory, 256));
    if (recipients_.empty()) {
      std::optional<std::string> made_with;  // which is what the report says
      if (!session.dry_run) {
        archive::open_or_make(directory, default_identity, made_with);
      }
      json["identity"] = default_identity();
      text += fmt::format(", which '{}' opens: keep a copy of that key somewhere else",
                          printable(default_identity(), 256));
    } else {
      const auto keys = parse_recipients(session);
      if (!session.dry_run) archive::Store::create(directory, keys);
      json["recipients"] = keys.size();
    }
    report(session, std::move(json), text);
  }

 private:
  std::vector<archive::AgeRecipient> parse_recipients(const Session& session) const {
    std::string lines;
    std::string_view rest = recipients_;
    while (!rest.empty()) {
      const std::string_view one = rest.substr(0, rest.find(','));
      rest.remove_prefix(std::min(rest.size(), one.size() + 1));
      lines += one.starts_with("manager:") ? recipients_in(session, one) : std::string(one);
      lines += '\n';
    }
    return archive::parse_age_recipients(lines, "--recipient");
  }

  // The public keys of the private ones in a secret.
  static std::string recipients_in(const Session& session, std::string_view source) {
    const SecretBytes text = read_bytes_of(session, keys::parse_key_source(source));
    std::string lines;
    for (const archive::AgeIdentity& identity :
         archive::parse_age_identities(text.span(), printable(source, 256))) {
      lines += archive::to_string(archive::recipient_of(identity)) + '\n';
    }
    return lines;
  }

  StoreArgs store_;
  std::string recipients_;
};

class ArchiveAdd final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    store_.declare(options);
    options.flag({.name = "--stdout", .help = "write the snapshot to standard output too"},
                 stdout_);
    options.flag({.name = "--compact",
                  .help = "with --stdout: write zeroes for the room that no keyslot uses"},
                 compact_);
  }

  void run(const Session& session) override {
    if (compact_ && !stdout_) {
      throw Error(Code::kUsage, "--compact says how --stdout writes", "add --stdout");
    }
    if (stdout_) check_stdout_is_free(session);
    const luks::HeaderFile file = open_header(volume_);
    if (session.dry_run) {
      return report(
          session, {{"volume", volume_.volume}},
          fmt::format("would archive the header of '{}'", printable(volume_.volume, 256)));
    }
    archive::Store store = open_or_make_archive(session, store_.chosen());
    const archive::Added added =
        store.add(file, {.path = volume_.header_path(), .reason = "manual", .command = ""});
    settle_mirrors(session, store);
    if (stdout_) {
      const Bytes bytes =
          compact_ ? seal_compact(store, file) : store.file_of(store.find(added.id));
      return print(as_string_view(bytes));
    }
    report(session, {{"volume", volume_.volume}, {"id", added.id}, {"new", added.is_new}},
           added.is_new ? fmt::format("archived the header of '{}' as {}",
                                      printable(volume_.volume, 256), short_id(added.id))
                        : fmt::format("the archive has the header of '{}' as it is: {}",
                                      printable(volume_.volume, 256), short_id(added.id)));
  }

 private:
  Bytes seal_compact(const archive::Store& store, const luks::HeaderFile& file) const {
    archive::Capture taken = archive::capture_compact(file, volume_.header_path());
    taken.manifest.reason = "manual";
    return archive::seal_snapshot(taken, store.recipients());
  }

  VolumeArgs volume_;
  StoreArgs store_;
  bool stdout_ = false;
  bool compact_ = false;
};

class ArchiveList final : public Command {
 public:
  void declare(Options& options) override {
    store_.declare(options);
    options.add({.name = "--uuid", .value = "UUID", .help = "snapshots of this volume only"},
                uuid_);
  }

  void run(const Session& session) override {
    archive::Store store = store_.open();
    if (session.json) {
      OrderedJson list = OrderedJson::array();
      for (const Entry& entry : store.list(uuid_)) list.push_back(to_json(entry));
      return print_json({{"store", store.directory()}, {"snapshots", std::move(list)}});
    }
    print(lines_of(store));
  }

 private:
  // There may be hundreds of thousands: only their lines are kept.
  std::string lines_of(archive::Store& store) const {
    struct Line {
      std::int64_t taken_ns;
      std::size_t offset;
    };
    std::string text;
    std::vector<Line> lines;
    const auto start = [&] {
      text.clear();
      lines.clear();
    };
    store.for_each(uuid_, start, [&](const Entry& entry) {
      lines.push_back({.taken_ns = entry.taken_ns, .offset = text.size()});
      text += to_line(entry);
    });
    if (lines.empty()) return "no snapshots\n";
    const auto newer = [](const Line& a, const Line& b) { return a.taken_ns > b.taken_ns; };
    // As they were taken, nearly always.
    if (std::ranges::is_sorted(lines, newer)) return text;
    std::ranges::stable_sort(lines, newer);
    std::string sorted;
    sorted.reserve(text.size());
    for (const Line& line : lines) {
      const std::size_t end = text.find('\n', line.offset) + 1;
      sorted += std::string_view(text).substr(line.offset, end - line.offset);
    }
    return sorted;
  }

  StoreArgs store_;
  std::string uuid_;
};

// A snapshot's ID as a positional.
void declare_id(Options& options, std::string_view name, std::string& id) {
  options.positional({.name = name, .help = "the snapshot: the first digits of its ID"}, id);
}

class ArchiveShow final : public Command {
 public:
  void declare(Options& options) override {
    declare_id(options, "ID", id_);
    store_.declare(options);
  }

  void run(const Session& session) override {
    archive::Store store = store_.open();
    const Entry entry = store.find(id_);
    const archive::Manifest manifest = store.manifest(entry);
    OrderedJson json = to_json(entry);
    json["manifest"] = OrderedJson::parse(archive::encode_manifest(manifest));
    show(session, json, to_text(entry, manifest));
  }

 private:
  static std::string to_text(const Entry& entry, const archive::Manifest& manifest) {
    std::string text = fmt::format(
        "snapshot {}\n\n  taken     {} ({}{}) on {}\n  device    {}, {}\n  UUID      {}\n"
        "  header    LUKS{}, {}, sequence id {}\n  payload   {} from byte {}\n  SHA-256   {}\n",
        entry.id, time_text(entry.taken_ns), printable(manifest.reason),
        manifest.command.empty() ? "" : ": " + printable(manifest.command),
        printable(manifest.host), printable(manifest.device.path, 256),
        human_size(manifest.device.size_bytes), printable(manifest.uuid), manifest.version,
        human_size(manifest.header_bytes), manifest.sequence_id, printable(manifest.cipher),
        manifest.payload_offset_bytes, manifest.sha256);
    for (const auto& key : manifest.keyslots) {
      text += fmt::format("  keyslot   {:<2} {}, key {}\n", key.number, printable(key.type),
                          key.fingerprint.substr(0, kShortId));
    }
    for (const auto& token : manifest.tokens) {
      text += fmt::format("  token     {:<2} {}\n", token.number, printable(token.type));
    }
    for (const std::string& problem : manifest.problems) {
      text += fmt::format("  damaged   {}\n", printable(problem, 512));
    }
    if (entry.trust == Trust::kImported) text += "  It was imported.\n";
    if (entry.trust == Trust::kUnproven) {
      text += "  It was imported, and nothing has proven what it says of itself.\n";
    }
    if (entry.revoked) text += "  It holds a key that was removed since.\n";
    return text;
  }

  StoreArgs store_;
  std::string id_;
};

class ArchiveDiff final : public Command {
 public:
  void declare(Options& options) override {
    declare_id(options, "A", first_);
    declare_id(options, "B", second_);
    store_.declare(options);
  }

  void run(const Session& session) override {
    archive::Store store = store_.open();
    const archive::Manifest a = store.manifest(store.find(first_));
    const archive::Manifest b = store.manifest(store.find(second_));
    OrderedJson json = {{"fields", fields(a, b)},
                        {"keyslots", keys(a.keyslots, b.keyslots)},
                        {"tokens", keys(a.tokens, b.tokens)}};
    json["same_bytes"] = a.sha256 == b.sha256;
    show(session, json, to_text(json));
  }

 private:
  static OrderedJson fields(const archive::Manifest& a, const archive::Manifest& b) {
    const OrderedJson left = OrderedJson::parse(archive::encode_manifest(a));
    const OrderedJson right = OrderedJson::parse(archive::encode_manifest(b));
    OrderedJson changed = OrderedJson::object();
    const std::set<std::string> apart = {"keyslots", "tokens", "sha256",  "content_id",
                                         "taken_ns", "reason", "command", "host"};
    for (const auto& [name, value] : left.items()) {
      if (!apart.contains(name) && value != right[name]) changed[name] = {value, right[name]};
    }
    return changed;
  }

  // What came, went, or moved to another number, by fingerprint.
  static OrderedJson keys(const std::vector<archive::SnapshotKey>& a,
                          const std::vector<archive::SnapshotKey>& b) {
    std::map<std::string, std::pair<OrderedJson, OrderedJson>> numbers;
    std::map<std::string, std::string> types;
    for (const auto& key : a) numbers[key.fingerprint].first = key.number;
    for (const auto& key : b) numbers[key.fingerprint].second = key.number;
    for (const auto& key : a) types[key.fingerprint] = key.type;
    for (const auto& key : b) types[key.fingerprint] = key.type;
    OrderedJson list = OrderedJson::array();
    for (const auto& [fingerprint, pair] : numbers) {
      if (pair.first == pair.second) continue;
      list.push_back({{"fingerprint", fingerprint},
                      {"type", types[fingerprint]},
                      {"from", pair.first},
                      {"to", pair.second}});
    }
    return list;
  }

  static std::string to_text(const OrderedJson& json) {
    std::string text;
    for (const auto& [name, values] : json["fields"].items()) {
      text += fmt::format("{}: {} -> {}\n", name, values[0].dump(-1, ' ', true),
                          values[1].dump(-1, ' ', true));
    }
    for (const char* noun : {"keyslots", "tokens"}) {
      for (const OrderedJson& change : json[noun]) {
        const std::string one = std::string(noun).substr(0, std::string_view(noun).size() - 1);
        const std::string type = printable(change["type"].get<std::string>());
        if (change["from"].is_null()) {
          text += fmt::format("{} {} ({}) was added\n", one, change["to"].dump(), type);
        } else if (change["to"].is_null()) {
          text += fmt::format("{} {} ({}) is gone\n", one, change["from"].dump(), type);
        } else {
          text += fmt::format("{} {} ({}) is now {}\n", one, change["from"].dump(), type,
                              change["to"].dump());
        }
      }
    }
    if (text.empty())
      text = json["same_bytes"] == true ? "no difference\n" : "only unused room differs\n";
    return text;
  }

  StoreArgs store_;
  std::string first_;
  std::string second_;
};

class ArchiveExport final : public Command {
 public:
  void declare(Options& options) override {
    declare_id(options, "ID", id_);
    options.positional(
        {.name = "FILE", .help = "the header as header restore takes it, or - for standard output"},
        path_);
    store_.declare(options);
    identity_.declare(options);
  }

  void run(const Session& session) override {
    PathKind settled = PathKind::kAbsent;
    if (is_pipe(path_)) {
      check_stdout_is_free(session);
    } else {
      settled = confirm_overwrite(session, path_);
    }
    archive::Store store = store_.open();
    const Entry entry = store.find(id_);
    const Bytes header = store.open(entry, identity_.read(session));
    if (is_pipe(path_)) return print(as_string_view(header));
    if (!session.dry_run) {
      Target target(path_, settled, header.size());
      target.device()->write(0, header);
      target.commit();
    }
    report(session, {{"id", entry.id}, {"file", path_}, {"size", header.size()}},
           fmt::format("{} the header of snapshot {} to '{}'",
                       session.dry_run ? "would write" : "wrote", short_id(entry.id),
                       printable(path_, 256)));
  }

 private:
  StoreArgs store_;
  IdentityArgs identity_;
  std::string id_;
  std::string path_;
};

class ArchiveImport final : public Command {
 public:
  void declare(Options& options) override {
    options.positional(
        {.name = "FILE", .help = "a snapshot, or a header backup of LuksKeep or cryptsetup"},
        path_);
    store_.declare(options);
    identity_.declare(options);
  }

  void run(const Session& session) override {
    const std::shared_ptr<Device> device = open_device(path_, storage::Access::kRead);
    const bool snapshot = is_snapshot(*device);
    const archive::Added added =
        snapshot ? import_snapshot(session, *device) : import_backup(session, device);
    OrderedJson json = {{"file", path_}, {"id", added.id}, {"new", added.is_new}};
    if (snapshot) json["proven"] = added.proven;
    if (snapshot) json["mended"] = added.mended;
    report(session, std::move(json), to_text(session, added));
  }

 private:
  std::string to_text(const Session& session, const archive::Added& added) const {
    const std::string name = printable(path_, 256);
    if (session.dry_run) return fmt::format("would import '{}'", name);
    std::string text;
    if (added.is_new) {
      text = fmt::format("imported '{}' as {}", name, short_id(added.id));
    } else if (added.mended) {
      text = fmt::format("the archive had lost {}: mended it from '{}'", short_id(added.id), name);
    } else {
      text = fmt::format("the archive had '{}' already, as {}", name, short_id(added.id));
    }
    if (!added.proven) text += "; no key here opens it, so nothing proves what it says of itself";
    return text;
  }

  archive::Added import_snapshot(const Session& session, const Device& device) {
    Bytes bytes(device.size_bytes());
    device.read(0, bytes);
    const std::string what = fmt::format("'{}'", device.name());
    archive::Added added{.id = archive::read_snapshot(bytes, what).id};
    const std::vector<archive::AgeIdentity> identities = identity_.read_if_any(session);
    if (session.dry_run) {
      added.proven = archive::prove_snapshot(bytes, identities, what);
      return added;
    }
    archive::Store store = open_or_make_archive(session, store_.chosen());
    added = store.import_file(bytes, what, identities);
    settle_mirrors(session, store);
    return added;
  }

  archive::Added import_backup(const Session& session, const std::shared_ptr<Device>& device) {
    const luks::HeaderFile file = luks::HeaderFile::open(device);
    if (session.dry_run) return {};
    archive::Store store = open_or_make_archive(session, store_.chosen());
    archive::Added added = store.add(file, {.path = path_, .reason = "import", .command = ""});
    settle_mirrors(session, store);
    return added;
  }

  static bool is_snapshot(const Device& device) {
    constexpr std::string_view kStem = "lukskeep-snapshot ";
    if (device.size_bytes() < kStem.size() ||
        device.size_bytes() > 2 * limits::kSnapshotHeaderBytesMax) {
      return false;
    }
    Bytes head(kStem.size());
    device.read(0, head);
    return as_string_view(head) == kStem;
  }

  StoreArgs store_;
  IdentityArgs identity_;
  std::string path_;
};

class ArchiveVerify final : public Command {
 public:
  void declare(Options& options) override {
    store_.declare(options);
    identity_.declare(options);
    options.flag(
        {.name = "--open", .help = "open every snapshot with the private key and check its header"},
        open_);
    options.flag({.name = "--rebuild", .help = "make the catalogue anew from the files"}, rebuild_);
  }

  void run(const Session& session) override {
    archive::Store store = store_.open();
    std::vector<std::string> problems;
    if (rebuild_) problems = store.rebuild();
    const std::vector<Entry> entries = store.list();
    const auto identities = open_ ? identity_.read(session) : std::vector<archive::AgeIdentity>();
    for (const Entry& entry : entries) {
      session.cancel->check();
      try {
        check(store, entry, identities);
      } catch (const Error& error) {
        problems.push_back(error.message());
      }
    }
    if (!problems.empty()) session.outcome->exit_status = exit_status(Code::kDamaged);
    std::string text = fmt::format("{} snapshot{}, {} damaged\n", entries.size(),
                                   entries.size() == 1 ? "" : "s", problems.size());
    for (const std::string& problem : problems) text += "  " + problem + "\n";
    show(session, {{"snapshots", entries.size()}, {"opened", open_}, {"problems", problems}}, text);
  }

 private:
  // Opened, a snapshot has to be a header that reads, of the volume that it names.
  void check(const archive::Store& store, const Entry& entry,
             std::span<const archive::AgeIdentity> identities) const {
    const archive::Manifest manifest = store.manifest(entry);
    if (!open_) return;
    archive::check_description(manifest, store.open(entry, identities),
                               fmt::format("snapshot {}", short_id(entry.id)));
  }

  StoreArgs store_;
  IdentityArgs identity_;
  bool open_ = false;
  bool rebuild_ = false;
};

class ArchivePrune final : public Command {
 public:
  void declare(Options& options) override {
    store_.declare(options);
    options.add({.name = "--keep", .value = "N", .help = "keep the newest N of each volume"},
                rules_.keep);
    options.add(
        {.name = "--older-than", .value = "DAYS", .help = "remove only what is older than this"},
        rules_.older_than_days);
    options.flag({.name = "--keep-key-changes",
                  .help = "keep the newest of each set of keys that the volume had, whatever "
                          "--keep and --older-than say"},
                 rules_.keep_key_changes);
    options.flag({.name = "--revoked",
                  .help = "remove what holds a key that was removed from the volume since"},
                 rules_.revoked);
  }

  void run(const Session& session) override {
    if (!rules_.keep && !rules_.older_than_days && !rules_.revoked) {
      throw Error(Code::kUsage, "nothing says what to remove",
                  "give --keep, --older-than or --revoked");
    }
    archive::Store store = store_.open();
    OrderedJson removed = OrderedJson::array();
    const std::vector<Entry> entries = store.list();
    const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::chrono::system_clock::now().time_since_epoch());
    for (const Entry& entry : archive::choose_to_prune(entries, rules_, now.count())) {
      session.cancel->check();
      if (!session.dry_run) store.remove(entry);
      removed.push_back(to_json(entry));
    }
    const std::size_t count = removed.size();
    report(session, {{"store", store.directory()}, {"removed", std::move(removed)}},
           fmt::format("{} {} snapshot{}", session.dry_run ? "would remove" : "removed", count,
                       count == 1 ? "" : "s"));
  }

 private:
  StoreArgs store_;
  archive::PruneRules rules_;
};

class ArchiveStatus final : public Command {
 public:
  void declare(Options& options) override { store_.declare(options); }

  void run(const Session& session) override {
    archive::Store store = store_.open();
    OrderedJson volumes = OrderedJson::array();
    std::string text;
    std::set<std::pair<std::string, std::string>> seen;
    std::size_t revoked = 0;
    for (const Entry& entry : store.list()) {
      if (entry.revoked) ++revoked;
      // What was imported says nothing about where a volume is.
      if (entry.trust != Trust::kOwn) continue;
      if (!seen.emplace(entry.uuid, entry.device_path).second) continue;
      const std::string state = state_of(entry);
      if (state != "current") session.outcome->exit_status = 1;
      volumes.push_back({{"uuid", entry.uuid},
                         {"device", entry.device_path},
                         {"newest", entry.id},
                         {"taken", time_text(entry.taken_ns)},
                         {"state", state}});
      text += fmt::format("{:<8}  {}  {}  {}\n", state, printable(entry.uuid),
                          time_text(entry.taken_ns), printable(entry.device_path, 256));
    }
    if (revoked > 0) {
      text += fmt::format(
          "{} snapshot{} a key that was removed since (lukskeep archive prune --revoked)\n",
          revoked, revoked == 1 ? " holds" : "s hold");
    }
    if (text.empty()) text = "no snapshots\n";
    const bool unsynced = archive::has_unsynced(store);
    if (unsynced) {
      session.outcome->exit_status = 1;
      text += "a mirror lacks the newest snapshots (lukskeep archive sync)\n";
    }
    show(session,
         {{"store", store.directory()},
          {"volumes", volumes},
          {"revoked", revoked},
          {"unsynced", unsynced}},
         text);
  }

 private:
  static std::string state_of(const Entry& entry) {
    try {
      const auto file =
          luks::HeaderFile::open(open_to_look(archive::manifest_bytes(entry.device_path)));
      if (archive::uuid_text(file.header().uuid) != entry.uuid) return "replaced";
      return archive::content_id(file) == entry.content_id ? "current" : "changed";
    } catch (const Error& error) {
      if (error.code() == Code::kNotFound) return "absent";
      return error.code() == Code::kNotLuks || error.code() == Code::kDamaged ? "damaged"
                                                                              : "unread";
    }
  }

  StoreArgs store_;
};

// Proves that a snapshot would save the volume, without touching it.
class ArchiveDrill final : public Command {
 public:
  void declare(Options& options) override {
    declare_id(options, "ID", id_);
    options.positional({.name = "VOLUME", .help = "the payload that the snapshot is to open"},
                       volume_);
    key_.declare(options);
    policy_.declare(options);
    store_.declare(options);
    identity_.declare(options);
  }

  void run(const Session& session) override {
    archive::Store store = store_.open();
    const Entry entry = store.find(id_);
    const std::string name = fmt::format("snapshot {}", short_id(entry.id));
    const luks::HeaderFile file = luks::HeaderFile::open(with_name(
        std::make_shared<storage::MemoryDevice>(store.open(entry, identity_.read(session)), false),
        name));
    policy_.enforce(file);
    const OpenedVolume opened = unlock_volume(session, file, key_, key_.unlock_options(session));
    const auto plain = luks::make_crypt_device(
        file.header(), open_device(volume_, storage::Access::kRead), opened.unlocked.key.span(),
        {.allow_insecure = key_.allow_insecure});
    const std::string content = luks::probe_payload(*plain);
    if (content.empty()) session.outcome->exit_status = exit_status(Code::kUnsafe);
    show(
        session,
        {{"id", entry.id},
         {"volume", volume_},
         {"keyslot", opened.unlocked.keyslot},
         {"payload_size", plain->size_bytes()},
         {"content", content}},
        content.empty()
            ? fmt::format("{} opens, but its payload in '{}' has no known file system or partition "
                          "table: empty, of another kind, or of another volume\n",
                          name, printable(volume_, 256))
            : fmt::format("{} opens '{}', which holds {}\n", name, printable(volume_, 256),
                          content));
  }

 private:
  std::string id_;
  std::string volume_;
  KeyArgs key_;
  PolicyArgs policy_;
  StoreArgs store_;
  IdentityArgs identity_;
};

}  // namespace

std::unique_ptr<Command> make_archive_init() { return std::make_unique<ArchiveInit>(); }
std::unique_ptr<Command> make_archive_add() { return std::make_unique<ArchiveAdd>(); }
std::unique_ptr<Command> make_archive_list() { return std::make_unique<ArchiveList>(); }
std::unique_ptr<Command> make_archive_show() { return std::make_unique<ArchiveShow>(); }
std::unique_ptr<Command> make_archive_diff() { return std::make_unique<ArchiveDiff>(); }
std::unique_ptr<Command> make_archive_export() { return std::make_unique<ArchiveExport>(); }
std::unique_ptr<Command> make_archive_import() { return std::make_unique<ArchiveImport>(); }
std::unique_ptr<Command> make_archive_verify() { return std::make_unique<ArchiveVerify>(); }
std::unique_ptr<Command> make_archive_prune() { return std::make_unique<ArchivePrune>(); }
std::unique_ptr<Command> make_archive_drill() { return std::make_unique<ArchiveDrill>(); }
std::unique_ptr<Command> make_archive_status() { return std::make_unique<ArchiveStatus>(); }

}  // namespace lukskeep::cli
