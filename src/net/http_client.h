// Requests over HTTP and HTTPS: one call, one answer, everything bounded. libcurl does the work; it
// is loaded when the first request needs it, so that programs that make none do not pay for it.
//
// An HttpClient keeps connections open and belongs to one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lukskeep/progress.h>
#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::net {

// AWS Signature Version 4, for object storage.
struct AwsCredentials {
  std::string access_key;
  SecretBytes secret_key;
  std::string region = "us-east-1";
};

struct HttpResponse;

struct HttpRequest {
  std::string method = "GET";
  std::string url;                                           // http: or https:, nothing else
  std::vector<std::pair<std::string, std::string>> headers;  // without line ends
  ByteView body;  // sent if it is not empty, or the method is PUT or POST
  // Instead of `body`: called before anything is sent; by send_alone() while the connection comes
  // about, where that can be. May throw.
  std::function<Bytes()> make_body;
  // One more header, whose value is wiped here; libcurl keeps a copy while the request runs.
  std::string secret_header;
  const SecretBytes* secret_value = nullptr;
  const AwsCredentials* aws = nullptr;        // signs for the service "s3"
  std::optional<std::size_t> response_bytes;  // instead of the client's limit

  // Instead of `body`, for what is large: fills all of `out` with what stands at the offset. May be
  // called for the same bytes again, and may throw.
  std::function<void(std::uint64_t offset_bytes, MutableBytes out)> read_body;
  std::uint64_t read_body_bytes = 0;
  // Gets the body of an answer with status 200 or 206 as it comes, without a limit, instead of
  // HttpResponse::body; the status and headers are known then. May throw.
  std::function<void(const HttpResponse& head, ByteView bytes)> take_body;
};

struct HttpResponse {
  long status = 0;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  Bytes body;

  // The first of that name, which is given in lower case.
  std::optional<std::string> header(std::string_view name) const;
};

struct HttpLimits {
  std::uint32_t connect_ms = 5'000;
  std::uint32_t total_ms = 60'000;   // 0: as long as bytes move
  std::uint32_t stall_seconds = 30;  // without a byte in either direction
  std::size_t response_bytes = std::size_t{1} << 20;
};

struct TlsSettings {
  bool verify = true;   // false: anybody may answer as the server; whoever sets it says so
  std::string ca_file;  // PEM, instead of the system's; empty: the system's
};

class HttpClient {
 public:
  explicit HttpClient(HttpLimits limits = {}, const CancelToken* cancel = nullptr,
                      TlsSettings tls = {});
  ~HttpClient();
  HttpClient(HttpClient&&) noexcept;
  HttpClient& operator=(HttpClient&&) noexcept;

  // Any status is an answer; redirects are answers too, and are not followed. Certificates are
  // verified unless TlsSettings says otherwise. A body is wiped where it is moved from, so whoever
  // gets a secret in it need only wipe the one that is returned. Throws Error: kTimeout,
  // kInterrupted, kRemote (no connection, a certificate that is not good, an answer that is too
  // large or broken), kUnsupported (libcurl is not installed), each naming the host.
  HttpResponse send(const HttpRequest& request);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// One request on a connection of its own, as HttpClient::send: quicker where plain HTTP will do.
// `limits.total_ms` is not 0.
HttpResponse send_alone(const HttpRequest& request, const HttpLimits& limits,
                        const CancelToken* cancel = nullptr, const TlsSettings& tls = {});

// Calls `send` with a request whose body is made.
HttpResponse send_made(const HttpRequest& request,
                       const std::function<HttpResponse(const HttpRequest&)>& send);

// Sends until the answer is neither a timeout, a broken connection, 429 nor 5xx but 501, at most
// `tries` times, with pauses that grow and differ. The last failure is thrown or returned. For
// requests that may be repeated.
HttpResponse send_with_retries(HttpClient& client, const HttpRequest& request, unsigned tries,
                               const CancelToken* cancel = nullptr);

// "https://host:port", for messages: a path or query may hold what is nobody's business.
std::string origin_of(std::string_view url);

// Throws Error{kInvalidArgument} if a header has a line end or a colon where it must not.
void check_headers(const HttpRequest& request);

// Letters, digits and -._~ as they are, the rest as %XX (RFC 3986 §2.1). `keep_slash`: "/" too.
std::string percent_encode(std::string_view text, bool keep_slash = false);

}  // namespace lukskeep::net
