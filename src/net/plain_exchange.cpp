#include "net/plain_exchange.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <future>
#include <memory>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include <netdb.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/span_body.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"

namespace lukskeep::net {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using ErrorCode = boost::system::error_code;
using Clock = std::chrono::steady_clock;
using Endpoint = asio::ip::tcp::endpoint;
using std::chrono::milliseconds;

// How often the cancel token is looked at.
constexpr milliseconds kPoll{10};
constexpr unsigned kInterimAnswersMax = 8;

struct PlainUrl {
  std::string host;  // as the Host header has it, without the port
  std::uint16_t port = 80;
  std::string target;
};

bool is_plain_host(std::string_view host) {
  return !host.empty() && std::ranges::all_of(host, [](unsigned char c) {
    return c < 0x80 && (std::isalnum(c) != 0 || c == '.' || c == '-');
  });
}

bool is_plain_target(std::string_view target) {
  return std::ranges::all_of(target, [](char c) { return c > ' ' && c < 0x7f && c != '#'; });
}

std::optional<PlainUrl> parse_plain_url(std::string_view url) {
  constexpr std::string_view scheme = "http://";
  if (!url.starts_with(scheme)) return std::nullopt;
  url.remove_prefix(scheme.size());
  const std::size_t end = std::min(url.find('/'), url.size());
  std::string_view authority = url.substr(0, end);
  PlainUrl result{.host = {}, .target = std::string(url.substr(end))};
  if (result.target.empty()) result.target = "/";
  if (const std::size_t colon = authority.find(':'); colon != std::string_view::npos) {
    const std::string_view port = authority.substr(colon + 1);
    const auto [rest, error] = std::from_chars(port.data(), port.data() + port.size(), result.port);
    if (error != std::errc{} || rest != port.data() + port.size()) return std::nullopt;
    authority = authority.substr(0, colon);
  }
  result.host = authority;
  if (!is_plain_host(result.host) || !is_plain_target(result.target)) return std::nullopt;
  return result;
}

bool has_proxy() {
  return std::ranges::any_of(std::array{"http_proxy", "all_proxy", "ALL_PROXY"},
                             [](const char* name) {
                               const char* value = std::getenv(name);
                               return value != nullptr && *value != '\0';
                             });
}

bool wants_more(const HttpRequest& request) {
  return request.aws != nullptr || request.secret_value != nullptr || request.read_body ||
         request.take_body;
}

std::vector<Endpoint> look_up(const PlainUrl& url) {
  const addrinfo wanted{
      .ai_flags = AI_ADDRCONFIG, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  addrinfo* list = nullptr;
  std::vector<Endpoint> found;
  if (getaddrinfo(url.host.c_str(), nullptr, &wanted, &list) != 0) return found;
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(list, &freeaddrinfo);
  for (const addrinfo* one = list; one != nullptr; one = one->ai_next) {
    Endpoint endpoint;
    if (one->ai_addrlen > endpoint.capacity()) continue;
    endpoint.resize(one->ai_addrlen);
    std::memcpy(endpoint.data(), one->ai_addr, one->ai_addrlen);
    endpoint.port(url.port);
    found.push_back(endpoint);
  }
  return found;
}

class Exchange {
 public:
  Exchange(const HttpRequest& request, const HttpLimits& limits, const CancelToken* cancel)
      : request_(request),
        limits_(limits),
        cancel_(cancel),
        deadline_(Clock::now() + milliseconds(limits.total_ms)) {}

  // The one address of the name, if it has just one.
  std::optional<Endpoint> resolve(const PlainUrl& url) const {
    ErrorCode error;
    const auto address = asio::ip::make_address_v4(url.host, error);
    if (!error) return Endpoint(address, url.port);
    // A name server that hangs is not waited for, once the time is up: the thread stays behind.
    std::packaged_task<std::vector<Endpoint>()> task([url] { return look_up(url); });
    std::future<std::vector<Endpoint>> future = task.get_future();
    try {
      std::thread(std::move(task)).detach();
    } catch (const std::system_error&) {
      throw_remote("no thread could be started to look it up");
    }
    while (future.wait_for(kPoll) != std::future_status::ready) {
      if (cancel_ != nullptr) cancel_->check();
      if (Clock::now() >= deadline_) throw_timeout();
    }
    const std::vector<Endpoint> found = future.get();
    if (found.size() != 1) return std::nullopt;
    return found.front();
  }

  HttpResponse run(const PlainUrl& url, const Endpoint& endpoint) {
    stream_.expires_at(std::min(deadline_, Clock::now() + milliseconds(limits_.connect_ms)));
    Bytes made;
    wait([&](auto done) { stream_.async_connect(endpoint, done); },
         [&] {
           if (request_.make_body) made = request_.make_body();
         });
    stream_.expires_at(deadline_);
    const auto message = message_to(url, request_.make_body ? ByteView(made) : request_.body);
    wait([&](auto done) { http::async_write(stream_, message, done); });
    for (unsigned count = 0; count <= kInterimAnswersMax; ++count) {
      if (std::optional<HttpResponse> answer = read_answer()) return std::move(*answer);
    }
    throw_remote("too many interim answers");
  }

 private:
  using Message = http::request<http::span_body<const char>>;
  using Parser = http::response_parser<http::string_body>;

  Message message_to(const PlainUrl& url, ByteView content) const {
    const std::string_view body = as_string_view(content);
    Message message;
    message.method_string(request_.method);
    message.target(url.target);
    message.version(11);
    message.set(http::field::host,
                url.port == 80 ? url.host : fmt::format("{}:{}", url.host, url.port));
    message.set(http::field::user_agent, "lukskeep");
    message.set(http::field::accept, "*/*");
    for (const auto& [name, value] : request_.headers) message.insert(name, value);
    message.body() = {body.data(), body.size()};
    if (!body.empty() || request_.method == "PUT" || request_.method == "POST") {
      message.content_length(body.size());
    }
    return message;
  }

  // Nothing if it was an interim one.
  std::optional<HttpResponse> read_answer() {
    Parser parser;
    parser.header_limit(limits::kHttpHeaderBytesMax);
    parser.body_limit(request_.response_bytes.value_or(limits_.response_bytes));
    parser.skip(request_.method == "HEAD");
    wait([&](auto done) { http::async_read(stream_, buffer_, parser, done); });
    const Parser::value_type answer = parser.release();
    if (answer.result_int() < 200) return std::nullopt;
    HttpResponse response{
        .status = static_cast<long>(answer.result_int()), .headers = {}, .body = {}};
    for (const auto& field : answer) {
      std::string name(field.name_string());
      std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
      response.headers.emplace_back(std::move(name), field.value());
    }
    const ByteView body = as_byte_view(answer.body());
    response.body.assign(body.begin(), body.end());
    return response;
  }

  // Runs what `start` begins to its end, and `meanwhile` before. Throws Error: kTimeout, kRemote,
  // kInterrupted, what `meanwhile` throws.
  template <typename Start, typename Meanwhile = void (*)()>
  void wait(Start start, Meanwhile meanwhile = [] {}) {
    const auto result = std::make_shared<std::optional<ErrorCode>>();
    start([result](ErrorCode error, auto&&...) { *result = error; });
    meanwhile();
    while (!*result) {
      if (cancel_ != nullptr) cancel_->check();
      io_.restart();
      io_.run_one_for(kPoll);
    }
    const ErrorCode error = result->value_or(ErrorCode{});
    if (error == beast::error::timeout) throw_timeout();
    if (error == http::error::body_limit || error == http::error::header_limit ||
        error == http::error::buffer_overflow) {
      throw Error(Code::kRemote,
                  fmt::format("'{}' answers more than it may", origin_of(request_.url)));
    }
    if (error) throw_remote(error.message());
  }

  [[noreturn]] void throw_timeout() const {
    throw Error(Code::kTimeout,
                fmt::format("'{}' did not answer in time", origin_of(request_.url)));
  }
  [[noreturn]] void throw_remote(std::string_view what) const {
    throw Error(Code::kRemote, fmt::format("'{}': {}", origin_of(request_.url), what));
  }

  const HttpRequest& request_;
  const HttpLimits& limits_;
  const CancelToken* cancel_;
  Clock::time_point deadline_;
  asio::io_context io_{1};
  beast::tcp_stream stream_{io_};
  // Beast bounds neither the extensions of chunks nor trailers: they are kept whole, as headers
  // are.
  beast::flat_buffer buffer_{limits::kHttpHeaderBytesMax + 64 * limits::kKiB};
};

}  // namespace

std::optional<HttpResponse> exchange_plainly(const HttpRequest& request, const HttpLimits& limits,
                                             const CancelToken* cancel) {
  const std::optional<PlainUrl> url = parse_plain_url(request.url);
  if (!url || wants_more(request) || has_proxy()) return std::nullopt;
  Exchange exchange(request, limits, cancel);
  const std::optional<Endpoint> endpoint = exchange.resolve(*url);
  if (!endpoint) return std::nullopt;
  return exchange.run(*url, *endpoint);
}

}  // namespace lukskeep::net
