#include "nbde/recovery_kit.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/base64url.h"
#include "base/limits.h"
#include "crypto/hash.h"
#include "nbde/jwk.h"
#include "nbde/pin_policy.h"
#include "nbde/recovery_text.h"

namespace lukskeep::nbde {
namespace {

constexpr std::byte kRequestKind{'Q'};
constexpr std::byte kAnswerKind{'A'};
constexpr std::byte kVersion{1};
constexpr std::byte kNoPoint{0xff};
constexpr std::size_t kChecksumBytes = 4;
constexpr std::size_t kUuidBytesMax = 40;  // as a header has room for
constexpr std::size_t kKidBytesMax = 64;   // of SHA-512
constexpr const char* kRequestType = "lukskeep-recovery-request";
constexpr const char* kAnswerType = "lukskeep-recovery-answer";

// ---- packed ----------------------------------------------------------------------------------

class Packer {
 public:
  explicit Packer(std::byte kind) : bytes_{kind, kVersion} {}

  void number(std::size_t value) { bytes_.push_back(static_cast<std::byte>(value)); }
  void raw(ByteView bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  void text(std::string_view text) {
    std::array<std::byte, 2> size{};
    store_be(size.data(), static_cast<std::uint16_t>(text.size()));
    raw(size);
    raw(as_byte_view(text));
  }
  void point(const std::optional<EcPoint>& point) {
    if (!point) return bytes_.push_back(kNoPoint);
    number(static_cast<std::size_t>(point->curve()));
    raw(point->compressed());
  }

  Bytes finish() {
    const Bytes digest = crypto::hash("sha256", bytes_);
    raw(ByteView(digest).first(kChecksumBytes));
    return std::move(bytes_);
  }

 private:
  Bytes bytes_;
};

class Unpacker {
 public:
  Unpacker(ByteView bytes, std::byte kind, std::string_view what) : what_(what) {
    if (bytes.size() < 2 + kChecksumBytes) fail("is cut off");
    const ByteView rest = bytes.first(bytes.size() - kChecksumBytes);
    const Bytes digest = crypto::hash("sha256", rest);
    if (!std::ranges::equal(ByteView(digest).first(kChecksumBytes), bytes.last(kChecksumBytes))) {
      fail("is damaged, or not whole: its checksum is wrong");
    }
    if (rest[0] != kind) {
      fail(rest[0] == kRequestKind  ? "is a request, not an answer"
           : rest[0] == kAnswerKind ? "is an answer, not a request"
                                    : "is neither request nor answer");
    }
    if (rest[1] != kVersion) fail("is of a version that is not known here");
    rest_ = rest.subspan(2);
  }

  [[noreturn]] void fail(std::string_view problem) const {
    throw Error(Code::kInvalidArgument, fmt::format("{} {}", what_, problem));
  }

