#include "nbde/tang_client.h"

#include <algorithm>
#include <charconv>
#include <random>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "nbde/ecmr.h"
#include "storage/file_device.h"

namespace lukskeep::nbde {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr long kStatusOk = 200;
constexpr milliseconds kPauseStep{10};

std::string shown(std::string_view url) { return printable(url, 128); }

std::string join_url(std::string_view url, std::string_view path) {
  while (url.ends_with('/')) url.remove_suffix(1);
  const bool has_scheme = url.find("://") != std::string_view::npos;
  return fmt::format("{}{}/{}", has_scheme ? "" : "http://", url, path);
}

// How long a server that is busy wants to be left alone, if it says so in seconds.
milliseconds retry_after(const net::HttpResponse& response) {
  const std::string text = response.header("retry-after").value_or("");
  std::uint32_t seconds = 0;
  std::from_chars(text.data(), text.data() + text.size(), seconds);
  return milliseconds(std::uint64_t{seconds} * 1000);
}

// One server: its tries, and the time that is left for them.
class Asker {
 public:
  Asker(std::string_view url, const PinContext& context, Deadline deadline,
        const CancelToken* cancel)
      : url_(url), context_(context), deadline_(deadline), cancel_(cancel) {}

  // The body of an answer with status 200. Throws Error{kTimeout, kRemote, kInterrupted}; kNotFound
  // for a 404.
  Bytes ask(const net::HttpRequest& request) const {
    std::minstd_rand random{std::random_device{}()};
    for (unsigned attempt = 1;; ++attempt) {
      milliseconds pause{100U << std::min(attempt, 5U)};
      // Half of it is chance: many that failed together do not come back together.
      pause = pause / 2 + milliseconds(random() % static_cast<unsigned>(pause.count()));
      try {
        net::HttpResponse response = send_once(request);
        if (response.status == kStatusOk) return std::move(response.body);
        const bool busy =
            (response.status >= 500 && response.status != 501) || response.status == 429;
        pause = std::max(pause, retry_after(response));
        if (!busy || !may_go_on(attempt, pause)) throw_status(response.status);
      } catch (const Error& error) {
        const bool passing = error.code() == Code::kRemote || error.code() == Code::kTimeout;
        if (!passing || refused_ || !may_go_on(attempt, pause)) throw;
      }
      sleep(pause);
    }
  }

 private:
  milliseconds left() const {
    return std::chrono::duration_cast<milliseconds>(deadline_ - Clock::now());
  }

  bool may_go_on(unsigned attempt, milliseconds pause) const {
    return attempt < context_.tries && left() > pause;
  }

  net::HttpResponse send_once(const net::HttpRequest& request) const {
    const auto most = std::min<std::int64_t>(left().count(), context_.try_ms);
    if (cancel_ != nullptr) cancel_->check();
    if (most <= 0) {
      throw Error(Code::kTimeout, fmt::format("no time was left to ask '{}'", shown(url_)));
    }
    const net::HttpLimits limits{.connect_ms = static_cast<std::uint32_t>(most),
                                 .total_ms = static_cast<std::uint32_t>(most)};
    if (!context_.send) {
      return net::send_alone(request, limits, cancel_, {.ca_file = context_.ca_file});
    }
    return net::send_made(request, [&](const net::HttpRequest& made) {
      return context_.send(made, limits, cancel_);
    });
  }

  [[noreturn]] void throw_status(long status) const {
    refused_ = true;
    if (status >= 300 && status < 400) {
      throw Error(Code::kRemote,
                  fmt::format("'{}' sends elsewhere, which is not followed", shown(url_)),
                  "name the server itself in the policy");
    }
    throw Error(status == 404 ? Code::kNotFound : Code::kRemote,
                fmt::format("'{}' answers with status {}", shown(url_), status));
  }

  void sleep(milliseconds pause) const {
    const auto until = Clock::now() + pause;
    while (Clock::now() < until) {
      if (cancel_ != nullptr) cancel_->check();
      std::this_thread::sleep_for(kPauseStep);
    }
  }

