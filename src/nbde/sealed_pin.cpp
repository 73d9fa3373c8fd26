#include "nbde/sealed_pin.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/base64url.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "nbde/advertisement.h"
#include "nbde/shamir.h"

namespace lukskeep::nbde {
namespace {

[[noreturn]] void fail(std::string_view what, std::string_view problem) {
  throw Error(Code::kDamaged, fmt::format("{} {}", what, problem));
}

// The member `name` of `json`; absent is as null.
const Json& member(const Json& json, const char* name) {
  static const Json kNone;
  if (!json.is_object()) return kNone;
  const auto found = json.find(name);
  return found == json.end() ? kNone : *found;
}

class Reader {
 public:
  explicit Reader(std::string_view what) : what_(what) {}

  SealedPin read(const Jwe& jwe, std::size_t depth);

 private:
  std::string text(const Json& json, const char* name) const {
    const Json& value = member(json, name);
    if (!value.is_string()) fail(what_, fmt::format("has no text '{}'", name));
    return value.get<std::string>();
  }

  // The configuration of its pin, which must fit the key's algorithm.
  const Json& config(const Json& header, const std::string& pin, std::string_view algorithm) const {
    if (header.at("alg") != algorithm) {
      fail(what_, fmt::format("has a pin '{}' that does not go with its algorithm", pin));
    }
    const Json& config = member(header.at("clevis"), pin.c_str());
    if (!config.is_object()) fail(what_, fmt::format("does not say what its pin '{}' is", pin));
    return config;
  }

  void read_tang(const Json& header, SealedPin& pin) const;
  void read_tpm2(const Json& header, SealedPin& pin) const;
  void read_sss(const Json& header, SealedPin& pin, std::size_t depth);
  SealedPin read_share(const std::string& compact, std::size_t depth);
  void read_pending(const Json& header, SealedPin& pin, std::size_t depth);
  SealedPin pending_pin(const PinPolicy& policy);
  void count() {
    if (++count_ > limits::kPinsMax) {
      fail(what_, fmt::format("has more than {} pins", limits::kPinsMax));
    }
  }