  std::size_t number() { return static_cast<std::size_t>(raw(1)[0]); }
  ByteView raw(std::size_t count) {
    if (rest_.size() < count) fail("ends too early");
    const ByteView taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  std::string text() {
    const auto size = load_be<std::uint16_t>(raw(2).data());
    return std::string(as_string_view(raw(size)));
  }
  std::optional<EcPoint> point() {
    const std::size_t number_of_curve = number();
    if (std::byte(number_of_curve) == kNoPoint) return std::nullopt;
    if (number_of_curve > static_cast<std::size_t>(Curve::kP521)) fail("has a point of no curve");
    const auto curve = static_cast<Curve>(number_of_curve);
    const ByteView bytes = raw(compressed_bytes(curve));
    try {
      return EcPoint::from_compressed(curve, bytes);
    } catch (const Error& error) {
      fail(fmt::format("has a point that is none: {}", error.message()));
    }
  }
  std::size_t count() {
    const std::size_t count = number();
    if (count == 0 || count > limits::kRecoveryPointsMax) fail("has too many points, or none");
    return count;
  }
  void end() const {
    if (!rest_.empty()) fail("goes on after its end");
  }

 private:
  std::string_view what_;
  ByteView rest_;
};

// ---- what any form must keep to --------------------------------------------------------------

void check(const RecoveryRequest& request, std::string_view what) {
  const auto fail = [&](std::string_view problem) {
    throw Error(Code::kInvalidArgument, fmt::format("{} {}", what, problem));
  };
  if (request.points.empty() || request.points.size() > limits::kRecoveryPointsMax) {
    fail(fmt::format("has no points, or more than {}", limits::kRecoveryPointsMax));
  }
  if (request.uuid.size() > kUuidBytesMax || !is_utf8(request.uuid)) fail("names no volume");
  for (const RecoveryPoint& point : request.points) {
    if (point.url.size() > limits::kRecoveryUrlBytesMax) fail("has a URL that is too long");
    const auto kid = from_base64url(point.kid);
    if (!kid || kid->empty() || kid->size() > kKidBytesMax) fail("has a thumbprint that is none");
    try {
      check_pin_policy({TangPin{.url = point.url}});
    } catch (const Error& error) {
      fail(fmt::format("is not sound: {}", error.message()));
    }
  }
}

RecoveryRequest unpack_request(ByteView bytes, std::string_view what) {
  Unpacker in(bytes, kRequestKind, what);
  RecoveryRequest request{.uuid = in.text(), .points = {}};
  const std::size_t count = in.count();
  for (std::size_t i = 0; i < count; ++i) {
    std::string url = in.text();
    std::string kid = to_base64url(in.raw(in.number()));
    const std::optional<EcPoint> blinded = in.point();
    if (!blinded) in.fail("has a question without a point");
    request.points.push_back({.url = std::move(url), .kid = std::move(kid), .blinded = *blinded});
  }
  in.end();
  return request;
}

RecoveryAnswer unpack_answer(ByteView bytes, std::string_view what) {
  Unpacker in(bytes, kAnswerKind, what);
  RecoveryAnswer answer;
  std::ranges::copy(in.raw(answer.request.size()), answer.request.begin());
  const std::size_t count = in.count();
  for (std::size_t i = 0; i < count; ++i) answer.points.push_back(in.point());
  in.end();
  return answer;
}

// ---- JSON ------------------------------------------------------------------------------------

Json public_json(const EcPoint& point) {
  return public_jwk({.point = point, .secret = {}, .use = {}});
}

OrderedJson ordered(const EcPoint& point) { return OrderedJson::parse(public_json(point).dump()); }

std::string checksum_of(ByteView packed) { return to_base64url(crypto::hash("sha256", packed)); }

class JsonReader {
 public:
  JsonReader(std::string_view text, const char* type, std::string_view what) : what_(what) {
    try {
      json_ = parse_json(text, what);
    } catch (const Error& error) {
      throw Error(Code::kInvalidArgument, error.message());
    }
    if (!json_.is_object()) fail("is no JSON object");
    const std::string found = this->text(json_, "type");
    if (found != type) fail(fmt::format("is a '{}', not a '{}'", printable(found), type));
    if (json_.value("version", Json()) != 1) fail("is of a version that is not known here");
  }

  [[noreturn]] void fail(std::string_view problem) const {
    throw Error(Code::kInvalidArgument, fmt::format("{} {}", what_, problem));
  }
  const Json& json() const { return json_; }
  std::string text(const Json& json, const char* name) const {
    const auto found = json.is_object() ? json.find(name) : json.end();
    if (found == json.end() || !found->is_string()) fail(fmt::format("has no text '{}'", name));
    return found->get<std::string>();
  }
  const Json& points() const {
    const auto found = json_.find("points");
    if (found == json_.end() || !found->is_array() || found->empty() ||
        found->size() > limits::kRecoveryPointsMax) {
      fail(fmt::format("has no points, or more than {}", limits::kRecoveryPointsMax));
    }
    return *found;
  }
  EcPoint point(const Json& jwk) const {
    try {
      return parse_public_key(jwk, what_).point;
    } catch (const Error& error) {
      throw Error(Code::kInvalidArgument, error.message());
    }
  }
  void check_sum(ByteView packed) const {
    if (text(json_, "checksum") != checksum_of(packed)) {
      fail("was changed: its checksum is wrong");
    }
  }

