#include "keys/barbican.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include <fmt/format.h>

#include "base/limits.h"
#include "base/uuid.h"
#include "keys/secret_text.h"

namespace lukskeep::keys {
namespace {

constexpr std::size_t kPage = 100;  // the most that Barbican gives at once
constexpr unsigned kPollMs = 250;
constexpr std::string_view kJsonType = "application/json";

// Barbican strips white space around text, and text is UTF-8 in JSON.
bool survives_as_text(ByteView payload) {
  const std::string_view text = as_string_view(payload);
  constexpr std::string_view kStripped = " \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0";
  const auto plain = [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f; };
  return is_utf8(text) && std::ranges::all_of(text, plain) &&
         kStripped.find(text.front()) == std::string_view::npos &&
         kStripped.find(text.back()) == std::string_view::npos &&
         static_cast<unsigned char>(text.front()) < 0x80 &&
         static_cast<unsigned char>(text.back()) < 0x80;
}

std::string uuid_of(const std::string& id) {
  const std::size_t slash = id.find_last_of('/');
  std::string uuid = slash == std::string::npos ? id : id.substr(slash + 1);
  if (is_uuid(uuid)) return uuid;
  throw Error(Code::kInvalidArgument,
              fmt::format("'{}' is no ID of a secret in a Barbican", printable(id, 128)),
              "IDs are UUIDs");
}

// {"name":…, "algorithm":…}: what a secret and an order have in common. What is not said is left
// out, as castellan does.
void add_description(SecretText& json, const std::string& name, const std::string& algorithm,
                     const std::optional<std::uint32_t>& bits, const std::string& mode,
                     const std::optional<std::int64_t>& expires_s) {
  json.add("\"name\":");
  name.empty() ? json.add("null") : json.add_json(name);
  if (!algorithm.empty()) json.add(",\"algorithm\":").add_json(algorithm);
  if (bits) json.add(fmt::format(",\"bit_length\":{}", *bits));
  if (!mode.empty()) json.add(",\"mode\":").add_json(mode);
  if (expires_s) {
    // Without the Z, which Barbican 15 takes as well, but not all before it.
    std::string time = time_text(*expires_s);
    time.pop_back();
    json.add(",\"expiration\":").add_json(time);
  }
}

SecretBytes secret_body(const SecretInfo& info, ByteView payload) {
  SecretText json;
  json.add("{");
  add_description(json, info.name, info.algorithm, info.bit_length, info.mode, info.expires_s);
  json.add(",\"secret_type\":").add_json(secret_type_name(info.type));
  if (info.type == SecretType::kPassphrase && survives_as_text(payload)) {
    json.add(",\"payload\":").add_json(as_string_view(payload));
    json.add(R"(,"payload_content_type":"text/plain"})");
  } else {
    json.add(",\"payload\":\"").add_base64(payload);
    json.add(R"(","payload_content_type":"application/octet-stream",)")
        .add(R"("payload_content_encoding":"base64"})");
  }
  return json.take();
}

Json consumer_json(const Consumer& consumer) {
  return {{"service", consumer.service},
          {"resource_type", consumer.resource_type},
          {"resource_id", consumer.resource_id}};
}

class Barbican final : public KeyManager {
 public:
  Barbican(BarbicanSettings settings, Credentials credentials, const ServiceOptions& options)
      : endpoint_(std::move(settings.endpoint)),
        project_(std::move(settings.noauth_project)),
        cancel_(options.cancel),
        service_(endpoint_.empty() ? "the Barbican of the catalogue"
                                   : fmt::format("the Barbican '{}'", printable(endpoint_, 256)),
                 options) {
    if (project_.empty()) keystone_.emplace(std::move(credentials), options);
  }

  std::string description() const override { return service_.name(); }

  std::string store(const SecretInfo& info, ByteView payload, const Metadata& metadata) override {
    check_new_secret(info, payload, metadata);
    const SecretBytes body = secret_body(info, payload);
    const std::string what =
        info.name.empty() ? "a secret" : fmt::format("secret '{}'", printable(info.name, 128));
    const std::string uuid = created(
        "POST", "/secrets", body.span(), what, "secret_ref",
        fmt::format("whether it was stored is not known: look with 'lukskeep keystore list --name "
                    "{}', and delete what is too many",
                    info.name.empty() ? "''" : printable(info.name, 128)));
    if (metadata.empty()) return uuid;
    try {
      set_metadata(uuid, metadata);
    } catch (const Error& error) {
      undo(uuid, error);
    }
    return uuid;
  }

