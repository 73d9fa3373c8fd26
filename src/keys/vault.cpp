#include "keys/vault.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include <fmt/format.h>

#include "base/limits.h"
#include "base/uuid.h"
#include "crypto/random.h"
#include "keys/secret_text.h"

namespace lukskeep::keys {
namespace {

constexpr int kUpdateTries = 5;
constexpr unsigned kUpdatePauseMs = 50;
constexpr std::chrono::seconds kSpare{30};
constexpr const char* kVaultlockerMember = "dmcrypt_key";

std::int64_t now_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

bool is_path_segment(std::string_view text) {
  return !text.empty() && text != "." && text != ".." && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

bool is_path(std::string_view text) {
  if (text.empty() || text.size() > limits::kSecretTextBytesMax) return false;
  while (true) {
    const std::size_t slash = text.find('/');
    if (!is_path_segment(text.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    text.remove_prefix(slash + 1);
  }
}

// A record as it is stored, wiped at the end.
struct Record {
  Json json = Json::object();
  std::uint64_t version = 0;  // for check-and-set

  Record() = default;
  Record(Record&&) = default;
  Record& operator=(Record&&) = default;
  Record(const Record&) = delete;
  Record& operator=(const Record&) = delete;
  ~Record() { wipe_json(json); }
};

class Vault final : public KeyManager {
 public:
  Vault(VaultSettings settings, Credentials credentials, const ServiceOptions& options)
      : settings_(std::move(settings)),
        credentials_(std::move(credentials)),
        cancel_(options.cancel),
        service_(fmt::format("the Vault '{}'", printable(settings_.address, 256)), options) {
    while (settings_.address.ends_with('/')) settings_.address.pop_back();
    if (!is_path(settings_.mount)) {
      throw Error(Code::kUsage,
                  fmt::format("'{}' is no mount of a Vault", printable(settings_.mount, 128)));
    }
    if (const SecretBytes* token = credentials_.find("VAULT_TOKEN")) {
      token_ = token->clone();
    } else if (credentials_.find("VAULT_ROLE_ID") == nullptr) {
      credentials_.need("VAULT_TOKEN");
    }
  }

  std::string description() const override { return service_.name(); }

  std::string store(const SecretInfo& info, ByteView payload, const Metadata& metadata) override {
    check_new_secret(info, payload, metadata);
    const std::string id = new_id(info);
    Record record;
    if (vaultlocker()) {
      if (!is_utf8(as_string_view(payload))) {
        throw Error(Code::kInvalidArgument,
                    "vaultlocker's secrets are text: this one has other bytes");
      }
      record.json[kVaultlockerMember] = as_string_view(payload);
    } else {
      record.json = {{"type", secret_type_name(info.type)},
                     {"value", as_string_view(secret_hex(payload).span())},
                     {"algorithm", info.algorithm.empty() ? Json(nullptr) : Json(info.algorithm)},
                     {"bit_length", info.bit_length ? Json(*info.bit_length) : Json(nullptr)},
                     {"name", info.name.empty() ? Json(nullptr) : Json(info.name)},
                     {"created", now_s()}};
      if (!info.mode.empty()) record.json["mode"] = info.mode;
      if (info.expires_s) record.json["expires"] = *info.expires_s;
    }
    if (!metadata.empty()) record.json["metadata"] = metadata;
    // Version 1 overwrites whatever is there.
    const bool taken = settings_.version == 1 && read(id).has_value();
    if (taken || (!write(id, record) && !is_stored(id, record))) {
      throw Error(Code::kExists,
                  fmt::format("{} has a secret '{}' already", service_.name(), printable(id, 128)));
    }
    return id;
  }

  // Vault makes no keys in this engine: as castellan, it is made here.
  std::string order(const Order& order) override {
    if (order.bit_length == 0 || order.bit_length % 8 != 0 ||
        order.bit_length > limits::kOrderBitsMax) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("a key cannot have {} bits", order.bit_length));
    }
    if (vaultlocker()) throw Error(Code::kUnsupported, "vaultlocker has no keys, only passphrases");
    SecretInfo info{.id = {}, .name = order.name, .type = SecretType::kSymmetric};
    info.algorithm = order.algorithm;
    info.bit_length = order.bit_length;
    info.mode = order.mode;
    info.expires_s = order.expires_s;
    return store(info, crypto::random_secret(order.bit_length / 8).span(), {});
  }

  std::optional<SecretInfo> find(const std::string& id) override {
    const auto record = read(checked(id));
    if (!record) return std::nullopt;
    return info_of(checked(id), *record);
  }

  Secret get(const std::string& id) override {
    const Record record = need(checked(id));
    Secret secret{.info = info_of(checked(id), record), .payload = {}};
    const char* member = vaultlocker() ? kVaultlockerMember : "value";
    const auto value = record.json.find(member);
    if (value == record.json.end() || !value->is_string()) {
      service_.nonsense(fmt::format("a record without '{}'", member));
    }
    const std::string_view text = value->get_ref<const std::string&>();
    if (vaultlocker()) {
      secret.payload = SecretBytes(as_byte_view(text));
    } else if (auto bytes = from_secret_hex(text)) {
      secret.payload = std::move(*bytes);
    }
    if (secret.payload.empty()) service_.nonsense("a record whose value is no hex");
    return secret;
  }

  std::vector<SecretInfo> list(const std::string& name) override {
    std::vector<SecretInfo> infos;
    for (const std::string& key : keys_below("")) {
      if (!key.ends_with('/')) {
        if (!vaultlocker()) add_if_named(infos, key, name);
        continue;
      }
      if (!vaultlocker()) continue;
      for (const std::string& inner : keys_below(key)) {
        if (!inner.ends_with('/')) add_if_named(infos, key + inner, name);
      }
    }
    std::ranges::stable_sort(infos, {}, &SecretInfo::created_s);
    return infos;
  }

  Metadata metadata(const std::string& id) override {
    const Record record = need(checked(id));
    Metadata metadata;
    for (const auto& [key, value] : service_.object(record.json, "metadata").items()) {
      if (value.is_string()) metadata[key] = value.get<std::string>();
    }
    return metadata;
  }

  void set_metadata(const std::string& id, const Metadata& metadata) override {
    check_metadata(metadata);
    update(checked(id), [&](Json& record) {
      if (metadata.empty()) {
        record.erase("metadata");
      } else {
        record["metadata"] = metadata;
      }
      return true;
    });
  }

  std::vector<Consumer> consumers(const std::string& id) override {
    return consumers_of(need(checked(id)).json);
  }

  void add_consumer(const std::string& id, const Consumer& consumer) override {
    update(checked(id), [&](Json& record) {
      const auto known = consumers_of(record);
      if (std::ranges::find(known, consumer) != known.end()) return false;
      if (known.size() >= limits::kSecretConsumersMax) {
        throw Error(Code::kInvalidArgument, "a secret has no more consumers than that");
      }
      record["consumers"].push_back({{"service", consumer.service},
                                     {"resource_type", consumer.resource_type},
                                     {"resource_id", consumer.resource_id}});
      return true;
    });
  }

  void remove_consumer(const std::string& id, const Consumer& consumer) override {
    update(checked(id), [&](Json& record) {
      const auto known = consumers_of(record);
      const auto found = std::ranges::find(known, consumer);
      if (found == known.end()) return false;
      record["consumers"].erase(static_cast<std::size_t>(found - known.begin()));
      return true;
    });
  }

  void remove(const std::string& id, bool used_too) override {
    const std::string path = checked(id);
    const auto used_by = consumers(path);
    if (!used_too) refuse_used(id, used_by);
    // All versions of it: a deletion of the newest would leave the key in the older ones.
    const net::HttpResponse response =
        send("DELETE", settings_.version == 1 ? "" : "metadata/", path, {});
    if (!is_good(response) && response.status != 404) throw refusal(response, path);
  }

 private:
  using Clock = std::chrono::steady_clock;

  bool vaultlocker() const noexcept { return settings_.layout == VaultLayout::kVaultlocker; }

  std::string new_id(const SecretInfo& info) const {
    if (!vaultlocker()) {
      std::string id = random_uuid();
      std::erase(id, '-');
      return id;
    }
    // vaultlocker looks below the host's name for the volume's UUID.
    if (info.name.find('/') != std::string::npos && is_path(info.name)) return info.name;
    throw Error(Code::kUsage, "in vaultlocker's layout the name of a secret is HOST/UUID");
  }

  // The ID as it stands in paths.
  std::string checked(const std::string& id) const {
    std::string path = id;
    if (!vaultlocker() && is_uuid(path)) std::erase(path, '-');
    if (!is_path(path)) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("'{}' is no ID of a secret in a Vault", printable(id, 128)));
    }
    return path;
  }

