#include "net/http_client.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <random>
#include <span>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "net/curl_library.h"
#include "net/plain_exchange.h"

namespace lukskeep::net {
namespace {

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; });
  return result;
}

std::string_view trimmed(std::string_view text) {
  const std::size_t start = text.find_first_not_of(" \t\r\n");
  if (start == std::string_view::npos) return {};
  return text.substr(start, text.find_last_not_of(" \t\r\n") - start + 1);
}

constexpr long kTransferBufferBytes = 512L * 1024;

// What arrives, with bounds that the other side cannot move.
struct Receiver {
  HttpResponse response;
  std::size_t body_bytes_max = 0;
  std::size_t header_bytes = 0;
  bool too_large = false;
  const CancelToken* cancel = nullptr;
  const HttpRequest* request = nullptr;
  std::exception_ptr thrown;  // by a callback of the request: libcurl is C
};

std::size_t on_body(char* data, std::size_t unit, std::size_t count, void* user) {
  auto& receiver = *static_cast<Receiver*>(user);
  const std::size_t size = unit * count;
  const long status = receiver.response.status;
  if (receiver.request->take_body && (status == 200 || status == 206)) {
    try {
      receiver.request->take_body(receiver.response, std::as_bytes(std::span(data, size)));
      return size;
    } catch (...) {
      receiver.thrown = std::current_exception();
      return 0;
    }
  }
  if (size > receiver.body_bytes_max - receiver.response.body.size()) {
    receiver.too_large = true;
    return 0;
  }
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  Bytes& body = receiver.response.body;
  if (body.capacity() < body.size() + size) {
    // What is left behind is wiped: it may hold a secret.
    Bytes larger;
    larger.reserve(std::min(receiver.body_bytes_max, 2 * (body.size() + size)));
    larger.assign(body.begin(), body.end());
    wipe(body);
    body = std::move(larger);
  }
  receiver.response.body.insert(receiver.response.body.end(), bytes, bytes + size);
  return size;
}

// Of "HTTP/1.1 206 Partial Content"; libcurl has refused what is none.
long status_of(std::string_view line) {
  const std::size_t space = line.find(' ');
  long status = 0;
  if (space == std::string_view::npos) return status;
  std::from_chars(line.data() + space + 1, line.data() + line.size(), status);
  return status;
}

std::size_t on_header(char* data, std::size_t unit, std::size_t count, void* user) {
  auto& receiver = *static_cast<Receiver*>(user);
  const std::size_t size = unit * count;
  receiver.header_bytes += size;
  if (receiver.header_bytes > limits::kHttpHeaderBytesMax) {
    receiver.too_large = true;
    return 0;
  }
  const std::string_view line(data, size);
  const std::size_t colon = line.find(':');
  if (line.starts_with("HTTP/")) {
    receiver.response.headers.clear();  // of an interim answer
    receiver.response.status = status_of(line);
  } else if (colon != std::string_view::npos) {
    receiver.response.headers.emplace_back(lower(trimmed(line.substr(0, colon))),
                                           std::string(trimmed(line.substr(colon + 1))));
  }
  return size;
}

int on_progress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const auto& receiver = *static_cast<const Receiver*>(user);
  return receiver.cancel != nullptr && receiver.cancel->cancelled() ? 1 : 0;
}

struct Upload {
  const HttpRequest& request;
  Receiver& receiver;
  std::uint64_t at = 0;

  std::uint64_t size() const {
    return request.read_body ? request.read_body_bytes : request.body.size();
  }
};

// From the start again: a connection that was kept open may turn out to be closed.
int on_seek(void* user, curl_off_t offset, int origin) {
  auto& upload = *static_cast<Upload*>(user);
  if (origin != SEEK_SET || offset < 0 || std::cmp_greater(offset, upload.size())) {
    return CURL_SEEKFUNC_FAIL;
  }
  upload.at = static_cast<std::uint64_t>(offset);
  return CURL_SEEKFUNC_OK;
}

std::size_t on_upload(char* out, std::size_t unit, std::size_t count, void* user) {
  auto& upload = *static_cast<Upload*>(user);
  const auto size =
      static_cast<std::size_t>(std::min<std::uint64_t>(unit * count, upload.size() - upload.at));
  if (size == 0) return 0;
  if (!upload.request.read_body) {
    std::memcpy(out, upload.request.body.data() + upload.at, size);
  } else {
    try {
      upload.request.read_body(upload.at, std::as_writable_bytes(std::span(out, size)));
    } catch (...) {
      upload.receiver.thrown = std::current_exception();
      return CURL_READFUNC_ABORT;
    }
  }
  upload.at += size;
  return size;
}

}  // namespace

