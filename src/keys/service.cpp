#include "keys/service.h"

#include <algorithm>
#include <chrono>
#include <span>
#include <thread>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/limits.h"

namespace lukskeep::keys {
namespace {

constexpr unsigned kTries = 3;
constexpr std::uint32_t kTotalMs = limits::kKeyManagerWaitSeconds * 1000 / kTries;
constexpr std::uint32_t kStallSeconds = 10;

const Json kEmptyObject = Json::object();
const Json kEmptyArray = Json::array();

// What a service says of its refusal, in any of the forms of OpenStack and Vault.
std::string said(const net::HttpResponse& response) {
  try {
    const Json json = parse_json(as_string_view(response.body), "answer");
    const Json* found = nullptr;
    if (json.contains("description")) {
      found = &json["description"];
    } else if (json.contains("error") && json["error"].is_object() &&
               json["error"].contains("message")) {
      found = &json["error"]["message"];
    } else if (json.contains("errors") && json["errors"].is_array() && !json["errors"].empty()) {
      found = &json["errors"][0];
    }
    if (found != nullptr && found->is_string()) {
      std::string text = printable(found->get_ref<const std::string&>(), 200);
      while (text.ends_with('.')) text.pop_back();
      return text;
    }
  } catch (const std::exception&) {
    // HTML, most often, which says no more than the status.
    return {};
  }
  return {};
}

struct Meaning {
  Code code;
  std::string_view words;
  std::string_view hint;
};

Meaning meaning_of(long status) {
  switch (status) {
    case 400:
      return {Code::kInvalidArgument, "does not take", ""};
    case 401:
      return {Code::kPermissionDenied, "does not accept the credentials for",
              "they may be wrong, or their token has expired"};
    case 403:
      return {Code::kPermissionDenied, "does not allow access to", ""};
    case 404:
      return {Code::kNotFound, "has no", ""};
    case 409:
      return {Code::kConflict, "says there is a conflict about", ""};
    case 413:
      return {Code::kInvalidArgument, "finds too large", ""};
    case 429:
      return {Code::kRemote, "is asked too often; failed", "try again later"};
    default:
      return {Code::kRemote, "failed with", ""};
  }
}

}  // namespace

Service::Service(std::string name, const ServiceOptions& options)
    : name_(std::move(name)),
      cancel_(options.cancel),
      client_({.connect_ms = 5'000,
               .total_ms = kTotalMs,
               .stall_seconds = kStallSeconds,
               .response_bytes = limits::kKeyServiceBytesMax},
              options.cancel, options.tls) {}

net::HttpResponse Service::send(const ServiceCall& call) {
  const net::HttpRequest request{.method = call.method,
                                 .url = call.url,
                                 .headers = call.headers,
                                 .body = call.body,
                                 .secret_header = call.token_header,
                                 .secret_value = call.token,
                                 .aws = nullptr,
                                 .response_bytes = std::nullopt};
  if (!call.repeatable) return client_.send(request);
  return net::send_with_retries(client_, request, kTries, cancel_);
}

Error Service::refusal(const net::HttpResponse& response, std::string_view what) const {
  const Meaning meaning = meaning_of(response.status);
  const std::string words = said(response);
  return Error(meaning.code,
               fmt::format("{} {} {} (status {}{}{})", name_, meaning.words, what, response.status,
                           words.empty() ? "" : ": ", words),
               std::string(meaning.hint));
}

Json Service::json(net::HttpResponse& response) const {
  try {
    Json json = parse_json(as_string_view(response.body), name_);
    wipe(response.body);
    if (json.is_object()) return json;
  } catch (const Error&) {
    wipe(response.body);
  }
  nonsense("no JSON");
}

void Service::nonsense(std::string_view problem) const {
  throw Error(Code::kRemote, fmt::format("{} answers nonsense: {}", name_, problem),
              "is it the right address?");
}

std::string Service::text(const Json& object, const char* member) const {
  const auto found = object.find(member);
  if (found == object.end() || found->is_null()) return {};
  if (found->is_number_integer()) return found->dump();
  if (!found->is_string()) nonsense(fmt::format("'{}' is no text", member));
  return found->get<std::string>();
}

std::optional<std::uint64_t> Service::number(const Json& object, const char* member) const {
  const auto found = object.find(member);
  if (found == object.end() || found->is_null()) return std::nullopt;
  if (!found->is_number_unsigned()) nonsense(fmt::format("'{}' is no number", member));
  return found->get<std::uint64_t>();
}

const Json& Service::object(const Json& object, const char* member) const {
  const auto found = object.find(member);
  if (found == object.end() || found->is_null()) return kEmptyObject;
  if (!found->is_object()) nonsense(fmt::format("'{}' is no object", member));
  return *found;
}

const Json& Service::array(const Json& object, const char* member) const {
  const auto found = object.find(member);
  if (found == object.end() || found->is_null()) return kEmptyArray;
  if (!found->is_array()) nonsense(fmt::format("'{}' is no list", member));
  return *found;
}

bool is_good(const net::HttpResponse& response) noexcept {
  return response.status >= 200 && response.status < 300;
}

void wipe_json(Json& json) noexcept {
  if (json.is_string()) {
    wipe(std::as_writable_bytes(std::span(json.get_ref<std::string&>())));
  } else if (json.is_structured()) {
    for (Json& child : json) wipe_json(child);
  }
}

void pause_ms(unsigned milliseconds, const CancelToken* cancel) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
  while (std::chrono::steady_clock::now() < until) {
    if (cancel != nullptr) cancel->check();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace lukskeep::keys
