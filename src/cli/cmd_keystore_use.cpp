// keystore consumers, metadata, access, copy, reconcile, resolve.
#include <algorithm>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "cli/command.h"
#include "cli/key_manager_args.h"
#include "cli/keystore_view.h"
#include "cli/volume_access.h"
#include "keys/key_source.h"
#include "luks/keyslots.h"

namespace lukskeep::cli {
namespace {

class KeystoreConsumers final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "ID", .help = "the secret"}, id_);
    options.add({.name = "--add", .value = "CONSUMER", .help = "it is used by SERVICE/TYPE/ID"},
                [this](const std::string& value) { add_ = keys::parse_consumer(value); });
    options.add(
        {.name = "--remove", .value = "CONSUMER", .help = "it is not used by that any more"},
        [this](const std::string& value) { remove_ = keys::parse_consumer(value); });
  }

  void run(const Session& session) override {
    const auto manager = open_key_manager(session);
    if (!session.dry_run && add_) manager->add_consumer(id_, *add_);
    if (!session.dry_run && remove_) manager->remove_consumer(id_, *remove_);
    const auto consumers = manager->consumers(id_);
    std::string text;
    for (const keys::Consumer& consumer : consumers) {
      text += printable(keys::to_string(consumer), 300) + "\n";
    }
    if (consumers.empty()) text = "nothing uses it\n";
    show(session, {{"id", id_}, {"consumers", consumers_json(consumers)}},
         session.quiet && (add_ || remove_) ? "" : text);
  }

 private:
  std::string id_;
  std::optional<keys::Consumer> add_;
  std::optional<keys::Consumer> remove_;
};

class KeystoreMetadata final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "ID", .help = "the secret"}, id_);
    options.positionals({.name = "NAME=VALUE", .help = "set this; NAME= removes it"}, changes_);
  }

  void run(const Session& session) override {
    const auto manager = open_key_manager(session);
    keys::Metadata metadata = manager->metadata(id_);
    const keys::Metadata before = metadata;
    for (const std::string& change : changes_) {
      const std::size_t equals = change.find('=');
      if (equals == std::string::npos) {
        throw Error(Code::kUsage, fmt::format("'{}' is not NAME=VALUE", printable(change)));
      }
      metadata.erase(change.substr(0, equals));
      if (equals + 1 != change.size())
        metadata[change.substr(0, equals)] = change.substr(equals + 1);
    }
    keys::check_metadata(metadata);
    if (metadata != before && !session.dry_run) manager->set_metadata(id_, metadata);
    std::string text;
    for (const auto& [name, value] : metadata) {
      text += fmt::format("{}={}\n", printable(name, 300), printable(value, 300));
    }
    show(session, {{"id", id_}, {"metadata", metadata}},
         session.quiet && !changes_.empty() ? "" : text);
  }

 private:
  std::string id_;
  std::vector<std::string> changes_;
};

class KeystoreAccess final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "ID", .help = "the secret"}, id_);
    options.add({.name = "--users",
                 .value = "LIST",
                 .help = "these users may read it too: IDs with commas between; empty: none"},
                users_);
    options.flag({.name = "--private", .help = "nobody else in the project may"}, private_);
    options.flag({.name = "--project", .help = "everybody in the project may"}, project_);
  }

  void run(const Session& session) override {
    if (private_ && project_) {
      throw Error(Code::kUsage, "--private and --project contradict each other");
    }
    const auto manager = open_key_manager(session);
    keys::AccessList access = manager->access(id_);
    if (users_) access.users = split(*users_);
    if (private_ || project_) access.project_access = project_;
    const bool changes = users_ || private_ || project_;
    if (changes && !session.dry_run) manager->set_access(id_, access);
    show(
        session, {{"id", id_}, {"project", access.project_access}, {"users", access.users}},
        session.quiet && changes
            ? ""
            : fmt::format("project  {}\nusers    {}\n", access.project_access ? "yes" : "no",
                          access.users.empty()
                              ? "none"
                              : printable(fmt::format("{}", fmt::join(access.users, ", ")), 2000)));
  }

 private:
  static std::vector<std::string> split(std::string_view text) {
    std::vector<std::string> parts;
    while (!text.empty()) {
      const std::string_view part = text.substr(0, text.find(','));
      text.remove_prefix(std::min(text.size(), part.size() + 1));
      if (!part.empty()) parts.emplace_back(part);
    }
    return parts;
  }

  std::string id_;
  std::optional<std::string> users_;
  bool private_ = false;
  bool project_ = false;
};

