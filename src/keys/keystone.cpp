#include "keys/keystone.h"

#include <utility>

#include <fmt/format.h>

#include "base/bytes.h"
#include "keys/key_manager.h"
#include "keys/secret_text.h"

namespace lukskeep::keys {
namespace {

constexpr std::chrono::seconds kSpare{30};
// Of a token that does not say how long it lives.
constexpr std::chrono::seconds kLifeDefault{300};

std::string url_of(const Credentials& credentials) {
  credentials.need("OS_AUTH_URL");
  std::string url = credentials.text("OS_AUTH_URL");
  while (url.ends_with('/')) url.pop_back();
  if (!url.ends_with("/v3")) url += "/v3";
  return url;
}

// {"id":…} or {"name":…}, of a variable whose name goes on with _ID or _NAME.
void add_reference(SecretText& json, const Credentials& credentials, std::string_view variable,
                   std::string_view fallback) {
  const std::string id = credentials.text(fmt::format("{}_ID", variable));
  const std::string name = credentials.text(fmt::format("{}_NAME", variable));
  if (id.empty() && !name.empty()) {
    json.add("{\"name\":").add_json(name).add("}");
  } else {
    json.add("{\"id\":").add_json(id.empty() ? fallback : std::string_view(id)).add("}");
  }
}

void add_user(SecretText& json, const Credentials& credentials) {
  if (credentials.find("OS_USER_ID") != nullptr) {
    json.add("\"id\":").add_json(credentials.text("OS_USER_ID"));
    return;
  }
  credentials.need("OS_USERNAME");
  json.add("\"name\":").add_json(credentials.text("OS_USERNAME")).add(",\"domain\":");
  add_reference(json, credentials, "OS_USER_DOMAIN", "default");
}

void add_application_credential(SecretText& json, const Credentials& credentials) {
  json.add(R"("methods":["application_credential"],"application_credential":{)");
  if (credentials.find("OS_APPLICATION_CREDENTIAL_ID") != nullptr) {
    json.add("\"id\":").add_json(credentials.text("OS_APPLICATION_CREDENTIAL_ID"));
  } else {
    json.add("\"name\":").add_json(credentials.text("OS_APPLICATION_CREDENTIAL_NAME"));
    json.add(",\"user\":{");
    add_user(json, credentials);
    json.add("}");
  }
  json.add(",\"secret\":")
      .add_json(as_string_view(credentials.need("OS_APPLICATION_CREDENTIAL_SECRET").span()))
      .add("}}");
}

bool has_application_credential(const Credentials& credentials) {
  return credentials.find("OS_APPLICATION_CREDENTIAL_ID") != nullptr ||
         credentials.find("OS_APPLICATION_CREDENTIAL_NAME") != nullptr;
}

void add_password(SecretText& json, const Credentials& credentials) {
  json.add(R"("methods":["password"],"password":{"user":{)");
  add_user(json, credentials);
  json.add(",\"password\":")
      .add_json(as_string_view(credentials.need("OS_PASSWORD").span()))
      .add(R"(}}},"scope":{"project":{)");
  if (credentials.find("OS_PROJECT_ID") != nullptr) {
    json.add("\"id\":").add_json(credentials.text("OS_PROJECT_ID"));
  } else {
    credentials.need("OS_PROJECT_NAME");
    json.add("\"name\":").add_json(credentials.text("OS_PROJECT_NAME")).add(",\"domain\":");
    add_reference(json, credentials, "OS_PROJECT_DOMAIN", "default");
  }
  json.add("}}");
}

}  // namespace

Keystone::Keystone(Credentials credentials, const ServiceOptions& options)
    : credentials_(std::move(credentials)),
      service_(fmt::format("the Keystone '{}'", printable(url_of(credentials_), 256)), options),
      url_(url_of(credentials_)) {
  if (const SecretBytes* given = credentials_.find("OS_TOKEN");
      given != nullptr && !has_application_credential(credentials_) &&
      credentials_.find("OS_PASSWORD") == nullptr) {
    token_ = given->clone();
    good_until_ = Clock::time_point::max();
  } else if (!has_application_credential(credentials_)) {
    credentials_.need("OS_PASSWORD");
  }
}

const SecretBytes& Keystone::token() {
  if (token_.empty() || Clock::now() + kSpare > good_until_) log_in();
  return token_;
}

bool Keystone::discard_token() {
  if (good_until_ == Clock::time_point::max()) return false;
  token_ = {};
  return true;
}

void Keystone::log_in() {
  SecretText body;
  body.add(R"({"auth":{"identity":{)");
  if (has_application_credential(credentials_)) {
    add_application_credential(body, credentials_);
  } else {
    add_password(body, credentials_);
  }
  body.add("}}");
  net::HttpResponse response = service_.send({.method = "POST",
                                              .url = url_ + "/auth/tokens",
                                              .headers = {{"Content-Type", "application/json"}},
                                              .token_header = {},
                                              .body = body.view()});
  if (!is_good(response)) throw service_.refusal(response, "a token");
  read_token(response);
}

void Keystone::read_token(net::HttpResponse& response) {
  const Json json = service_.json(response);
  const Json& token = service_.object(json, "token");
  bool found = false;
  for (auto& [name, value] : response.headers) {
    if (name != "x-subject-token" || value.empty()) continue;
    token_ = SecretBytes(as_byte_view(value));
    wipe(std::as_writable_bytes(std::span(value)));
    found = true;
  }
  if (!found) service_.nonsense("no token");
  catalogue_ = service_.array(token, "catalog");
  // By its own clock, which need not be ours.
  const auto issued = parse_time(service_.text(token, "issued_at"));
  const auto expires = parse_time(service_.text(token, "expires_at"));
  const bool told = issued && expires && *expires > *issued && *expires - *issued < 100'000'000;
  good_until_ = Clock::now() + (told ? std::chrono::seconds(*expires - *issued) : kLifeDefault);
}

void Keystone::fetch_catalogue() {
  net::HttpResponse response = service_.send({.url = url_ + "/auth/catalog",
                                              .headers = {},
                                              .token_header = "X-Auth-Token",
                                              .token = &token(),
                                              .body = {}});
  if (!is_good(response)) throw service_.refusal(response, "a catalogue of services");
  const Json json = service_.json(response);
  catalogue_ = service_.array(json, "catalog");
}

std::string Keystone::endpoint(std::string_view type) {
  token();
  if (catalogue_.is_null()) fetch_catalogue();
  const std::string wanted =
      credentials_.text("OS_INTERFACE").empty() ? "public" : credentials_.text("OS_INTERFACE");
  const std::string region = credentials_.text("OS_REGION_NAME");
  for (const Json& entry : catalogue_) {
    if (!entry.is_object() || service_.text(entry, "type") != type) continue;
    for (const Json& endpoint : service_.array(entry, "endpoints")) {
      if (!endpoint.is_object() || service_.text(endpoint, "interface") != wanted) continue;
      if (!region.empty() && service_.text(endpoint, "region_id") != region &&
          service_.text(endpoint, "region") != region) {
        continue;
      }
      std::string url = service_.text(endpoint, "url");
      while (url.ends_with('/')) url.pop_back();
      return url;
    }
  }
  throw Error(Code::kNotFound,
              fmt::format("{} lists no {} {} service{}", service_.name(), wanted, type,
                          region.empty() ? "" : fmt::format(" in region '{}'", printable(region))),
              "name its address, e.g. barbican:https://HOST:9311, or set OS_INTERFACE, "
              "OS_REGION_NAME");
}

}  // namespace lukskeep::keys