  std::string_view url_;
  const PinContext& context_;
  Deadline deadline_;
  const CancelToken* cancel_;
  mutable bool refused_ = false;  // it answered, and will not answer otherwise
};

bool is_signed_by_any(const Advertisement& advertisement, const Json& trusted_keys) {
  if (trusted_keys.is_null()) return false;
  const std::vector<EcKey> keys = parse_key_set(trusted_keys, "the keys trusted so far");
  return std::ranges::any_of(keys,
                             [&](const EcKey& key) { return is_signed_by(advertisement, key); });
}

std::vector<std::string> signing_thumbprints(const Advertisement& advertisement) {
  std::vector<std::string> found;
  for (const EcKey* key : advertisement.signing_keys()) found.push_back(thumbprint(key->point));
  return found;
}

// Throws Error{kUnsafe} unless there is a reason to trust it.
void check_trust(const TangPin& pin, const PinContext& context, const Advertisement& advertisement,
                 bool is_saved) {
  if (!pin.thumbprint.empty()) {
    for (const EcKey* key : advertisement.signing_keys()) {
      if (has_thumbprint(key->point, pin.thumbprint)) return;
    }
  }
  if (is_signed_by_any(advertisement, pin.trusted_keys)) return;
  const std::string offered = thumbprint(advertisement.signing_keys().front()->point);
  if (!pin.thumbprint.empty() || !pin.trusted_keys.is_null()) {
    throw Error(
        Code::kUnsafe,
        fmt::format("the keys of '{}' are not signed by the key that is trusted, '{}'",
                    shown(pin.url), printable(pin.thumbprint)),
        fmt::format("it signs with '{}': compare with tang-show-keys on the server", offered));
  }
  if (is_saved || context.trust_on_first_use) return;
  if (context.ask_trust && context.ask_trust(pin.url, signing_thumbprints(advertisement))) return;
  throw Error(Code::kUnsafe,
              fmt::format("nothing says that the keys of '{}' are to be trusted", shown(pin.url)),
              fmt::format("it signs with '{}': if tang-show-keys on the server says so too, give "
                          "thp={}; or --trust-on-first-use",
                          offered, offered));
}

std::string fetch_text(const TangPin& pin, const PinContext& context, Deadline deadline) {
  const Asker asker(pin.url, context, deadline, context.cancel);
  const net::HttpRequest request{.url = join_url(pin.url, "adv/" + pin.thumbprint),
                                 .body = {},
                                 .response_bytes = limits::kJwsBytesMax};
  try {
    return std::string(as_string_view(asker.ask(request)));
  } catch (const Error& error) {
    if (error.code() != Code::kNotFound || pin.thumbprint.empty()) throw;
    throw Error(Code::kUnsafe,
                fmt::format("'{}' does not have the key that is trusted, '{}'", shown(pin.url),
                            printable(pin.thumbprint)),
                "compare with tang-show-keys on the server");
  }
}

}  // namespace

Deadline deadline_of(const PinContext& context) {
  return Clock::now() + milliseconds(context.total_ms);
}

std::string load_saved_advertisement(const TangPin& pin) {
  if (pin.advertisement_path.empty()) return pin.advertisement;
  const auto device = storage::open_file(pin.advertisement_path, {.lock = false});
  if (device->size_bytes() > limits::kJwsBytesMax) {
    throw Error(Code::kInvalidArgument, fmt::format("the advertisement '{}' is too large",
                                                    printable(pin.advertisement_path, 256)));
  }
  Bytes bytes(device->size_bytes());
  device->read(0, bytes);
  return std::string(as_string_view(bytes));
}