class KeystoreCopy final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "DESTINATION", .help = "the other key manager, as a URI"}, to_);
    options.positionals({.name = "ID", .help = "what to copy"}, ids_);
    options.flag({.name = "--all", .help = "everything"}, all_);
  }

  void run(const Session& session) override {
    if (all_ != ids_.empty()) throw Error(Code::kUsage, "name secrets, or --all of them");
    const std::string from_uri = key_manager_uri(session);
    if (from_uri == to_) throw Error(Code::kUsage, "both are the same key manager");
    const auto from = open_key_manager(session, from_uri);
    const auto destination = open_key_manager(session, to_);
    if (all_) {
      for (const keys::SecretInfo& info : from->list({})) ids_.push_back(info.id);
    }
    OrderedJson copied = OrderedJson::array();
    try {
      for (const std::string& id : ids_) {
        session.cancel->check();
        copied.push_back(copy(session, *from, *destination, id));
      }
    } catch (const Error& error) {
      // What is there stays, and is named: its owner goes on from here.
      finish(session, copied);
      if (copied.empty()) throw;
      throw Error(
          error.code(), error.message(),
          fmt::format("{} of {} secrets were copied before that; what was printed names them{}{}",
                      copied.size(), ids_.size(), error.hint().empty() ? "" : "; ", error.hint()));
    }
    finish(session, copied);
  }

 private:
  static OrderedJson copy(const Session& session, keys::KeyManager& from,
                          keys::KeyManager& destination, const std::string& id) {
    const keys::Secret secret = from.get(id);
    const keys::Metadata metadata = from.metadata(id);
    std::string new_id;
    if (!session.dry_run) new_id = destination.store(secret.info, secret.payload.span(), metadata);
    return {{"from", id},
            {"to", session.dry_run ? OrderedJson(nullptr) : OrderedJson(new_id)},
            {"name", secret.info.name}};
  }

  static void finish(const Session& session, const OrderedJson& copied) {
    if (session.json) return print_json({{"copied", copied}, {"dry_run", session.dry_run}});
    std::string text;
    for (const OrderedJson& one : copied) {
      text += fmt::format(
          "{}  {}  {}\n", printable(one["from"].get<std::string>(), 128),
          one["to"].is_null() ? "(dry run)" : printable(one["to"].get<std::string>(), 128),
          printable(one["name"].get<std::string>(), 256));
    }
    print(text);
  }

  std::string to_;
  std::vector<std::string> ids_;
  bool all_ = false;
};

// One line of a list of what is in use: the ID of a secret, and what uses it if that is known.
struct Reference {
  std::string id;
  std::optional<keys::Consumer> consumer;
};

std::vector<Reference> parse_references(std::string_view text, std::string_view what) {
  std::vector<Reference> references;
  for (std::size_t number = 1; !text.empty(); ++number) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ' || line.back() == '\t')) {
      line.remove_suffix(1);
    }
    if (line.empty() || line.front() == '#') continue;
    if (references.size() == limits::kReferencesMax) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("{} has more than {} lines", what, limits::kReferencesMax));
    }
    const std::size_t space = line.find_first_of(" \t");
    Reference reference{.id = std::string(line.substr(0, space))};
    if (space != std::string_view::npos) {
      const std::size_t next = line.find_first_not_of(" \t", space);
      try {
        reference.consumer = keys::parse_consumer(line.substr(next));
      } catch (const Error& error) {
        throw Error(Code::kInvalidArgument,
                    fmt::format("{}, line {}: {}", what, number, error.message()), error.hint());
      }
    }
    references.push_back(std::move(reference));
  }
  return references;
}