  std::string order(const Order& order) override {
    SecretText body;
    body.add(R"({"type":"key","meta":{)");
    add_description(body, order.name, order.algorithm, order.bit_length, order.mode,
                    order.expires_s);
    body.add(R"(,"payload_content_type":"application/octet-stream"}})");
    const std::string uuid = created(
        "POST", "/orders", body.view(), "an order", "order_ref",
        fmt::format("whether a key was made is not known: look with 'lukskeep keystore list "
                    "--name {}'",
                    order.name.empty() ? "''" : printable(order.name, 128)));
    const std::string made = wait_for_order(uuid);
    // The key is there; the order is only a note of how it came.
    try {
      send({.method = "DELETE",
            .url = "/orders/" + uuid,
            .headers = {},
            .token_header = {},
            .body = {}});
    } catch (const Error& error) {
      if (error.code() == Code::kInterrupted) throw;
    }
    return made;
  }

  std::optional<SecretInfo> find(const std::string& id) override {
    net::HttpResponse response = get_json(secret_url(id));
    if (response.status == 404) return std::nullopt;
    if (!is_good(response)) throw service_.refusal(response, secret_words(id));
    return info_of(service_.json(response));
  }

  Secret get(const std::string& id) override {
    net::HttpResponse described = get_json(secret_url(id));
    if (!is_good(described)) throw service_.refusal(described, secret_words(id));
    Secret secret{.info = info_of(service_.json(described)), .payload = {}};
    net::HttpResponse response = send({.url = secret_url(id) + "/payload",
                                       .headers = {{"Accept", secret.info.content_type}},
                                       .token_header = {},
                                       .body = {}});
    if (!is_good(response)) throw service_.refusal(response, "payload of " + secret_words(id));
    if (response.body.empty()) {
      throw Error(Code::kNotFound,
                  fmt::format("{} has no payload for {}", service_.name(), secret_words(id)));
    }
    secret.payload = SecretBytes(response.body);
    wipe(response.body);
    return secret;
  }

  std::vector<SecretInfo> list(const std::string& name) override {
    std::vector<SecretInfo> infos;
    std::string last;
    std::string url = fmt::format("/secrets?sort=created:asc&limit={}", kPage);
    if (!name.empty()) url += "&name=" + net::percent_encode(name);
    while (infos.size() < limits::kSecretsMax) {
      net::HttpResponse response = get_json(fmt::format("{}&offset={}", url, infos.size()));
      if (!is_good(response)) throw service_.refusal(response, "a list of secrets");
      const Json json = service_.json(response);
      const Json& page = service_.array(json, "secrets");
      if (page.empty()) break;
      const std::size_t before = infos.size();
      for (const Json& one : page) infos.push_back(info_of(one));
      // The same page again and again would never end.
      if (before != 0 && infos[before].id == last) service_.nonsense("a list that repeats itself");
      last = infos[before].id;
      if (page.size() < kPage) break;
    }
    return infos;
  }

  Metadata metadata(const std::string& id) override {
    net::HttpResponse response = get_json(secret_url(id) + "/metadata");
    if (!is_good(response)) throw service_.refusal(response, secret_words(id));
    const Json json = service_.json(response);
    Metadata metadata;
    for (const auto& [key, value] : service_.object(json, "metadata").items()) {
      if (metadata.size() == limits::kSecretMetadataMax) break;
      metadata[key] = value.is_string() ? value.get<std::string>() : value.dump();
    }
    return metadata;
  }

  void set_metadata(const std::string& id, const Metadata& metadata) override {
    check_metadata(metadata);
    const std::string body = Json{{"metadata", metadata}}.dump();
    must(send_json("PUT", secret_url(id) + "/metadata", body),
         "the metadata of " + secret_words(id));
  }

  std::vector<Consumer> consumers(const std::string& id) override {
    std::vector<Consumer> consumers;
    while (consumers.size() < limits::kSecretConsumersMax) {
      net::HttpResponse response = get_json(
          fmt::format("{}/consumers?limit={}&offset={}", secret_url(id), kPage, consumers.size()));
      if (response.status == 404 && find(id)) return {};  // a Barbican that knows no consumers yet
      if (!is_good(response)) throw service_.refusal(response, secret_words(id));
      const Json json = service_.json(response);
      const Json& page = service_.array(json, "consumers");
      for (const Json& one : page) {
        if (!one.is_object()) service_.nonsense("a consumer that is none");
        consumers.push_back({.service = service_.text(one, "service"),
                             .resource_type = service_.text(one, "resource_type"),
                             .resource_id = service_.text(one, "resource_id")});
      }
      if (page.size() < kPage) break;
    }
    return consumers;
  }