  // ---- requests ----

  void log_in() {
    SecretText body;
    body.add("{\"role_id\":").add_json(as_string_view(credentials_.need("VAULT_ROLE_ID").span()));
    if (const SecretBytes* secret = credentials_.find("VAULT_SECRET_ID")) {
      body.add(",\"secret_id\":").add_json(as_string_view(secret->span()));
    }
    body.add("}");
    net::HttpResponse response = service_.send({.method = "POST",
                                                .url = settings_.address + "/v1/auth/approle/login",
                                                .headers = common_headers(),
                                                .token_header = {},
                                                .body = body.view()});
    if (!is_good(response)) throw service_.refusal(response, "the login of the role");
    Json json = service_.json(response);
    const Json& auth = service_.object(json, "auth");
    const std::string token = service_.text(auth, "client_token");
    if (token.empty()) service_.nonsense("no token");
    token_ = SecretBytes(as_byte_view(token));
    const std::uint64_t lease = service_.number(auth, "lease_duration").value_or(0);
    // 0: it does not expire.
    good_until_ = lease == 0 ? Clock::time_point::max()
                             : Clock::now() + std::chrono::seconds(std::min<std::uint64_t>(
                                                  lease, 365ULL * 24 * 3600));
    wipe_json(json);
  }

  bool has_role() const { return credentials_.find("VAULT_TOKEN") == nullptr; }

