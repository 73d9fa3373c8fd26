#include "net/http_client.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "net/plain_exchange.h"

namespace lukskeep::net {
namespace {

// Answers each connection with the next text, whatever was asked, and keeps what was.
class Server {
 public:
  // With a pause, before each two bytes of an answer.
  explicit Server(std::vector<std::string> answers, std::chrono::milliseconds pause = {})
      : answers_(std::move(answers)), pause_(pause) {
    unsetenv("http_proxy");
    socket_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (socket_ < 0) throw std::runtime_error("no socket");
    sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    EXPECT_EQ(bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(socket_, 8), 0);
    socklen_t size = sizeof address;
    EXPECT_EQ(getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~Server() {
    stop();
    close(socket_);
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  std::string url(const std::string& path = "/") const {
    return fmt::format("http://127.0.0.1:{}{}", port_, path);
  }
  // What was asked; nothing is answered after that.
  const std::vector<std::string>& stop() {
    shutdown(socket_, SHUT_RDWR);
    if (thread_.joinable()) thread_.join();
    return asked_;
  }

 private:
  void serve() {
    for (const std::string& answer : answers_) {
      const int peer = accept(socket_, nullptr, nullptr);
      if (peer < 0) return;
      asked_.push_back(read_request(peer));
      std::string_view rest = answer;
      while (!rest.empty()) {
        if (pause_.count() > 0) std::this_thread::sleep_for(pause_);
        const std::size_t piece = pause_.count() > 0 ? 2 : rest.size();
        const ssize_t sent = ::send(peer, rest.data(), std::min(piece, rest.size()), MSG_NOSIGNAL);
        if (sent <= 0) break;
        rest.remove_prefix(static_cast<std::size_t>(sent));
      }
      // An answer of nothing hangs, until the client has had enough.
      char byte = 0;
      while (answer.empty() && recv(peer, &byte, 1, 0) > 0) {
      }
      close(peer);
    }
  }

  static std::string read_request(int peer) {
    std::string text;
    char byte = 0;
    while (!text.ends_with("\r\n\r\n") && recv(peer, &byte, 1, 0) == 1) text += byte;
    const std::size_t at = text.find("Content-Length: ");
    const std::size_t end =
        text.size() + (at == std::string::npos ? 0 : std::stoul(text.substr(at + 16)));
    while (text.size() < end && recv(peer, &byte, 1, 0) == 1) text += byte;
    return text;
  }

  std::vector<std::string> answers_;
  std::vector<std::string> asked_;
  std::chrono::milliseconds pause_;
  int socket_ = -1;
  std::uint16_t port_ = 0;
  std::thread thread_;
};

// The two ways to send a request that must not differ.
struct Sender {
  const char* name;
  HttpResponse (*send)(const HttpRequest&, const HttpLimits&, const CancelToken*);
};
constexpr Sender kClient{
    "Client", [](const HttpRequest& request, const HttpLimits& limits, const CancelToken* cancel) {
      return HttpClient(limits, cancel).send(request);
    }};
constexpr Sender kPlain{
    "Plain", [](const HttpRequest& request, const HttpLimits& limits, const CancelToken* cancel) {
      return exchange_plainly(request, limits, cancel).value();
    }};
class EitherSender : public testing::TestWithParam<Sender> {};
INSTANTIATE_TEST_SUITE_P(Http, EitherSender, testing::Values(kClient, kPlain),
                         [](const auto& each) { return std::string(each.param.name); });

constexpr const char* kFine = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

Code failure(const std::function<void()>& call, std::string_view expected = "") {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_NE(error.message().find(expected), std::string::npos) << error.message();
    return error.code();
  }
  ADD_FAILURE() << "nothing was thrown";
  return Code::kInternal;
}

TEST(HttpClient, SendsSecretHeadersAndBodiesWithAnyMethod) {
  Server server({kFine});
  const SecretBytes token(as_byte_view("a token"));
  HttpClient client;
  EXPECT_EQ(client
                .send({.method = "DELETE",
                       .url = server.url(),
                       .headers = {},
                       .body = as_byte_view("{}"),
                       .secret_header = "X-Auth-Token",
                       .secret_value = &token,
                       .response_bytes = std::nullopt})
                .status,
            200);
  const std::string asked = server.stop().at(0);
  EXPECT_TRUE(asked.starts_with("DELETE / HTTP/1.1"));
  EXPECT_NE(asked.find("X-Auth-Token: a token\r\n"), std::string::npos);
  EXPECT_TRUE(asked.ends_with("\r\n\r\n{}"));
  const SecretBytes bad(as_byte_view("a\r\nX-Other: b"));
  EXPECT_EQ(failure([&] {
              client.send({.url = "http://127.0.0.1:1/",
                           .headers = {},
                           .body = {},
                           .secret_header = "X-Auth-Token",
                           .secret_value = &bad,
                           .response_bytes = std::nullopt});
            }),
            Code::kInvalidArgument);
}

TEST(HttpClient, EncodesWithPercent) {
  EXPECT_EQ(percent_encode(""), "");
  EXPECT_EQ(percent_encode("azAZ09-._~"), "azAZ09-._~");
  EXPECT_EQ(percent_encode("a/b c+&=%"), "a%2Fb%20c%2B%26%3D%25");
  EXPECT_EQ(percent_encode("a/b c", true), "a/b%20c");
  EXPECT_EQ(percent_encode("\xc3\xa4\x01\xff"), "%C3%A4%01%FF");
}

TEST(HttpClient, FindsTheFirstHeaderOfAName) {
  const HttpResponse response{.headers = {{"a", "1"}, {"b", ""}, {"a", "2"}}};
  EXPECT_EQ(response.header("a"), "1");
  EXPECT_EQ(response.header("b"), "");
  EXPECT_EQ(response.header("A"), std::nullopt);
}

TEST_P(EitherSender, SendsAndReceives) {
  Server server(
      {"HTTP/1.1 103 Early Hints\r\nX-A: early\r\n\r\n"
       "HTTP/1.1 404 Not Found\r\nX-A:  late \r\nContent-Length: 3\r\n\r\nno\n"});
  const std::string body = "content";
  const HttpResponse response = GetParam().send({.method = "PUT",
                                                 .url = server.url("/a/../b?c=d"),
                                                 .headers = {{"X-B", "value"}},
                                                 .body = as_byte_view(body)},
                                                {}, nullptr);
  EXPECT_EQ(response.status, 404);
  EXPECT_EQ(response.header("x-a"), "late");
  EXPECT_EQ(as_string_view(response.body), "no\n");
  const std::string asked = server.stop().at(0);
  EXPECT_TRUE(asked.starts_with("PUT /a/../b?c=d HTTP/1.1\r\n")) << asked;
  EXPECT_NE(asked.find("\r\nHost: 127.0.0.1:"), std::string::npos) << asked;
  EXPECT_NE(asked.find("\r\nContent-Length: 7\r\n"), std::string::npos) << asked;
  EXPECT_NE(asked.find("\r\nX-B: value\r\n"), std::string::npos) << asked;
  EXPECT_TRUE(asked.ends_with("\r\n\r\ncontent")) << asked;
}

// libcurl 7.88 would sign "Expect:", which takes the header away.
TEST(HttpClient, SignsWhatItSends) {
  Server server({kFine});
  AwsCredentials aws{.access_key = "AK", .secret_key = SecretBytes(3), .region = "here"};
  HttpClient client;
  client.send({.url = server.url(), .headers = {{"x-amz-content-sha256", "x"}}, .aws = &aws});
  const std::string asked = server.stop().at(0);
  EXPECT_NE(asked.find("Credential=AK/"), std::string::npos) << asked;
  EXPECT_NE(asked.find("/here/s3/aws4_request"), std::string::npos) << asked;
  EXPECT_NE(asked.find("SignedHeaders=host;x-amz-content-sha256;x-amz-date,"), std::string::npos)
      << asked;
}

TEST_P(EitherSender, BoundsWhatArrives) {
  const std::string head = "HTTP/1.1 200 OK\r\n";
  std::string many = head;
  while (many.size() <= limits::kHttpHeaderBytesMax)
    many += "X: " + std::string(1000, 'x') + "\r\n";
  Server server({head + "\r\n" + std::string(11, 'x'), head + "Content-Length: 9999\r\n\r\n",
                 many + "\r\n", "no HTTP at all\r\n\r\n", head + "\r\n" + std::string(10, 'x'),
                 head + "\r\n" + std::string(11, 'x')});
  const auto send = [&](const HttpRequest& request) {
    return GetParam().send(request, {.response_bytes = 10}, nullptr);
  };
  const HttpRequest request{.url = server.url()};
  EXPECT_EQ(failure([&] { send(request); }, "answers more than it may"), Code::kRemote);
  EXPECT_EQ(failure([&] { send(request); }, "127.0.0.1"), Code::kRemote);
  EXPECT_EQ(failure([&] { send(request); }, "answers more than it may"), Code::kRemote);
  EXPECT_EQ(failure([&] { send(request); }, "127.0.0.1"), Code::kRemote);
  EXPECT_EQ(send(request).body.size(), 10U);
  HttpRequest more{.url = server.url()};
  more.response_bytes = 11;
  EXPECT_EQ(send(more).body.size(), 11U);
}

TEST(HttpClient, LargeBodiesPassThrough) {
  const std::string large(100'000, 'x');
  const std::string page = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-9/10\r\n\r\n";
  const std::string sorry = "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nsorry";
  Server server({"HTTP/1.1 204 No Content\r\n\r\n", page + large, sorry});
  HttpClient client({.response_bytes = 10});
  HttpRequest put{.method = "PUT", .url = server.url()};
  std::uint64_t sent = 0;
  put.read_body = [&](std::uint64_t offset, MutableBytes out) {
    EXPECT_EQ(offset, sent);
    std::ranges::fill(out, std::byte{'y'});
    sent += out.size();
  };
  put.read_body_bytes = large.size();
  EXPECT_EQ(client.send(put).status, 204);
  EXPECT_EQ(sent, large.size());
  HttpRequest get{.url = server.url()};
  std::uint64_t got = 0;
  get.take_body = [&](const HttpResponse& head, ByteView bytes) {
    EXPECT_EQ(head.status, 206);
    EXPECT_EQ(head.header("content-range"), "bytes 5-9/10");
    got += bytes.size();
  };
  EXPECT_TRUE(client.send(get).body.empty());
  EXPECT_EQ(got, large.size());
  EXPECT_EQ(as_string_view(client.send(get).body), "sorry");  // no data: what is wrong with it
  EXPECT_TRUE(server.stop().at(0).ends_with("\r\n\r\n" + std::string(large.size(), 'y')));
}

TEST(HttpClient, WhatACallbackThrowsArrives) {
  Server server({"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsomething", ""});
  HttpClient client({.total_ms = 5'000});
  HttpRequest get{.url = server.url()};
  get.take_body = [](const HttpResponse&, ByteView) { throw Error(Code::kNoSpace, "full"); };
  EXPECT_EQ(failure([&] { client.send(get); }, "full"), Code::kNoSpace);
  HttpRequest put{.method = "PUT", .url = "http://127.0.0.1:1/"};
  Server other({kFine});
  put.url = other.url();
  put.read_body = [](std::uint64_t, MutableBytes) { throw Error(Code::kDamaged, "unreadable"); };
  put.read_body_bytes = 10;
  EXPECT_EQ(failure([&] { client.send(put); }, "unreadable"), Code::kDamaged);
}

TEST(HttpClient, WithoutALimitOnTimeAStallEnds) {
  Server server({""});
  HttpClient client({.total_ms = 0, .stall_seconds = 1});
  EXPECT_EQ(failure([&] { client.send({.url = server.url()}); }, "in time"), Code::kTimeout);
}

TEST_P(EitherSender, GivesUpAndCanBeStopped) {
  Server server({"", ""});
  const HttpRequest request{.url = server.url()};
  EXPECT_EQ(failure([&] { GetParam().send(request, {.total_ms = 100}, nullptr); }, "in time"),
            Code::kTimeout);
  CancelToken cancel;
  cancel.cancel();
  EXPECT_EQ(failure([&] { GetParam().send(request, {}, &cancel); }), Code::kInterrupted);
}

TEST_P(EitherSender, NamesWhoIsNotThere) {
  std::string url;
  {
    const Server gone({});
    url = gone.url();
  }
  EXPECT_EQ(
      failure([&] { GetParam().send({.url = url}, {}, nullptr); }, url.substr(0, url.size() - 1)),
      Code::kRemote);
}

// Each byte comes in time, and all of them do not.
TEST_P(EitherSender, ADripIsNoAnswer) {
  std::string drip = "HTTP/1.1 200 OK\r\n";
  for (int i = 0; i < 100; ++i) drip += "X: y\r\n";
  Server server({drip}, std::chrono::milliseconds(20));
  EXPECT_EQ(failure([&] { GetParam().send({.url = server.url()}, {.total_ms = 200}, nullptr); },
                    "in time"),
            Code::kTimeout);
}

// What is no body and no header, and must not grow without end all the same.
TEST_P(EitherSender, BoundsWhatStandsBetweenChunks) {
  const std::string head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  const std::string endless(std::size_t{1} << 20, 'x');
  for (const std::string& rest : {"1;x=" + endless, "0\r\nX: " + endless}) {
    Server server({head + rest + "\r\n"});
    EXPECT_EQ(failure([&] { GetParam().send({.url = server.url()}, {}, nullptr); }, "127.0.0.1"),
              Code::kRemote);
  }
  Server fine({head + "2;x=y\r\nok\r\n0\r\nX: z\r\n\r\n"});
  EXPECT_EQ(as_string_view(GetParam().send({.url = fine.url()}, {}, nullptr).body), "ok");
}

TEST(PlainExchange, LeavesTheRestToLibcurl) {
  setenv("http_proxy", "", 1);
  for (const char* url :
       {"https://127.0.0.1:1/", "http://a@127.0.0.1:1/", "http://127.0.0.1:1/#a", "http://[::1]:1/",
        "http://127.0.0.1:x/", "http://127.0.0.1:65536/", "http:///", "http://127.0.0.1:1/a b",
        "http://127.0.0.1:1?a", "http://b\xc3\xbc.invalid/", "ftp://127.0.0.1/"}) {
    EXPECT_EQ(exchange_plainly({.url = url}, {}, nullptr), std::nullopt) << url;
  }
  const SecretBytes secret(3);
  const HttpRequest with_secret{
      .url = "http://127.0.0.1:1/", .headers = {}, .body = {}, .secret_value = &secret};
  EXPECT_EQ(exchange_plainly(with_secret, {}, nullptr), std::nullopt);
  setenv("http_proxy", "http://127.0.0.1:1", 1);
  EXPECT_EQ(exchange_plainly({.url = "http://127.0.0.1:1/"}, {}, nullptr), std::nullopt);
  unsetenv("http_proxy");
}

TEST(PlainExchange, ABodyIsMadeOnceAskedFor) {
  Server server({kFine, kFine});
  for (const std::string& url : {server.url(), "http://localhost" + server.url().substr(16)}) {
    int made = 0;
    HttpRequest request{.method = "POST", .url = url};
    request.make_body = [&] {
      ++made;
      return Bytes(3, std::byte{'z'});
    };
    EXPECT_EQ(send_alone(request, {}).status, 200);
    EXPECT_EQ(made, 1);
  }
  for (const std::string& asked : server.stop()) {
    EXPECT_TRUE(asked.starts_with("POST / HTTP/1.1\r\n")) << asked;
    EXPECT_TRUE(asked.ends_with("\r\n\r\nzzz")) << asked;
  }
  HttpRequest bad{.url = "http://127.0.0.1:1/"};
  bad.make_body = []() -> Bytes { throw Error(Code::kDamaged, "no body"); };
  EXPECT_EQ(failure([&] { send_alone(bad, {}); }, "no body"), Code::kDamaged);
}

TEST(HttpClient, AFileOfAuthoritiesThatCannotBeReadIsNoServerThatIsDown) {
  const Server server({"HTTP/1.1 200 OK\r\n\r\n"});
  HttpClient client({}, nullptr, {.ca_file = "/nonexistent/ca.pem"});
  try {
    send_with_retries(client, {.url = "https" + server.url().substr(4), .body = {}}, 3, nullptr);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidArgument) << error.message();
    EXPECT_NE(error.message().find("/nonexistent/ca.pem"), std::string::npos) << error.message();
  }
}

TEST(HttpClient, TriesAgain) {
  const std::string busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
  const std::string never = "HTTP/1.1 501 Never\r\nContent-Length: 0\r\n\r\n";
  Server server(
      {busy, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", kFine, busy, busy, never});
  HttpClient client;
  const HttpRequest request{.url = server.url()};
  EXPECT_EQ(send_with_retries(client, request, 3).status, 200);
  EXPECT_EQ(send_with_retries(client, request, 2).status, 503);
  EXPECT_EQ(send_with_retries(client, request, 2).status, 501);
}

TEST(HttpClient, RefusesOtherProtocolsAndBadHeaders) {
  HttpClient client;
  EXPECT_EQ(failure([&] { client.send({.url = "file:///etc/passwd"}); }), Code::kRemote);
  EXPECT_EQ(failure([&] { send_alone({.url = "file:///etc/passwd"}, {}); }), Code::kRemote);
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"a\r\nb", "c"}, {"a", "b\r\nc: d"}, {"a", "b\n"}, {"a:", "b"}};
  for (const auto& header : bad) {
    HttpRequest request{.url = "http://127.0.0.1:1"};
    request.headers.push_back(header);
    EXPECT_EQ(failure([&] { client.send(request); }), Code::kInvalidArgument);
    EXPECT_EQ(failure([&] { send_alone(request, {}); }), Code::kInvalidArgument);
  }
}

}  // namespace
}  // namespace lukskeep::net