// Services write the same ID as a URL, with dashes or without, and in either case.
std::string comparable_id(std::string_view id) {
  if (id.starts_with("http://") || id.starts_with("https://")) {
    while (id.ends_with('/')) id.remove_suffix(1);
    id.remove_prefix(id.rfind('/') + 1);
  }
  std::string hex;
  std::ranges::copy_if(id, std::back_inserter(hex), [](char c) { return c != '-'; });
  const auto bytes = from_hex(hex);
  return bytes && bytes->size() == 16 ? to_hex(*bytes) : std::string(id);
}

class KeystoreReconcile final : public Command {
 public:
  void declare(Options& options) override {
    options.optional_positional(
        {.name = "REFERENCES",
         .help = "what is in use: a file (or -) of lines 'ID' or 'ID SERVICE/TYPE/ID'"},
        path_);
    options.flag({.name = "--register", .help = "add the consumers that are missing"}, register_);
    options.flag({.name = "--forget", .help = "remove consumers that no reference names"}, forget_);
  }

  void run(const Session& session) override {
    if (path_.empty() && (register_ || forget_)) {
      throw Error(Code::kUsage, "--register and --forget want REFERENCES");
    }
    std::vector<Reference> references;
    if (!path_.empty()) {
      const SecretBytes text = keys::read_key({.kind = keys::KeySource::Kind::kFile, .path = path_},
                                              {}, {}, session.cancel);
      references =
          parse_references(as_string_view(text.span()), fmt::format("'{}'", printable(path_, 256)));
    }
    const auto manager = open_key_manager(session);
    compare(session, *manager, references);
    finish(session);
  }

 private:
  struct Finding {
    std::string kind;
    std::string id;
    std::string detail;
  };

  void add(std::string kind, const std::string& id, std::string detail) {
    findings_.push_back({.kind = std::move(kind), .id = id, .detail = std::move(detail)});
  }

  void compare(const Session& session, keys::KeyManager& manager,
               const std::vector<Reference>& references) {
    std::map<std::string, std::vector<const Reference*>> by_id;
    for (const Reference& reference : references)
      by_id[comparable_id(reference.id)].push_back(&reference);
    for (const keys::SecretInfo& info : manager.list({})) {
      session.cancel->check();
      const auto found = by_id.find(comparable_id(info.id));
      const auto consumers = manager.consumers(info.id);
      const bool referenced = found != by_id.end();
      if (referenced) check_used(session, manager, info.id, found->second, consumers);
      check_consumers(session, manager, info, consumers,
                      referenced ? found->second : std::vector<const Reference*>());
      if (!referenced && (consumers.empty() || (forget_ && !session.dry_run))) {
        add("leaked", info.id, fmt::format("nothing uses the {}", secret_words(info)));
      }
      if (referenced) by_id.erase(found);
    }
    for (const auto& [id, users] : by_id) {
      const auto& consumer = users.front()->consumer;
      add("dangling", users.front()->id,
          fmt::format(
              "there is no such secret{}",
              consumer ? fmt::format(", which {} needs", printable(keys::to_string(*consumer), 200))
                       : std::string()));
    }
  }

  void check_used(const Session& session, keys::KeyManager& manager, const std::string& id,
                  const std::vector<const Reference*>& users,
                  const std::vector<keys::Consumer>& consumers) {
    for (const Reference* user : users) {
      if (!user->consumer || std::ranges::find(consumers, *user->consumer) != consumers.end()) {
        continue;
      }
      if (register_ && !session.dry_run) manager.add_consumer(id, *user->consumer);
      add("unregistered", id,
          fmt::format("{} {} its consumer", printable(keys::to_string(*user->consumer), 200),
                      register_ ? "was not" : "is not"));
    }
  }

