// Tang servers for tests, which answer without a network, well or badly.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include <lukskeep/error.h>

#include "nbde/advertisement.h"
#include "nbde/ecmr.h"
#include "nbde/jwk.h"
#include "nbde/seal.h"

namespace lukskeep::nbde::testing {

enum class Mood {
  kWell,
  kDown,
  kHangs,
  kLies,
  kOffCurve,
  kNonsense,
  kRedirects,
  kBusyOnce,
  kNoKey
};

struct TestServer {
  EcKey signing = generate_signing_key();
  EcKey exchange = generate_exchange_key();
  std::atomic<Mood> mood{Mood::kWell};
  std::atomic<int> asked{0};

  std::string thumbprint() const { return nbde::thumbprint(signing.point); }

  std::string advertisement() const {
    const std::array<const EcKey*, 2> keys = {&signing, &exchange};
    return make_advertisement(keys);
  }

  std::string answer(ByteView body) const {
    const EcKey request = parse_public_key(parse_json(as_string_view(body), "request"), "request");
    const EcPoint point = mood == Mood::kLies ? generate_exchange_key(exchange.point.curve()).point
                                              : ecmr_answer(request.point, *exchange.secret);
    Json jwk = public_jwk({.point = point, .secret = {}, .use = {}});
    if (mood == Mood::kOffCurve) jwk["y"] = jwk["x"];
    return jwk.dump();
  }
};

// Servers by their URL; everything else is down.
class TestNetwork {
 public:
  TestServer& add(const std::string& url) {
    return *servers_.emplace(url, std::make_unique<TestServer>()).first->second;
  }

  SendRequest send() {
    return [this](const net::HttpRequest& request, const net::HttpLimits& limits,
                  const CancelToken* cancel) { return answer(request, limits, cancel); };
  }

 private:
  static net::HttpResponse text(long status, const std::string& body) {
    const ByteView bytes = as_byte_view(body);
    return {.status = status, .headers = {}, .body = Bytes(bytes.begin(), bytes.end())};
  }

  // As one that took the connection and says nothing.
  [[noreturn]] static void hang(const net::HttpLimits& limits, const CancelToken* cancel) {
    const auto until =
        std::chrono::steady_clock::now() + std::chrono::milliseconds(limits.total_ms);
    while (std::chrono::steady_clock::now() < until) {
      if (cancel != nullptr) cancel->check();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    throw Error(Code::kTimeout, "it did not answer in time");
  }

  net::HttpResponse answer(const net::HttpRequest& request, const net::HttpLimits& limits,
                           const CancelToken* cancel) {
    const std::size_t slash = request.url.find('/', request.url.find("://") + 3);
    const auto found = servers_.find(request.url.substr(0, slash));
    if (found == servers_.end()) throw Error(Code::kRemote, "nobody is there");
    TestServer& server = *found->second;
    const std::string path = request.url.substr(slash);
    ++server.asked;
    switch (server.mood) {
      case Mood::kDown:
        throw Error(Code::kRemote, "nobody is there");
      case Mood::kHangs:
        hang(limits, cancel);
      case Mood::kNonsense:
        return text(200, "<html>");
      case Mood::kRedirects:
        return text(302, "");
      case Mood::kNoKey:
        return text(404, "");
      case Mood::kBusyOnce:
        if (server.asked == 1) return text(503, "");
        break;
      default:
        break;
    }
    if (path.starts_with("/adv/")) return text(200, server.advertisement());
    if (path != "/rec/" + nbde::thumbprint(server.exchange.point)) return text(404, "");
    return text(200, server.answer(request.body));
  }

  std::map<std::string, std::unique_ptr<TestServer>> servers_;
};

}  // namespace lukskeep::nbde::testing