std::string origin_of(std::string_view url) {
  const std::size_t start = url.find("://");
  if (start == std::string_view::npos) return printable(url, 64);
  std::string_view host = url.substr(start + 3);
  host = host.substr(0, host.find_first_of("/?#"));
  host = host.substr(host.find('@') == std::string_view::npos ? 0 : host.find('@') + 1);
  return printable(fmt::format("{}://{}", url.substr(0, start), host), 256);
}

void check_headers(const HttpRequest& request) {
  if (request.secret_value != nullptr &&
      as_string_view(request.secret_value->span()).find_first_of(std::string_view("\r\n\0", 3)) !=
          std::string_view::npos) {
    throw Error(Code::kInvalidArgument,
                fmt::format("the {} is no value of a header", request.secret_header));
  }
  for (const auto& [name, value] : request.headers) {
    if (name.find_first_of("\r\n:") != std::string::npos ||
        value.find_first_of("\r\n") != std::string::npos) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("'{}' is no header of a request", printable(name)));
    }
  }
}

std::optional<std::string> HttpResponse::header(std::string_view name) const {
  const auto found = std::ranges::find(headers, name, [](const auto& pair) { return pair.first; });
  if (found == headers.end()) return std::nullopt;
  return found->second;
}

struct HttpClient::State {
  HttpLimits limits;
  const CancelToken* cancel = nullptr;
  TlsSettings tls;
  const CurlLibrary* curl = nullptr;
  CURL* handle = nullptr;
  CURLM* multi = nullptr;  // keeps the connections