  // Only where the list of references is there is a consumer known to be stale.
  void check_consumers(const Session& session, keys::KeyManager& manager,
                       const keys::SecretInfo& info, const std::vector<keys::Consumer>& consumers,
                       const std::vector<const Reference*>& users) {
    if (path_.empty()) return;
    // A reference that does not say by whom may be any of them.
    if (std::ranges::any_of(users, [](const Reference* user) { return !user->consumer; })) return;
    for (const keys::Consumer& consumer : consumers) {
      const bool known = std::ranges::any_of(
          users, [&](const Reference* user) { return user->consumer == consumer; });
      if (known) continue;
      if (forget_ && !session.dry_run) manager.remove_consumer(info.id, consumer);
      add("stale", info.id,
          fmt::format("{} {} its consumer, and nothing refers to it",
                      printable(keys::to_string(consumer), 200), forget_ ? "was" : "is"));
    }
  }

  void finish(const Session& session) const {
    OrderedJson json = OrderedJson::array();
    std::string text;
    for (const Finding& finding : findings_) {
      json.push_back({{"kind", finding.kind}, {"id", finding.id}, {"detail", finding.detail}});
      text += fmt::format("{:<12}  {:<36}  {}\n", finding.kind, printable(finding.id, 128),
                          finding.detail);
    }
    if (!findings_.empty()) session.outcome->exit_status = 1;
    show(session, {{"findings", json}, {"dry_run", session.dry_run}},
         findings_.empty() ? "secrets and what uses them agree\n" : text);
  }

  std::string path_;
  bool register_ = false;
  bool forget_ = false;
  std::vector<Finding> findings_;
};

class KeystoreResolve final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "ID", .help = "the secret"}, id_);
    volume_.declare(options);
    key_.declare_limits(options);
    options.flag({.name = "--save", .help = "write the answer into the secret's metadata"}, save_);
  }

  void run(const Session& session) override {
    const luks::HeaderFile file = open_header(volume_);
    const auto manager = open_key_manager(session);
    const keys::Secret secret = manager->get(id_);
    keys::Metadata metadata = manager->metadata(id_);
    std::vector<std::string_view> tried;
    for (const keys::Candidate& candidate : keys::passphrase_candidates(secret, metadata)) {
      tried.push_back(keys::encoding_name(candidate.encoding));
      const auto unlocked =
          luks::unlock(file, candidate.passphrase.span(), key_.unlock_options(session));
      if (!unlocked) continue;
      metadata[std::string(keys::kEncodingMetadata)] = tried.back();
      if (save_ && !session.dry_run) manager->set_metadata(id_, metadata);
      return report(
          session,
          {{"id", id_},
           {"volume", volume_.volume},
           {"encoding", tried.back()},
           {"keyslot", unlocked->keyslot},
           {"saved", save_ && !session.dry_run}},
          fmt::format("secret '{}' opens keyslot {} of '{}' with {} ({}){}", printable(id_, 128),
                      unlocked->keyslot, printable(volume_.volume, 256),
                      keys::encoding_words(candidate.encoding), tried.back(),
                      save_ ? ", which its metadata says now" : ""));
    }
    throw Error(
        Code::kWrongPassphrase,
        fmt::format("no keyslot of '{}' opens with secret '{}', tried as {}",
                    printable(volume_.volume, 256), printable(id_, 128), fmt::join(tried, ", ")));
  }

 private:
  std::string id_;
  VolumeArgs volume_;
  KeyArgs key_;
  bool save_ = false;
};

}  // namespace

std::unique_ptr<Command> make_keystore_consumers() { return std::make_unique<KeystoreConsumers>(); }
std::unique_ptr<Command> make_keystore_metadata() { return std::make_unique<KeystoreMetadata>(); }
std::unique_ptr<Command> make_keystore_access() { return std::make_unique<KeystoreAccess>(); }
std::unique_ptr<Command> make_keystore_copy() { return std::make_unique<KeystoreCopy>(); }
std::unique_ptr<Command> make_keystore_reconcile() { return std::make_unique<KeystoreReconcile>(); }
std::unique_ptr<Command> make_keystore_resolve() { return std::make_unique<KeystoreResolve>(); }

}  // namespace lukskeep::cli
