// Talking to a service over HTTP in JSON: what Barbican, Keystone and Vault have in common.
// Internal to keys.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lukskeep/error.h>
#include <lukskeep/progress.h>
#include <lukskeep/secret_bytes.h>

#include "base/json.h"
#include "net/http_client.h"

namespace lukskeep::keys {

struct ServiceOptions {
  net::TlsSettings tls;
  const CancelToken* cancel = nullptr;  // may be null
};

struct ServiceCall {
  std::string method = "GET";
  std::string url;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string token_header;
  const SecretBytes* token = nullptr;
  ByteView body;
  // Sent again after a failure that may pass. Not for what would then be made twice.
  bool repeatable = true;
};

class Service {
 public:
  // `name` is fit for messages: "the Barbican 'https://…'".
  Service(std::string name, const ServiceOptions& options);

  const std::string& name() const noexcept { return name_; }
  // Any status. Throws Error: kTimeout, kInterrupted, kRemote.
  net::HttpResponse send(const ServiceCall& call);
  // Says in the words of the house what a status above 299 means; `what` is what was asked for:
  // "secret 'x'".
  Error refusal(const net::HttpResponse& response, std::string_view what) const;
  // The body, which is wiped. Throws Error{kRemote} if it is not JSON.
  Json json(net::HttpResponse& response) const;
  // Throws Error{kRemote}.
  [[noreturn]] void nonsense(std::string_view problem) const;

  // Members of an object. Absent and null are the same; another type is nonsense().
  std::string text(const Json& object, const char* member) const;  // also a number, in decimal
  std::optional<std::uint64_t> number(const Json& object, const char* member) const;
  const Json& object(const Json& object, const char* member) const;  // empty if absent
  const Json& array(const Json& object, const char* member) const;   // empty if absent

 private:
  std::string name_;
  const CancelToken* cancel_;
  net::HttpClient client_;
};

bool is_good(const net::HttpResponse& response) noexcept;
// Overwrites every string within.
void wipe_json(Json& json) noexcept;
// Waits, looking at `cancel`.
void pause_ms(unsigned milliseconds, const CancelToken* cancel);

}  // namespace lukskeep::keys
