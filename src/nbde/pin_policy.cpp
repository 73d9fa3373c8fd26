#include "nbde/pin_policy.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <functional>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "base/base64url.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "storage/file_device.h"

namespace lukskeep::nbde {
namespace {

constexpr unsigned kPcrMax = 23;  // PC Client Platform TPM Profile
constexpr std::size_t kUrlBytesMax = 2048;

[[noreturn]] void fail(std::string_view problem, Code code = Code::kInvalidArgument) {
  throw Error(code, fmt::format("policy: {}", problem), "lukskeep-seal(1) describes policies");
}

template <typename T>
std::optional<T> to_number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::ranges::find(names, name) != names.end();
}

// The members of one pin's configuration, each used once; what is left is refused.
class Members {
 public:
  Members(const Json& json, std::string_view pin) : json_(json), pin_(pin) {
    if (!json.is_object()) fail(fmt::format("the configuration of {} is not an object", pin));
  }

  const Json* find(const char* name) {
    known_.emplace_back(name);
    const auto found = json_.find(name);
    return found == json_.end() ? nullptr : &*found;
  }

  std::string text(const char* name, std::string_view otherwise = {}) {
    const Json* value = find(name);
    if (value == nullptr) return std::string(otherwise);
    if (!value->is_string()) refuse(name, "is not a string");
    return value->get<std::string>();
  }

  [[noreturn]] void refuse(std::string_view name, std::string_view problem) const {
    fail(fmt::format("'{}' of {} {}", printable(name), pin_, problem));
  }

  void done() const {
    for (const auto& [name, value] : json_.items()) {
      if (std::ranges::find(known_, name) == known_.end()) refuse(name, "is not known");
    }
  }

