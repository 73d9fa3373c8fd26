#include "net/http_conversation.h"

#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace lukskeep::net {
namespace {

HttpReply echo(const HttpServerRequest& request) {
  if (request.target == "/throw") throw std::runtime_error("no");
  return {.status = 200,
          .content_type = "text/plain",
          .body = std::string(request.method) + " " + std::string(request.target) + " " +
                  std::string(as_string_view(request.body))};
}

// All that is answered to `input`, given in pieces of `piece` bytes.
std::string answers(std::string_view input, std::size_t piece, bool* closing = nullptr) {
  const HttpHandler handler = echo;
  HttpConversation conversation(HttpServerLimits{}, handler);
  std::string all;
  while (!input.empty() && !conversation.closing()) {
    while (conversation.wants_input() && !input.empty()) {
      const std::string_view part = input.substr(0, piece);
      conversation.receive(as_byte_view(part));
      input.remove_prefix(part.size());
      conversation.answer(all);
    }
    if (!conversation.wants_input()) conversation.answer(all);
  }
  for (int i = 0; i < 1000 && !conversation.wants_input() && !conversation.closing(); ++i) {
    std::string more;
    conversation.answer(more);
    all += more;
  }
  if (closing != nullptr) *closing = conversation.closing();
  return all;
}

std::size_t count(const std::string& text, std::string_view what) {
  std::size_t found = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) {
    ++found;
  }
  return found;
}

TEST(HttpConversation, PiecesOfAnySizeGiveTheSameAnswers) {
  const std::string input =
      "GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello\r\n"
      "POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
      "HEAD /d HTTP/1.1\r\n\r\nGET /throw HTTP/1.1\r\n\r\n";
  const std::string whole = answers(input, input.size());
  EXPECT_EQ(count(whole, "HTTP/1.1 200 OK\r\n"), 4U);
  EXPECT_NE(whole.find("\r\n\r\nPOST /b hello"), std::string::npos);
  EXPECT_NE(whole.find("\r\n\r\nPOST /c abc"), std::string::npos);
  EXPECT_EQ(whole.find("HEAD /d"), std::string::npos);
  EXPECT_TRUE(whole.ends_with("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"));
  for (const std::size_t piece : {1U, 2U, 3U, 7U, 50U}) EXPECT_EQ(answers(input, piece), whole);
}

TEST(HttpConversation, ManyRequestsInOnePieceAreAllAnswered) {
  std::string input;
  for (int i = 0; i < 500; ++i) input += "GET / HTTP/1.1\r\n\r\n";
  EXPECT_EQ(count(answers(input, input.size()), "HTTP/1.1 200 OK"), 500U);
}

TEST(HttpConversation, ClosesWhenTheClientAsksTo) {
  bool closing = false;
  EXPECT_EQ(count(answers("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 9, &closing),
                  "Connection: close"),
            1U);
  EXPECT_TRUE(closing);
  answers("GET / HTTP/1.0\r\n\r\n", 99, &closing);
  EXPECT_TRUE(closing);
  answers("GET / HTTP/1.1\r\n\r\n", 99, &closing);
  EXPECT_FALSE(closing);
}

TEST(HttpConversation, TellsWhoWaitsToGoOn) {
  const std::string out =
      answers("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n", 999);
  EXPECT_EQ(out, "HTTP/1.1 100 Continue\r\n\r\n");
}

TEST(HttpConversation, LargeBodiesAreTakenInAnyPieces) {
  const std::string body(60'000, 'b');
  const std::string chunk = "ea60;name=value\r\n" + body + "\r\n0\r\nA: trailer\r\n\r\n";
  for (const std::string& input :
       {"POST / HTTP/1.1\r\nContent-Length: 60000\r\n\r\n" + body,
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk}) {
    for (const std::size_t piece :
         {std::size_t{7}, HttpConversation::kReceiveBytes, input.size()}) {
      EXPECT_TRUE(answers(input, piece).ends_with("POST / " + body)) << piece;
    }
  }
}

TEST(HttpConversation, BoundsAndNonsense) {
  const struct {
    const char* name;
    std::string input;
    int status;
  } rows[] = {
      {"nonsense", "nonsense\r\n\r\n", 400},
      {"long target", "GET /" + std::string(5000, 'a') + " HTTP/1.1\r\n\r\n", 414},
      {"endless target", "GET /" + std::string(100'000, 'a'), 414},
      {"endless header", "GET / HTTP/1.1\r\nA: " + std::string(100'000, 'a'), 431},
      {"many headers",
       [] {
         std::string text = "GET / HTTP/1.1\r\n";
         for (int i = 0; i < 4000; ++i) text += "Name: v\r\n";
         return text + "\r\n";
       }(),
       431},
      {"large body", "POST / HTTP/1.1\r\nContent-Length: 65536\r\n\r\n", 413},
      {"huge body", "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400},
      {"large chunk", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", 413},
      {"endless extension of a chunk",
       "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + std::string(100'000, 'a'), 431},
      {"endless trailer",
       "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: " + std::string(100'000, 'a'),
       431},
      {"two lengths", "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na", 400},
      {"length and chunks",
       "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na", 400},
  };
  for (const auto& row : rows) {
    for (const std::size_t piece : {std::size_t{999}, HttpConversation::kReceiveBytes}) {
      bool closing = false;
      const std::string out = answers(row.input, piece, &closing);
      EXPECT_TRUE(out.starts_with("HTTP/1.1 " + std::to_string(row.status)))
          << row.name << " " << piece << ": " << out.substr(0, 60);
      EXPECT_TRUE(closing) << row.name;
    }
  }
}

}  // namespace
}  // namespace lukskeep::net