  State(const HttpLimits& wanted, const CancelToken* token, TlsSettings settings)
      : limits(wanted), cancel(token), tls(std::move(settings)) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (handle != nullptr) curl->easy_cleanup(handle);
    if (multi != nullptr) curl->multi_cleanup(multi);
  }

  void open() {
    if (handle != nullptr) return curl->easy_reset(handle);
    curl = &curl_library();
    handle = curl->easy_init();
    multi = curl->multi_init();
    if (handle == nullptr || multi == nullptr) throw Error(Code::kOutOfMemory, "out of memory");
  }

  // As curl_easy_perform, which looks at the cancel token only once a second while nothing moves.
  CURLcode perform() const {
    constexpr int poll_ms = 10;
    constexpr int poll_uncancelled_ms = 1000;
    if (curl->multi_add_handle(multi, handle) != CURLM_OK) return CURLE_FAILED_INIT;
    CURLcode result = CURLE_FAILED_INIT;
    int running = 1;
    while (curl->multi_perform(multi, &running) == CURLM_OK && running != 0) {
      if (cancel != nullptr && cancel->cancelled()) {
        result = CURLE_ABORTED_BY_CALLBACK;
        break;
      }
      const int wait_ms = cancel != nullptr ? poll_ms : poll_uncancelled_ms;
      if (curl->multi_poll(multi, nullptr, 0, wait_ms, nullptr) != CURLM_OK) break;
    }
    int left = 0;
    if (const CURLMsg* done = curl->multi_info_read(multi, &left)) result = done->data.result;
    curl->multi_remove_handle(multi, handle);
    return result;
  }

  template <typename Value>
  void set(CURLoption option, Value value) const {
    const CURLcode code = curl->easy_setopt(handle, option, value);
    if (code != CURLE_OK) {
      throw Error(Code::kUnsupported, fmt::format("libcurl: {}", curl->easy_strerror(code)),
                  "install a newer libcurl4");
    }
  }

  void set_common(const HttpRequest& request, Receiver& receiver) const {
    set(CURLOPT_URL, request.url.c_str());
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_FOLLOWLOCATION, 0L);
    set(CURLOPT_NOSIGNAL, 1L);
    // A name server that hangs is not waited for, once the time is up.
    set(CURLOPT_QUICK_EXIT, 1L);
    set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(limits.connect_ms));
    set(CURLOPT_TIMEOUT_MS, static_cast<long>(limits.total_ms));
    set(CURLOPT_LOW_SPEED_LIMIT, 1L);
    set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(limits.stall_seconds));
    // Names of objects are no paths: "a/../b" is one.
    set(CURLOPT_PATH_AS_IS, 1L);
    set(CURLOPT_USERAGENT, "lukskeep");
    set(CURLOPT_WRITEFUNCTION, &on_body);
    set(CURLOPT_WRITEDATA, &receiver);
    set(CURLOPT_HEADERFUNCTION, &on_header);
    set(CURLOPT_HEADERDATA, &receiver);
    set(CURLOPT_NOPROGRESS, 0L);
    set(CURLOPT_XFERINFOFUNCTION, &on_progress);
    set(CURLOPT_XFERINFODATA, &receiver);
    if (!tls.verify) {
      set(CURLOPT_SSL_VERIFYPEER, 0L);
      set(CURLOPT_SSL_VERIFYHOST, 0L);
    }
    if (!tls.ca_file.empty()) {
      set(CURLOPT_CAINFO, tls.ca_file.c_str());
      set(CURLOPT_CAPATH, static_cast<const char*>(nullptr));
    }
  }

  void set_method(const HttpRequest& request, Upload& upload) const {
    if (request.method == "HEAD") {
      set(CURLOPT_NOBODY, 1L);
    } else if (request.method == "PUT" || request.method == "POST" || upload.size() != 0) {
      set(CURLOPT_UPLOAD, 1L);
      set(CURLOPT_READFUNCTION, &on_upload);
      set(CURLOPT_READDATA, &upload);
      set(CURLOPT_SEEKFUNCTION, &on_seek);
      set(CURLOPT_SEEKDATA, &upload);
      set(CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(upload.size()));
      set(CURLOPT_CUSTOMREQUEST, request.method.c_str());
    } else {
      set(CURLOPT_CUSTOMREQUEST, request.method.c_str());
    }
  }

  // libcurl keeps copies of user name and password, which it does not wipe.
  void set_aws(const AwsCredentials& aws) const {
    set(CURLOPT_AWS_SIGV4, fmt::format("aws:amz:{}:s3", aws.region).c_str());
    set(CURLOPT_USERNAME, aws.access_key.c_str());
    SecretBytes password(aws.secret_key.size() + 1);
    std::ranges::copy(aws.secret_key.span(), password.span().begin());
    set(CURLOPT_PASSWORD, reinterpret_cast<const char*>(password.span().data()));
  }

  [[noreturn]] void fail(CURLcode code, const Receiver& receiver, std::string_view url) const {
    const std::string origin = origin_of(url);
    if (receiver.thrown) std::rethrow_exception(receiver.thrown);
    if (receiver.cancel != nullptr) receiver.cancel->check();
    if (receiver.too_large) {
      throw Error(Code::kRemote, fmt::format("'{}' answers more than it may", origin));
    }
    if (code == CURLE_OPERATION_TIMEDOUT) {
      throw Error(Code::kTimeout, fmt::format("'{}' did not answer in time", origin));
    }
    // Neither is a server that is down, which would be tried again, or left for later.
    if (code == CURLE_SSL_CACERT_BADFILE) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("'{}': {} ('{}')", origin, curl->easy_strerror(code),
                              printable(tls.ca_file.empty() ? "the system's" : tls.ca_file, 256)),
                  "certificates that vouch for servers are a file in PEM that can be read");
    }
    if (code == CURLE_PEER_FAILED_VERIFICATION) {
      throw Error(
          Code::kUnsafe, fmt::format("'{}': {}", origin, curl->easy_strerror(code)),
          "its certificate is over, for another name, or nobody who is trusted vouches for it");
    }
    throw Error(Code::kRemote, fmt::format("'{}': {}", origin, curl->easy_strerror(code)));
  }
};

HttpClient::HttpClient(HttpLimits limits, const CancelToken* cancel, TlsSettings tls)
    : state_(std::make_unique<State>(limits, cancel, std::move(tls))) {}
HttpClient::~HttpClient() = default;
HttpClient::HttpClient(HttpClient&&) noexcept = default;
HttpClient& HttpClient::operator=(HttpClient&&) noexcept = default;