 private:
  const Json& json_;
  std::string pin_;
  std::vector<std::string> known_;
};

PinPolicy parse_any(const Json& json, std::string_view pin, std::size_t depth);

PinPolicy parse_tang(const Json& json) {
  Members members(json, "tang");
  TangPin tang{.url = members.text("url"), .thumbprint = members.text("thp")};
  if (tang.url.empty()) fail("a tang needs a 'url'");
  if (const Json* adv = members.find("adv")) {
    if (adv->is_object()) {
      tang.advertisement = adv->dump();
    } else if (adv->is_string() && !adv->get<std::string>().empty()) {
      tang.advertisement_path = adv->get<std::string>();
    } else {
      members.refuse("adv", "is neither an advertisement nor the path of one");
    }
  }
  members.done();
  return {tang};
}

unsigned parse_pcr(std::string_view text) {
  const auto number = to_number<unsigned>(text);
  if (!number || *number > kPcrMax) {
    fail(fmt::format("'{}' is no PCR: they are 0 to {}", printable(text), kPcrMax));
  }
  return *number;
}

void add_pcrs(std::string_view list, std::vector<unsigned>& pcrs) {
  std::string text(list);
  std::erase(text, ' ');
  if (text.empty()) return;
  for (std::size_t start = 0; start <= text.size();) {
    const std::size_t end = std::min(text.find_first_of(",+", start), text.size());
    pcrs.push_back(parse_pcr(std::string_view(text).substr(start, end - start)));
    start = end + 1;
  }
}

void sort_pcrs(std::vector<unsigned>& pcrs) {
  std::ranges::sort(pcrs);
  const auto repeated = std::ranges::unique(pcrs);
  pcrs.erase(repeated.begin(), repeated.end());
}

// "0,7", [0,7] or ["0","7"].
std::vector<unsigned> parse_pcr_ids(const Json& value, const Members& members) {
  std::vector<unsigned> pcrs;
  const auto add = [&](const Json& one) {
    if (one.is_string()) return add_pcrs(one.get<std::string>(), pcrs);
    if (!one.is_number_unsigned()) members.refuse("pcr_ids", "is no list of PCRs");
    pcrs.push_back(parse_pcr(one.dump()));
  };
  if (value.is_array()) {
    for (const Json& one : value) add(one);
  } else {
    add(value);
  }
  sort_pcrs(pcrs);
  return pcrs;
}

PinPolicy parse_tpm2(const Json& json) {
  Members members(json, "tpm2");
  Tpm2Pin tpm2;
  tpm2.hash = members.text("hash", tpm2.hash);
  tpm2.key = members.text("key", tpm2.key);
  tpm2.pcr_bank = members.text("pcr_bank");
  if (const Json* ids = members.find("pcr_ids")) tpm2.pcrs = parse_pcr_ids(*ids, members);
  tpm2.pcr_digest = members.text("pcr_digest");
  members.done();
  return {tpm2};
}

PinPolicy parse_sss(const Json& json, std::size_t depth) {
  Members members(json, "sss");
  SssPin sss;
  const Json* threshold = members.find("t");
  if (threshold == nullptr || !threshold->is_number_unsigned() ||
      threshold->get<std::uint64_t>() > limits::kPinsMax) {
    members.refuse("t", "is not a number of pins");
  }
  sss.threshold = threshold->get<unsigned>();
  const Json* pins = members.find("pins");
  if (pins == nullptr || !pins->is_object()) members.refuse("pins", "is not an object");
  for (const auto& [name, value] : pins->items()) {
    if (!value.is_array()) {
      sss.pins.push_back(parse_any(value, name, depth + 1));
      continue;
    }
    if (value.size() > limits::kPinsMax) fail("it has too many pins");
    for (const Json& one : value) sss.pins.push_back(parse_any(one, name, depth + 1));
  }
  members.done();
  return {std::move(sss)};
}

PinPolicy parse_null(const Json& json) {
  Members members(json, "null");
  NullPin null;
  if (const Json* value = members.find("fail")) {
    if (!value->is_boolean()) members.refuse("fail", "is neither true nor false");
    null.fail = value->get<bool>();
  }
  members.done();
  return {null};
}

PinPolicy parse_any(const Json& json, std::string_view pin, std::size_t depth) {
  if (depth > limits::kPinDepthMax) fail("sss are nested too deep");
  if (pin == "tang") return parse_tang(json);
  if (pin == "tpm2") return parse_tpm2(json);
  if (pin == "sss") return parse_sss(json, depth);
  if (pin == "null") return parse_null(json);
  fail(fmt::format("the pin '{}' is not known: there are tang, tpm2, sss", printable(pin)));
}

std::string_view deduced_pin(const Json& json) {
  if (json.is_object() && json.contains("pins")) return "sss";
  if (json.is_object() && json.contains("url")) return "tang";
  fail(
      "it names no pin: one with 'pins' is an sss, one with 'url' a tang; else name it with --pin");
}

void check_tang(const TangPin& tang) {
  if (tang.url.empty() || tang.url.size() > kUrlBytesMax) fail("a tang needs a URL");
  const auto is_bad = [](unsigned char c) {
    return c <= ' ' || c >= 0x7f ||
           std::string_view("?#\"'\\<>").find(char(c)) != std::string::npos;
  };
  const std::size_t scheme = tang.url.find("://");
  const bool is_http = scheme == std::string::npos || tang.url.starts_with("http://") ||
                       tang.url.starts_with("https://");
  if (!is_http || std::ranges::any_of(tang.url, is_bad)) {
    fail(fmt::format("'{}' is no URL of a server", printable(tang.url, 128)));
  }
  // Of SHA-1, 224, 256, 384 and 512.
  constexpr std::array<std::size_t, 5> digest_bytes = {20, 28, 32, 48, 64};
  const auto digest = from_base64url(tang.thumbprint);
  if (!tang.thumbprint.empty() &&
      (!digest || std::ranges::find(digest_bytes, digest->size()) == digest_bytes.end())) {
    fail(fmt::format("'{}' is no thumbprint", printable(tang.thumbprint, 128)));
  }
  if (!is_utf8(tang.advertisement_path)) fail("the path of an advertisement is not UTF-8");
  if (!tang.advertisement.empty() && !tang.advertisement_path.empty()) {
    fail("a tang has two advertisements");
  }
  if (tang.advertisement.size() > limits::kJwsBytesMax) {
    fail("an advertisement is too large");
  }
}

void check_tpm2(const Tpm2Pin& tpm2) {
  const auto is_hash = [](std::string_view name) {
    return is_one_of(name, {"sha1", "sha256", "sha384", "sha512"});
  };
  if (!is_hash(tpm2.hash)) fail(fmt::format("tpm2 has no hash '{}'", printable(tpm2.hash)));
  if (!tpm2.pcr_bank.empty() && !is_hash(tpm2.pcr_bank)) {
    fail(fmt::format("tpm2 has no PCR bank '{}'", printable(tpm2.pcr_bank)));
  }
  if (!is_one_of(tpm2.key, {"ecc", "rsa"})) {
    fail(fmt::format("tpm2 has no key '{}'", printable(tpm2.key)));
  }
  for (const unsigned pcr : tpm2.pcrs) {
    if (pcr > kPcrMax) fail(fmt::format("there is no PCR {}", pcr));
  }
  if (tpm2.pcr_digest.empty()) return;
  const auto digest = from_base64url(tpm2.pcr_digest);
  if (tpm2.pcrs.empty() || !digest || digest->size() % tpm2.pcrs.size() != 0 ||
      digest->size() > 64 * tpm2.pcrs.size()) {
    fail("'pcr_digest' does not have one value for each PCR");
  }
}

void check_node(const PinPolicy& policy, std::size_t depth, std::size_t& count) {
  if (depth > limits::kPinDepthMax) fail("sss are nested too deep");
  if (++count > limits::kPinsMax) {
    fail(fmt::format("it has more than {} pins", limits::kPinsMax));
  }
  if (const auto* tang = std::get_if<TangPin>(&policy.pin)) check_tang(*tang);
  if (const auto* tpm2 = std::get_if<Tpm2Pin>(&policy.pin)) check_tpm2(*tpm2);
  const auto* sss = std::get_if<SssPin>(&policy.pin);
  if (sss == nullptr) return;
  if (sss->pins.empty()) fail("an sss has no pins");
  if (sss->threshold == 0 || sss->threshold > sss->pins.size()) {
    fail(fmt::format("an sss of {} pins cannot have a threshold of {}", sss->pins.size(),
                     sss->threshold));
  }
  for (const PinPolicy& one : sss->pins) check_node(one, depth + 1, count);
}

Json tang_json(const TangPin& tang) {
  Json json = {{"url", tang.url}};
  if (!tang.thumbprint.empty()) json["thp"] = tang.thumbprint;
  if (!tang.advertisement_path.empty()) json["adv"] = tang.advertisement_path;
  if (!tang.advertisement.empty()) json["adv"] = parse_json(tang.advertisement, "advertisement");
  return json;
}

Json tpm2_json(const Tpm2Pin& tpm2) {
  Json json = {{"hash", tpm2.hash}, {"key", tpm2.key}};
  if (!tpm2.pcr_bank.empty()) json["pcr_bank"] = tpm2.pcr_bank;
  if (!tpm2.pcrs.empty()) json["pcr_ids"] = fmt::format("{}", fmt::join(tpm2.pcrs, ","));
  if (!tpm2.pcr_digest.empty()) json["pcr_digest"] = tpm2.pcr_digest;
  return json;
}

std::string read_file(const std::string& path) {
  const auto device = storage::open_file(path, {.lock = false});
  if (device->size_bytes() > limits::kPinPolicyBytesMax) {
    fail(fmt::format("'{}' is too large", printable(path, 256)));
  }
  Bytes bytes(device->size_bytes());
  device->read(0, bytes);
  return std::string(as_string_view(bytes));
}

bool starts_as_json(std::string_view text) {
  const std::size_t start = text.find_first_not_of(" \t\r\n");
  return start != std::string_view::npos && text[start] == '{';
}

// "a,b=c": the pieces between commas.
std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> pieces;
  for (;;) {
    const std::size_t comma = text.find(',');
    pieces.push_back(text.substr(0, comma));
    if (comma == std::string_view::npos) return pieces;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace

std::string_view pin_name(const PinPolicy& policy) noexcept {
  constexpr std::array<std::string_view, 4> names = {"tang", "tpm2", "sss", "null"};
  static_assert(std::variant_size_v<decltype(policy.pin)> == names.size());
  return names[policy.pin.index()];
}

void check_pin_policy(const PinPolicy& policy) {
  std::size_t count = 0;
  check_node(policy, 0, count);
}

PinPolicy parse_pin_policy(std::string_view json, std::string_view pin) {
  if (json.size() > limits::kPinPolicyBytesMax) fail("it is too large");
  Json parsed;
  try {
    parsed = parse_json(json, "it");
  } catch (const Error& error) {
    fail(error.message());
  }
  PinPolicy policy = parse_any(parsed, pin.empty() ? deduced_pin(parsed) : pin, 0);
  check_pin_policy(policy);
  return policy;
}

Json to_json(const PinPolicy& policy) {
  if (const auto* tang = std::get_if<TangPin>(&policy.pin)) return tang_json(*tang);
  if (const auto* tpm2 = std::get_if<Tpm2Pin>(&policy.pin)) return tpm2_json(*tpm2);
  if (const auto* null = std::get_if<NullPin>(&policy.pin)) {
    return null->fail ? Json{{"fail", true}} : Json::object();
  }
  const auto& sss = std::get<SssPin>(policy.pin);
  Json pins = Json::object();
  for (const PinPolicy& one : sss.pins) pins[std::string(pin_name(one))].push_back(to_json(one));
  return {{"t", sss.threshold}, {"pins", pins}};
}

PinPolicy parse_tang_option(std::string_view text) {
  const std::vector<std::string_view> pieces = split(text);
  TangPin tang{.url = std::string(pieces.front())};
  for (const std::string_view piece : std::span(pieces).subspan(1)) {
    if (piece.starts_with("thp=")) {
      tang.thumbprint = piece.substr(4);
    } else if (piece.starts_with("adv=")) {
      tang.advertisement_path = piece.substr(4);
    } else {
      throw Error(Code::kUsage,
                  fmt::format("'{}' of a server is neither thp= nor adv=", printable(piece)));
    }
  }
  check_tang(tang);
  return {tang};
}

PinPolicy parse_tpm2_option(std::string_view text) {
  Tpm2Pin tpm2;
  bool in_pcrs = false;  // "pcrs=7,8" goes on after the comma
  for (const std::string_view piece : split(text)) {
    const std::string_view name = piece.substr(0, piece.find('='));
    const std::string_view value = piece.substr(std::min(piece.size(), name.size() + 1));
    const bool number = to_number<unsigned>(piece).has_value();
    if (name == "pcrs" || (in_pcrs && number)) {
      add_pcrs(number ? piece : value, tpm2.pcrs);
    } else if (name == "bank") {
      tpm2.pcr_bank = value;
    } else if (name == "hash") {
      tpm2.hash = value;
    } else if (name == "key") {
      tpm2.key = value;
    } else if (!piece.empty()) {
      throw Error(Code::kUsage, fmt::format("'{}' of a TPM is none of pcrs=, bank=, hash=, key=",
                                            printable(piece)));
    }
    in_pcrs = name == "pcrs" || (in_pcrs && number);
  }
  sort_pcrs(tpm2.pcrs);
  check_tpm2(tpm2);
  return {tpm2};
}

PinPolicy join_pins(std::vector<PinPolicy> pins, std::optional<unsigned> threshold) {
  if (pins.empty()) throw Error(Code::kUsage, "no policy: name a server or a TPM");
  if (pins.size() == 1 && threshold.value_or(1) == 1) return std::move(pins.front());
  if (!threshold) {
    throw Error(Code::kUsage, fmt::format("{} pins want a --threshold", pins.size()),
                "--threshold 1 lets any one of them open it");
  }
  PinPolicy policy{SssPin{.threshold = *threshold, .pins = std::move(pins)}};
  check_pin_policy(policy);
  return policy;
}

PinPolicy load_pin_policy(const std::string& text, std::string_view pin) {
  if (starts_as_json(text)) return parse_pin_policy(text, pin);
  const std::string file = read_file(text);
  if (starts_as_json(file)) return parse_pin_policy(file, pin);
  return parse_pin_policy_toml(file, text);
}

}  // namespace lukskeep::nbde