  void add_consumer(const std::string& id, const Consumer& consumer) override {
    const net::HttpResponse response =
        send_json("POST", secret_url(id) + "/consumers", consumer_json(consumer).dump());
    if ((response.status == 404 && find(id)) || response.status == 405) {
      throw Error(Code::kUnsupported, fmt::format("{} has no consumers of secrets: it is older "
                                                  "than OpenStack Wallaby",
                                                  service_.name()));
    }
    must(response, secret_words(id));
  }

  void remove_consumer(const std::string& id, const Consumer& consumer) override {
    const net::HttpResponse response =
        send_json("DELETE", secret_url(id) + "/consumers", consumer_json(consumer).dump());
    if (response.status == 404 && find(id)) return;  // it was none
    must(response, secret_words(id));
  }

  void remove(const std::string& id, bool used_too) override {
    if (!used_too) refuse_used(id, consumers(id));
    // From 1.2 on Barbican looks by itself, and has to be told.
    const net::HttpResponse response =
        send({.method = "DELETE",
              .url = secret_url(id) + (used_too ? "?force=true" : ""),
              .headers = {},
              .token_header = {},
              .body = {}});
    must(response, secret_words(id));
  }

  AccessList access(const std::string& id) override {
    net::HttpResponse response = get_json(secret_url(id) + "/acl");
    if (!is_good(response)) throw service_.refusal(response, secret_words(id));
    const Json json = service_.json(response);
    const Json& read = service_.object(json, "read");
    AccessList access;
    const auto project = read.find("project-access");
    access.project_access = project == read.end() || !project->is_boolean() || project->get<bool>();
    for (const Json& user : service_.array(read, "users")) {
      if (!user.is_string()) service_.nonsense("a user that is no text");
      access.users.push_back(user);
    }
    return access;
  }

  void set_access(const std::string& id, const AccessList& access) override {
    const Json body = {
        {"read", {{"users", access.users}, {"project-access", access.project_access}}}};
    must(send_json("PUT", secret_url(id) + "/acl", body.dump()),
         "the access list of " + secret_words(id));
  }

 private:
  static std::string secret_url(const std::string& id) { return "/secrets/" + uuid_of(id); }
  static std::string secret_words(const std::string& id) {
    return fmt::format("secret '{}'", uuid_of(id));
  }

  std::string base() {
    if (endpoint_.empty() && keystone_) endpoint_ = keystone_->endpoint("key-manager");
    std::string url = endpoint_;
    while (url.ends_with('/')) url.pop_back();
    return url.ends_with("/v1") ? url : url + "/v1";
  }

  // `call.url` is below /v1. A token that is refused is renewed once.
  net::HttpResponse send(ServiceCall call) {
    const std::string path = std::exchange(call.url, {});
    call.url = base() + path;
    for (bool first = true;; first = false) {
      ServiceCall now = call;
      if (newer_) now.headers.emplace_back("OpenStack-API-Version", "key-manager 1.1");
      if (keystone_) {
        now.token_header = "X-Auth-Token";
        now.token = &keystone_->token();
      } else {
        now.headers.emplace_back("X-Project-Id", project_);
      }
      net::HttpResponse response = service_.send(now);
      if (response.status == 406 && newer_ && !known_) {
        newer_ = false;  // a Barbican that knows 1.0 only
        continue;
      }
      if (response.status != 406) known_ = true;
      if (response.status == 401 && first && keystone_ && keystone_->discard_token()) continue;
      return response;
    }
  }

  net::HttpResponse get_json(const std::string& path) {
    return send({.url = path,
                 .headers = {{"Accept", std::string(kJsonType)}},
                 .token_header = {},
                 .body = {}});
  }

  net::HttpResponse send_json(const std::string& method, const std::string& path,
                              const std::string& body) {
    return send(
        {.method = method,
         .url = path,
         .headers = {{"Content-Type", std::string(kJsonType)}, {"Accept", std::string(kJsonType)}},
         .token_header = {},
         .body = as_byte_view(body)});
  }