 private:
  std::string_view what_;
  Json json_;
};

RecoveryRequest read_request(std::string_view text, std::string_view what) {
  const JsonReader in(text, kRequestType, what);
  RecoveryRequest request{.uuid = in.text(in.json(), "uuid"), .points = {}};
  for (const Json& one : in.points()) {
    request.points.push_back({.url = in.text(one, "url"),
                              .kid = in.text(one, "kid"),
                              .blinded = in.point(one.value("point", Json()))});
  }
  check(request, what);
  in.check_sum(pack(request));
  return request;
}

RecoveryAnswer read_answer(std::string_view text, std::string_view what) {
  const JsonReader in(text, kAnswerType, what);
  RecoveryAnswer answer;
  const auto code = from_base64url(in.text(in.json(), "request"));
  if (!code || code->size() != answer.request.size()) in.fail("does not say what it answers");
  std::ranges::copy(*code, answer.request.begin());
  for (const Json& one : in.points()) {
    answer.points.push_back(one.is_null() ? std::optional<EcPoint>() : in.point(one));
  }
  in.check_sum(pack(answer));
  return answer;
}

bool is_json(std::string_view text) {
  const std::size_t start = text.find_first_not_of(" \t\r\n");
  return start != std::string_view::npos && text[start] == '{';
}

void check_size(std::string_view text, std::string_view what) {
  if (text.size() <= limits::kRecoveryTextBytesMax) return;
  throw Error(Code::kInvalidArgument, fmt::format("{} is too large", what));
}

}  // namespace

RecoveryCode recovery_code(const RecoveryRequest& request) {
  const Bytes digest = crypto::hash("sha256", pack(request));
  RecoveryCode code{};
  std::copy_n(digest.begin(), code.size(), code.begin());
  return code;
}

std::string recovery_code_text(const RecoveryCode& code) {
  const std::string text = to_base32(ByteView(code).first(10));
  return fmt::format("{}-{}-{}-{}", text.substr(0, 4), text.substr(4, 4), text.substr(8, 4),
                     text.substr(12, 4));
}

Bytes pack(const RecoveryRequest& request) {
  check(request, "the request");
  Packer out(kRequestKind);
  out.text(request.uuid);
  out.number(request.points.size());
  for (const RecoveryPoint& point : request.points) {
    const Bytes kid = from_base64url(point.kid).value_or(Bytes());
    out.text(point.url);
    out.number(kid.size());
    out.raw(kid);
    out.point(point.blinded);
  }
  return out.finish();
}

Bytes pack(const RecoveryAnswer& answer) {
  Packer out(kAnswerKind);
  out.raw(answer.request);
  out.number(answer.points.size());
  for (const std::optional<EcPoint>& point : answer.points) out.point(point);
  return out.finish();
}

OrderedJson to_json(const RecoveryRequest& request) {
  OrderedJson json = {{"type", kRequestType},
                      {"version", 1},
                      {"uuid", request.uuid},
                      {"points", OrderedJson::array()}};
  for (const RecoveryPoint& point : request.points) {
    json["points"].push_back(
        {{"url", point.url}, {"kid", point.kid}, {"point", ordered(point.blinded)}});
  }
  json["checksum"] = checksum_of(pack(request));
  return json;
}

OrderedJson to_json(const RecoveryAnswer& answer) {
  OrderedJson json = {{"type", kAnswerType},
                      {"version", 1},
                      {"request", to_base64url(answer.request)},
                      {"points", OrderedJson::array()}};
  for (const std::optional<EcPoint>& point : answer.points) {
    json["points"].push_back(point ? ordered(*point) : OrderedJson(nullptr));
  }
  json["checksum"] = checksum_of(pack(answer));
  return json;
}

RecoveryRequest parse_recovery_request(std::string_view text, std::string_view what) {
  check_size(text, what);
  if (is_json(text)) return read_request(text, what);
  RecoveryRequest request = unpack_request(parse_recovery_text(text, what), what);
  check(request, what);
  return request;
}

RecoveryAnswer parse_recovery_answer(std::string_view text, std::string_view what) {
  check_size(text, what);
  if (is_json(text)) return read_answer(text, what);
  return unpack_answer(parse_recovery_text(text, what), what);
}

}  // namespace lukskeep::nbde