  std::vector<std::pair<std::string, std::string>> common_headers() const {
    std::vector<std::pair<std::string, std::string>> headers = {
        {"Content-Type", "application/json"}, {"X-Vault-Request", "true"}};
    const std::string space = credentials_.text("VAULT_NAMESPACE");
    if (!space.empty()) headers.emplace_back("X-Vault-Namespace", space);
    return headers;
  }

  // `kind` is "data/" or "metadata/" of version 2. Vault says 403 of a token that has expired.
  net::HttpResponse send(const std::string& method, const std::string& kind,
                         const std::string& path, ByteView body) {
    for (bool first = true;; first = false) {
      if (has_role() && (token_.empty() || Clock::now() + kSpare > good_until_)) log_in();
      net::HttpResponse response = service_.send(
          {.method = method,
           .url = fmt::format("{}/v1/{}/{}{}", settings_.address, settings_.mount, kind, path),
           .headers = common_headers(),
           .token_header = "X-Vault-Token",
           .token = &token_,
           .body = body});
      if (response.status != 403 || !first || !has_role()) return response;
      token_ = {};
    }
  }

  Error refusal(const net::HttpResponse& response, const std::string& id) const {
    return service_.refusal(response, fmt::format("secret '{}'", printable(id, 128)));
  }

  std::optional<Record> read(const std::string& path) {
    net::HttpResponse response = send("GET", settings_.version == 1 ? "" : "data/", path, {});
    if (response.status == 404) return std::nullopt;  // also a version that was deleted
    if (!is_good(response)) throw refusal(response, path);
    Json json = service_.json(response);
    Record record;
    const Json* data = &service_.object(json, "data");
    if (settings_.version != 1) {
      record.version = service_.number(service_.object(*data, "metadata"), "version").value_or(0);
      data = &service_.object(*data, "data");
    }
    record.json = *data;
    wipe_json(json);
    return record;
  }

  Record need(const std::string& path) {
    auto record = read(path);
    if (!record) {
      throw Error(Code::kNotFound,
                  fmt::format("{} has no secret '{}'", service_.name(), printable(path, 128)));
    }
    return std::move(*record);
  }

  // Whether the answer to an earlier try was lost, and what it wrote is met.
  bool is_stored(const std::string& path, const Record& record) {
    const std::optional<Record> there = read(path);
    return there && there->json == record.json;
  }

  // False if somebody else wrote meanwhile (version 2).
  bool write(const std::string& path, const Record& record) {
    SecretText body;
    std::string data = record.json.dump();
    if (settings_.version == 1) {
      body.add(data);
    } else {
      body.add(fmt::format(R"({{"options":{{"cas":{}}},"data":)", record.version))
          .add(data)
          .add("}");
    }
    wipe(std::as_writable_bytes(std::span(data)));
    const net::HttpResponse response =
        send("POST", settings_.version == 1 ? "" : "data/", path, body.view());
    if (is_good(response)) return true;
    const bool raced = response.status == 400 &&
                       as_string_view(response.body).find("check-and-set") != std::string::npos;
    if (raced && settings_.version != 1) return false;
    throw refusal(response, path);
  }