  void must(const net::HttpResponse& response, const std::string& what) const {
    if (!is_good(response)) throw service_.refusal(response, what);
  }

  // What must not be made twice: sent once. Where the answer is lost nobody knows whether it was
  // made, and `unknown` says what to do.
  std::string created(const std::string& method, const std::string& path, ByteView body,
                      const std::string& what, const char* reference, const std::string& unknown) {
    try {
      net::HttpResponse response = send({.method = method,
                                         .url = path,
                                         .headers = {{"Content-Type", std::string(kJsonType)},
                                                     {"Accept", std::string(kJsonType)}},
                                         .token_header = {},
                                         .body = body,
                                         .repeatable = false});
      if (!is_good(response)) throw service_.refusal(response, what);
      const Json json = service_.json(response);
      return uuid_in(json, reference);
    } catch (const Error& error) {
      const bool lost = error.code() == Code::kRemote || error.code() == Code::kTimeout ||
                        error.code() == Code::kInterrupted;
      if (!lost) throw;
      throw Error(error.code(), error.message(), unknown);
    }
  }

  std::string uuid_in(const Json& json, const char* reference) const {
    const std::string text = service_.text(json, reference);
    const std::size_t slash = text.find_last_of('/');
    std::string uuid = slash == std::string::npos ? text : text.substr(slash + 1);
    if (!is_uuid(uuid)) service_.nonsense(fmt::format("no ID in '{}'", reference));
    return uuid;
  }

  [[noreturn]] void undo(const std::string& uuid, const Error& reason) {
    try {
      remove(uuid, true);
    } catch (const Error& error) {
      throw Error(
          reason.code(), reason.message(),
          fmt::format("secret '{}' was stored and could not be removed again ({}): delete it", uuid,
                      error.message()));
    }
    throw Error(reason.code(), reason.message(), reason.hint());
  }

  std::string wait_for_order(const std::string& uuid) {
    const auto end =
        std::chrono::steady_clock::now() + std::chrono::seconds(limits::kKeyManagerWaitSeconds);
    while (true) {
      net::HttpResponse response = get_json("/orders/" + uuid);
      must(response, fmt::format("order '{}'", uuid));
      const Json json = service_.json(response);
      const std::string status = service_.text(json, "status");
      if (status == "ACTIVE") return uuid_in(json, "secret_ref");
      if (status == "ERROR") {
        throw Error(Code::kRemote,
                    fmt::format("{} could not make a key: {}", service_.name(),
                                printable(service_.text(json, "error_reason"), 200)),
                    fmt::format("its order '{}' is left there", uuid));
      }
      if (std::chrono::steady_clock::now() > end) {
        throw Error(Code::kTimeout, fmt::format("{} did not make a key in time", service_.name()),
                    fmt::format("order '{}' is left there and may still be served", uuid));
      }
      pause_ms(kPollMs, cancel_);
    }
  }

  SecretInfo info_of(const Json& json) const {
    if (!json.is_object()) service_.nonsense("a secret that is none");
    SecretInfo info{.id = uuid_in(json, "secret_ref"), .name = service_.text(json, "name")};
    try {
      info.type = parse_secret_type(service_.text(json, "secret_type"));
    } catch (const Error&) {
      info.type = SecretType::kOpaque;  // types that came later
    }
    info.algorithm = service_.text(json, "algorithm");
    const auto bits = service_.number(json, "bit_length");
    if (bits && *bits <= UINT32_MAX) info.bit_length = static_cast<std::uint32_t>(*bits);
    info.mode = service_.text(json, "mode");
    const std::string type = service_.text(service_.object(json, "content_types"), "default");
    if (type.starts_with("text/plain")) info.content_type = "text/plain";
    info.expires_s = parse_time(service_.text(json, "expiration"));
    info.created_s = parse_time(service_.text(json, "created")).value_or(0);
    return info;
  }

  std::string endpoint_;
  std::string project_;
  const CancelToken* cancel_;
  Service service_;
  std::optional<Keystone> keystone_;
  bool newer_ = true;   // ask for 1.1
  bool known_ = false;  // whether the server knows it
};

}  // namespace

std::unique_ptr<KeyManager> open_barbican(BarbicanSettings settings, Credentials credentials,
                                          const ServiceOptions& options) {
  return std::make_unique<Barbican>(std::move(settings), std::move(credentials), options);
}

}  // namespace lukskeep::keys