  std::string_view what_;
  std::size_t count_ = 0;
};

SealedPin Reader::read(const Jwe& jwe, std::size_t depth) {
  if (depth > limits::kPinDepthMax) fail(what_, "nests its pins too deep");
  count();
  const Json header = jwe_header(jwe, what_);
  const Json& clevis = member(header, "clevis");
  if (!clevis.is_object()) fail(what_, "was not sealed by a pin: its header has no 'clevis'");
  SealedPin pin{.pin = text(clevis, "pin"), .jwe = jwe};
  const Json& own = member(clevis, "lukskeep");
  if (member(own, "saved") == true) pin.state = ShareState::kSaved;
  if (pin.pin == "tang") read_tang(header, pin);
  if (pin.pin == "tpm2") read_tpm2(header, pin);
  if (pin.pin == "sss") read_sss(header, pin, depth);
  if (pin.pin == "null") config(header, "null", "dir");
  return pin;
}

void Reader::read_tang(const Json& header, SealedPin& pin) const {
  const Json& tang = config(header, "tang", "ECDH-ES");
  pin.url = text(tang, "url");
  pin.kid = text(header, "kid");
  pin.advertisement = member(tang, "adv");
  pin.epk = member(header, "epk");
  const std::string where = fmt::format("{}: the keys of '{}'", what_, printable(pin.url, 128));
  const std::vector<EcKey> keys = parse_key_set(pin.advertisement, where);
  const EcKey* server = find_key(keys, pin.kid);
  if (server == nullptr) {
    fail(what_, fmt::format("was sealed to the key '{}' of '{}', which is not among those it has",
                            printable(pin.kid), printable(pin.url, 128)));
  }
  const EcKey epk = parse_public_key(pin.epk, fmt::format("{}: the client's point", what_));
  if (epk.point.curve() != server->point.curve()) fail(what_, "mixes points of two curves");
  for (const EcKey& key : keys) {
    if (!key.use.allows("verify", true)) continue;
    pin.thumbprint = thumbprint(key.point);
    break;
  }
  check_pin_policy({TangPin{.url = pin.url}});
}

void Reader::read_tpm2(const Json& header, SealedPin& pin) const {
  const Json& tpm2 = config(header, "tpm2", "dir");
  Json policy = Json::object();
  for (const char* name : {"hash", "key", "pcr_bank", "pcr_ids"}) {
    if (tpm2.contains(name)) policy[name] = tpm2.at(name);
  }
  const PinPolicy parsed = parse_pin_policy(policy.dump(), "tpm2");
  pin.tpm2 = std::get<Tpm2Pin>(parsed.pin);
}

void Reader::read_sss(const Json& header, SealedPin& pin, std::size_t depth) {
  const Json& sss = config(header, "sss", "dir");
  const Json& threshold = member(sss, "t");
  const Json& list = member(sss, "jwe");
  if (!list.is_array() || list.empty() || list.size() > limits::kPinsMax) {
    fail(what_, "has an sss without its shares");
  }
  if (!threshold.is_number_unsigned() || threshold.get<std::uint64_t>() == 0 ||
      threshold.get<std::uint64_t>() > list.size()) {
    fail(what_,
         fmt::format("has an sss of {} shares with a threshold that cannot be", list.size()));
  }
  pin.threshold = threshold.get<unsigned>();
  const auto prime = from_base64url(text(sss, "p"));
  if (!prime) fail(what_, "has an sss whose prime is not in base64url");
  SharedSecret::check_prime(*prime);
  pin.prime_bytes = prime->size();
  for (const Json& one : list) {
    if (!one.is_string()) fail(what_, "has an sss with a share that is no text");
    pin.shares.push_back(read_share(one.get<std::string>(), depth + 1));
  }
  read_pending(header, pin, depth);
}

SealedPin Reader::read_share(const std::string& compact, std::size_t depth) {
  SealedPin share{.pin = "unknown"};
  try {
    share.jwe = parse_compact_jwe(compact, what_);
    return read(share.jwe, depth);
  } catch (const Error& error) {
    if (count_ > limits::kPinsMax) throw;
    share.problem = error;
  }
  return share;
}

// Our own member, which Clevis passes over: policies of shares that are not sealed yet.
void Reader::read_pending(const Json& header, SealedPin& pin, std::size_t depth) {
  const Json& pending = member(member(header.at("clevis"), "lukskeep"), "pending");
  if (pending.is_null()) return;
  if (!pending.is_array() || pending.size() > limits::kPinsMax || depth >= limits::kPinDepthMax) {
    fail(what_, "has pending shares that are no list");
  }
  for (const Json& one : pending) {
    const std::string name = text(one, "pin");
    pin.shares.push_back(pending_pin(parse_pin_policy(member(one, "config").dump(), name)));
  }
}

SealedPin Reader::pending_pin(const PinPolicy& policy) {
  count();
  SealedPin pin{.pin = std::string(pin_name(policy)), .state = ShareState::kPending};
  if (const auto* tang = std::get_if<TangPin>(&policy.pin)) {
    pin.url = tang->url;
    pin.thumbprint = tang->thumbprint;
  }
  if (const auto* tpm2 = std::get_if<Tpm2Pin>(&policy.pin)) pin.tpm2 = *tpm2;
  if (const auto* sss = std::get_if<SssPin>(&policy.pin)) {
    pin.threshold = sss->threshold;
    for (const PinPolicy& one : sss->pins) pin.shares.push_back(pending_pin(one));
  }
  return pin;
}

OrderedJson key_list(const SealedPin& pin, std::string_view operation) {
  OrderedJson list = OrderedJson::array();
  for (const EcKey& key : parse_key_set(pin.advertisement, "the advertisement")) {
    if (!key.use.allows(operation, true)) continue;
    list.push_back(
        {{"thumbprint", thumbprint(key.point)}, {"curve", curve_name(key.point.curve())}});
  }
  return list;
}

}  // namespace

std::string_view share_state_name(ShareState state) noexcept {
  constexpr std::array<std::string_view, 3> names = {"confirmed", "saved", "pending"};
  return names[static_cast<std::size_t>(state)];
}

SealedPin describe(const Jwe& jwe, std::string_view what) { return Reader(what).read(jwe, 0); }

bool is_known_pin(std::string_view pin) noexcept {
  constexpr std::array<std::string_view, 4> kKnown = {"tang", "tpm2", "sss", "null"};
  return std::ranges::find(kKnown, pin) != kKnown.end();
}

std::set<std::string> unknown_pins(const SealedPin& pin) {
  std::set<std::string> names;
  if (!pin.problem && !is_known_pin(pin.pin)) names.insert(pin.pin);
  for (const SealedPin& share : pin.shares) names.merge(unknown_pins(share));
  return names;
}

OrderedJson to_json(const SealedPin& pin) {
  OrderedJson json = {{"pin", pin.pin}, {"state", share_state_name(pin.state)}};
  if (!pin.problem && !is_known_pin(pin.pin)) json["known"] = false;
  if (pin.problem) json["problem"] = pin.problem->message();
  if (pin.pin == "tang") {
    json["url"] = pin.url;
    if (!pin.thumbprint.empty()) json["thumbprint"] = pin.thumbprint;
    if (pin.state != ShareState::kPending) {
      json["kid"] = pin.kid;
      json["signing_keys"] = key_list(pin, "verify");
      json["exchange_keys"] = key_list(pin, "deriveKey");
    }
  }
  if (pin.pin == "tpm2") {
    json["hash"] = pin.tpm2.hash;
    json["key"] = pin.tpm2.key;
    if (!pin.tpm2.pcrs.empty()) {
      json["pcr_bank"] = pin.tpm2.pcr_bank;
      json["pcrs"] = pin.tpm2.pcrs;
    }
  }
  if (pin.pin == "sss") {
    json["threshold"] = pin.threshold;
    json["shares"] = OrderedJson::array();
    for (const SealedPin& share : pin.shares) json["shares"].push_back(to_json(share));
  }
  return json;
}

PinPolicy policy_of(const SealedPin& pin) {
  if (pin.problem) throw Error(*pin.problem);
  if (pin.pin == "tang") {
    return {
        TangPin{.url = pin.url, .thumbprint = pin.thumbprint, .trusted_keys = pin.advertisement}};
  }
  if (pin.pin == "tpm2") return {pin.tpm2};
  if (pin.pin == "null") return {NullPin{}};
  if (pin.pin != "sss") {
    throw Error(Code::kUnsupported,
                fmt::format("the pin '{}' is not known here", printable(pin.pin)));
  }
  SssPin sss{.threshold = pin.threshold, .pins = {}};
  for (const SealedPin& share : pin.shares) sss.pins.push_back(policy_of(share));
  return {std::move(sss)};
}

}  // namespace lukskeep::nbde