HttpResponse HttpClient::send(const HttpRequest& request) {
  if (request.make_body) {
    return send_made(request, [this](const HttpRequest& made) { return send(made); });
  }
  check_headers(request);
  state_->open();
  Receiver receiver{
      .body_bytes_max = request.response_bytes.value_or(state_->limits.response_bytes),
      .cancel = state_->cancel,
      .request = &request};
  Upload upload{.request = request, .receiver = receiver};
  state_->set_common(request, receiver);
  state_->set_method(request, upload);
  if (request.aws != nullptr) state_->set_aws(*request.aws);
  struct FreeList {
    const CurlLibrary* curl;
    void operator()(curl_slist* list) const noexcept { curl->slist_free_all(list); }
  };
  std::unique_ptr<curl_slist, FreeList> list(nullptr, FreeList{state_->curl});
  const auto add = [&](const std::string& line) {
    curl_slist* longer = state_->curl->slist_append(list.get(), line.c_str());
    if (longer == nullptr) throw Error(Code::kOutOfMemory, "out of memory");
    [[maybe_unused]] const curl_slist* shorter = list.release();  // it is part of the longer one
    list.reset(longer);
  };
  // No pause before a body; but libcurl 7.88 signs this header, which it does not send.
  if (request.aws == nullptr) add("Expect:");
  for (const auto& [name, value] : request.headers) add(fmt::format("{}: {}", name, value));
  if (request.secret_value != nullptr) {
    std::string line =
        fmt::format("{}: {}", request.secret_header, as_string_view(request.secret_value->span()));
    add(line);
    wipe(std::as_writable_bytes(std::span(line)));
  }
  state_->set(CURLOPT_HTTPHEADER, list.get());
  // Buffers of libcurl's own size make a large transfer wait for each of them.
  if (request.read_body) state_->set(CURLOPT_UPLOAD_BUFFERSIZE, kTransferBufferBytes);
  if (request.take_body) state_->set(CURLOPT_BUFFERSIZE, kTransferBufferBytes);
  const CURLcode code = state_->perform();
  // Who refuses a body need not read it: what it said before it hung up counts.
  const bool refused = code == CURLE_SEND_ERROR && receiver.response.status >= 400;
  if (code != CURLE_OK && !refused) state_->fail(code, receiver, request.url);
  state_->curl->easy_getinfo(state_->handle, CURLINFO_RESPONSE_CODE, &receiver.response.status);
  return std::move(receiver.response);
}

HttpResponse send_alone(const HttpRequest& request, const HttpLimits& limits,
                        const CancelToken* cancel, const TlsSettings& tls) {
  check_headers(request);
  const auto start = std::chrono::steady_clock::now();
  if (auto response = exchange_plainly(request, limits, cancel)) return std::move(*response);
  // Looking the name up may have taken its time.
  const auto gone_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                           std::chrono::steady_clock::now() - start)
                           .count();
  HttpLimits rest = limits;
  rest.total_ms = static_cast<std::uint32_t>(
      std::max<std::int64_t>(1, std::int64_t{limits.total_ms} - gone_ms));
  rest.connect_ms = std::min(rest.connect_ms, rest.total_ms);
  return HttpClient(rest, cancel, tls).send(request);
}

HttpResponse send_made(const HttpRequest& request,
                       const std::function<HttpResponse(const HttpRequest&)>& send) {
  if (!request.make_body) return send(request);
  const Bytes body = request.make_body();
  HttpRequest made = request;
  made.make_body = nullptr;
  made.body = body;
  return send(made);
}

HttpResponse send_with_retries(HttpClient& client, const HttpRequest& request, unsigned tries,
                               const CancelToken* cancel) {
  std::minstd_rand random{std::random_device{}()};
  for (unsigned attempt = 1;; ++attempt) {
    try {
      HttpResponse response = client.send(request);
      const bool passing =
          (response.status >= 500 && response.status != 501) || response.status == 429;
      if (!passing || attempt >= tries) return response;
    } catch (const Error& error) {
      const bool passing = error.code() == Code::kRemote || error.code() == Code::kTimeout;
      if (!passing || attempt >= tries) throw;
    }
    // Half of the pause is chance: many that failed together do not come back together.
    const unsigned pause_ms = 100U << std::min(attempt, 6U);
    const auto until = std::chrono::steady_clock::now() +
                       std::chrono::milliseconds(pause_ms / 2 + random() % pause_ms);
    while (std::chrono::steady_clock::now() < until) {
      if (cancel != nullptr) cancel->check();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
}

std::string percent_encode(std::string_view text, bool keep_slash) {
  std::string result;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                       c == '-' || c == '.' || c == '_' || c == '~' || (keep_slash && c == '/');
    result += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return result;
}

}  // namespace lukskeep::net