FetchedAdvertisement fetch_advertisement(const TangPin& pin, const PinContext& context,
                                         Deadline deadline) {
  std::string text = load_saved_advertisement(pin);
  const bool is_saved = !text.empty() || !pin.advertisement_path.empty();
  if (!is_saved) {
    try {
      text = fetch_text(pin, context, deadline);
    } catch (const Error& error) {
      if (error.code() == Code::kNotFound) throw Error(Code::kRemote, error.message());
      if (error.code() != Code::kTimeout && error.code() != Code::kRemote) throw;
      return {.advertisement = std::nullopt, .down = error};
    }
  }
  const std::string what =
      is_saved && !pin.advertisement_path.empty()
          ? fmt::format("the advertisement '{}'", printable(pin.advertisement_path, 256))
          : fmt::format("the advertisement of '{}'", shown(pin.url));
  FetchedAdvertisement fetched;
  try {
    fetched.advertisement = parse_advertisement(text, what);
  } catch (const Error& error) {
    // What a server says damages nothing here.
    throw Error(is_saved ? Code::kInvalidArgument : Code::kRemote, error.message(), error.hint());
  }
  check_trust(pin, context, *fetched.advertisement, is_saved);
  return fetched;
}

ExchangePoints exchange_points(const SealedPin& pin) {
  const std::vector<EcKey> keys = parse_key_set(pin.advertisement, "the keys of the server");
  const EcKey* server = find_key(keys, pin.kid);
  if (server == nullptr) throw Error(Code::kDamaged, "the server's key is not among its keys");
  return {.server = server->point, .client = parse_public_key(pin.epk, "the client's point").point};
}

EcPoint ask_exchange(const ExchangeQuestion& question, const PinContext& context, Deadline deadline,
                     const CancelToken& cancel) {
  const auto body = [&] {
    EcKey blinded{.point = question.blinded(), .secret = {}, .use = {}};
    blinded.use.algorithm = "ECMR";
    blinded.use.operations = {"deriveKey"};
    const std::string text = public_jwk(blinded).dump();
    const ByteView bytes = as_byte_view(text);
    return Bytes(bytes.begin(), bytes.end());
  };
  const net::HttpRequest request{.method = "POST",
                                 .url = join_url(question.url, "rec/" + question.kid),
                                 .headers = {{"Content-Type", "application/jwk+json"}},
                                 .body = {},
                                 .make_body = body,
                                 .response_bytes = limits::kTangReplyBytesMax};
  Bytes answer;
  try {
    answer = Asker(question.url, context, deadline, &cancel).ask(request);
  } catch (const Error& error) {
    if (error.code() != Code::kNotFound) throw;
    throw Error(Code::kRemote,
                fmt::format("'{}' does not have the key '{}'", shown(question.url),
                            printable(question.kid)),
                "it was deleted there, or is another server's: restore the server's keys");
  }
  try {
    const std::string what = fmt::format("the answer of '{}'", shown(question.url));
    const EcPoint point = parse_public_key(parse_json(as_string_view(answer), what), what).point;
    if (point.curve() == question.blinded().curve()) return point;
    throw Error(Code::kRemote, "its point is on another curve");
  } catch (const Error& error) {
    throw Error(Code::kRemote,
                fmt::format("'{}' gives a wrong answer: {}", shown(question.url), error.message()));
  }
}

SecretBytes recover_content_key(const SealedPin& pin, const PinContext& context, Deadline deadline,
                                const CancelToken& cancel) {
  auto exchange = [&pin, made = std::optional<EcmrRequest>()]() mutable -> const EcmrRequest& {
    if (!made) made = ecmr_request(exchange_points(pin).client);
    return *made;
  };
  const auto blinded = [&exchange]() -> const EcPoint& { return exchange().blinded; };
  const EcPoint answer =
      ask_exchange({.url = pin.url, .kid = pin.kid, .blinded = blinded}, context, deadline, cancel);
  return content_key_of(pin, answer, exchange().secret);
}

SecretBytes content_key_of(const SealedPin& pin, const EcPoint& answer, const EcScalar& secret) {
  try {
    return derive_content_key(ecmr_finish(answer, exchange_points(pin).server, secret).span());
  } catch (const Error& error) {
    if (error.code() != Code::kInvalidArgument) throw;
    throw Error(Code::kRemote,
                fmt::format("'{}' gives a wrong answer: {}", shown(pin.url), error.message()));
  }
}

}  // namespace lukskeep::nbde