  // `change` says whether there is anything to write.
  void update(const std::string& path, const std::function<bool(Json&)>& change) {
    for (int attempt = 1; attempt <= kUpdateTries; ++attempt) {
      Record record = need(path);
      if (!change(record.json) || write(path, record)) return;
      pause_ms(kUpdatePauseMs * static_cast<unsigned>(attempt), cancel_);
    }
    throw Error(
        Code::kConflict,
        fmt::format("{}: others keep changing secret '{}'", service_.name(), printable(path, 128)),
        "try again");
  }

  // ---- records ----

  std::vector<std::string> keys_below(const std::string& path) {
    net::HttpResponse response =
        send("GET", settings_.version == 1 ? "" : "metadata/", path + "?list=true", {});
    if (response.status == 404) return {};
    if (!is_good(response)) throw service_.refusal(response, "a list of secrets");
    const Json json = service_.json(response);
    std::vector<std::string> keys;
    for (const Json& key : service_.array(service_.object(json, "data"), "keys")) {
      if (!key.is_string()) service_.nonsense("a name that is no text");
      std::string text = key;
      const std::string_view bare =
          std::string_view(text).substr(0, text.size() - (text.ends_with('/') ? 1 : 0));
      if (is_path_segment(bare)) keys.push_back(std::move(text));
      if (keys.size() == limits::kSecretsMax) break;
    }
    return keys;
  }

  void add_if_named(std::vector<SecretInfo>& infos, const std::string& id,
                    const std::string& name) {
    // Who deleted it meanwhile is not to be minded; nor is what is no secret of this layout.
    const auto record = read(id);
    if (!record || !record->json.contains(vaultlocker() ? kVaultlockerMember : "value")) return;
    SecretInfo info = info_of(id, *record);
    if (name.empty() || info.name == name) infos.push_back(std::move(info));
  }

  SecretInfo info_of(const std::string& id, const Record& record) const {
    SecretInfo info{.id = id};
    if (vaultlocker()) {
      info.name = id;
      info.type = SecretType::kPassphrase;
      info.content_type = "text/plain";
      return info;
    }
    info.name = service_.text(record.json, "name");
    try {
      info.type = parse_secret_type(service_.text(record.json, "type"));
    } catch (const Error&) {
      info.type = SecretType::kOpaque;
    }
    info.algorithm = service_.text(record.json, "algorithm");
    const auto bits = service_.number(record.json, "bit_length");
    if (bits && *bits <= UINT32_MAX) info.bit_length = static_cast<std::uint32_t>(*bits);
    info.mode = service_.text(record.json, "mode");
    if (info.type == SecretType::kPassphrase) info.content_type = "text/plain";
    if (const auto expires = service_.number(record.json, "expires")) {
      info.expires_s = static_cast<std::int64_t>(std::min<std::uint64_t>(*expires, 1ULL << 40));
    }
    const auto created = service_.number(record.json, "created").value_or(0);
    info.created_s = static_cast<std::int64_t>(std::min<std::uint64_t>(created, 1ULL << 40));
    return info;
  }

  std::vector<Consumer> consumers_of(const Json& record) const {
    std::vector<Consumer> consumers;
    for (const Json& one : service_.array(record, "consumers")) {
      if (!one.is_object()) service_.nonsense("a consumer that is none");
      consumers.push_back({.service = service_.text(one, "service"),
                           .resource_type = service_.text(one, "resource_type"),
                           .resource_id = service_.text(one, "resource_id")});
    }
    return consumers;
  }

  VaultSettings settings_;
  Credentials credentials_;
  const CancelToken* cancel_;
  Service service_;
  SecretBytes token_;
  Clock::time_point good_until_ = Clock::time_point::max();
};

}  // namespace

std::unique_ptr<KeyManager> open_vault(VaultSettings settings, Credentials credentials,
                                       const ServiceOptions& options) {
  return std::make_unique<Vault>(std::move(settings), std::move(credentials), options);
}

}  // namespace lukskeep::keys
