#include "nbde/seal.h"

#include <algorithm>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/base64url.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "base/parallel_for.h"
#include "crypto/random.h"
#include "nbde/advertisement.h"
#include "nbde/ecmr.h"
#include "nbde/opener.h"
#include "nbde/shamir.h"
#include "nbde/tang_client.h"
#include "nbde/tpm2_pin.h"

namespace lukskeep::nbde {
namespace {

constexpr std::string_view kCipher = "A256GCM";

// {"alg","clevis":{"pin":…,…:{}},"enc"}.
Json new_header(std::string_view algorithm, const std::string& pin, Json config) {
  return {
      {"alg", algorithm}, {"clevis", {{"pin", pin}, {pin, std::move(config)}}}, {"enc", kCipher}};
}

// Where our own members are, which Clevis passes over.
Json& own_members(Json& header) { return header["clevis"]["lukskeep"]; }

SecretBytes content_jwk_text(const SecretBytes& key) {
  OctKey jwk{.bytes = key.clone(), .use = {}};
  jwk.use.algorithm = kCipher;
  jwk.use.operations = {"encrypt", "decrypt"};
  return oct_jwk_text(jwk);
}

struct LeafState {
  const TangPin* pin = nullptr;
  FetchedAdvertisement fetched;
};

// Servers are asked at once, and answer as they like; people are asked about them in the order of
// the policy, one after the other, and not any more where one before has failed for good.
class Turns {
 public:
  explicit Turns(std::size_t count) : ended_(count, false) {}

  // Waits until all before `index` have ended. Throws what one of them failed with.
  void wait(std::size_t index) {
    std::unique_lock lock(mutex_);
    const auto last = ended_.begin() + static_cast<std::ptrdiff_t>(index);
    changed_.wait(lock, [&] { return std::find(ended_.begin(), last, false) == last; });
    const auto found = failures_.begin();
    if (found != failures_.end() && found->first < index) throw Error(found->second);
  }

  void end(std::size_t index, const std::optional<Error>& failure) {
    const std::lock_guard lock(mutex_);
    ended_[index] = true;
    if (failure) failures_.emplace(index, *failure);
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<bool> ended_;
  std::map<std::size_t, Error> failures_;
};

class Sealer {
 public:
  Sealer(const PinContext& context, Deadline deadline) : context_(context), deadline_(deadline) {}

  Jwe seal(const PinPolicy& policy, ByteView plain);

 private:
  void collect(const PinPolicy& policy);
  void fetch_all();
  void fetch(std::size_t index, Turns& turns);
  // Whether enough of its servers are there.
  bool is_ready(const PinPolicy& policy) const;
  void check_pending(const PinPolicy& policy) const;
  PinPolicy for_later(const PinPolicy& policy) const;
  Json pending_entry(const PinPolicy& policy) const;

  Jwe seal_node(const PinPolicy& policy, ByteView plain) const;
  Jwe seal_tang(const TangPin& pin, ByteView plain) const;
  Jwe seal_tpm2(const Tpm2Pin& pin, ByteView plain) const;
  static Jwe seal_null(const NullPin& pin, ByteView plain);
  Jwe seal_sss(const SssPin& pin, ByteView plain) const;

  const PinContext& context_;
  Deadline deadline_;
  std::vector<LeafState> leaves_;
  std::map<const TangPin*, std::size_t> index_;
};

void Sealer::collect(const PinPolicy& policy) {
  if (const auto* tang = std::get_if<TangPin>(&policy.pin)) {
    index_.emplace(tang, leaves_.size());
    leaves_.push_back({.pin = tang, .fetched = {}});
  }
  const auto* sss = std::get_if<SssPin>(&policy.pin);
  if (sss == nullptr) return;
  for (const PinPolicy& one : sss->pins) collect(one);
}

void Sealer::fetch_all() {
  Turns turns(leaves_.size());
  parallel_for(leaves_.size(), static_cast<unsigned>(leaves_.size()),
               [&](std::size_t i) { fetch(i, turns); });
}

void Sealer::fetch(std::size_t index, Turns& turns) {
  PinContext context = context_;
  if (context_.ask_trust) {
    context.ask_trust = [&](std::string_view url, const std::vector<std::string>& thumbprints) {
      turns.wait(index);
      return context_.ask_trust(url, thumbprints);
    };
  }
  try {
    FetchedAdvertisement& fetched = leaves_[index].fetched;
    fetched = fetch_advertisement(*leaves_[index].pin, context, deadline_);
    turns.end(index, context_.allow_pending ? std::nullopt : fetched.down);
  } catch (const Error& error) {
    turns.end(index, error);
    throw;
  } catch (...) {
    turns.end(index, Error(Code::kInternal, "a server could not be asked"));
    throw;
  }
}

bool Sealer::is_ready(const PinPolicy& policy) const {
  if (const auto* tang = std::get_if<TangPin>(&policy.pin)) {
    return leaves_[index_.at(tang)].fetched.advertisement.has_value();
  }
  const auto* sss = std::get_if<SssPin>(&policy.pin);
  if (sss == nullptr) return true;
  const auto ready =
      std::ranges::count_if(sss->pins, [&](const PinPolicy& one) { return is_ready(one); });
  return std::cmp_greater_equal(ready, sss->threshold);
}

// What is left for later must say today whom it trusts.
void Sealer::check_pending(const PinPolicy& policy) const {
  if (const auto* tang = std::get_if<TangPin>(&policy.pin)) {
    if (!tang->thumbprint.empty() || leaves_[index_.at(tang)].fetched.advertisement) return;
    throw Error(Code::kUnsafe,
                fmt::format("'{}' is down, and nothing says which key to trust later",
                            printable(tang->url, 128)),
                "give its thp=, or adv= with a saved advertisement");
  }
  const auto* sss = std::get_if<SssPin>(&policy.pin);
  if (sss == nullptr) return;
  for (const PinPolicy& one : sss->pins) check_pending(one);
}

// With the contents of files that may not be there later, and the key of servers that were seen.
PinPolicy Sealer::for_later(const PinPolicy& policy) const {
  PinPolicy copy = policy;
  if (auto* sss = std::get_if<SssPin>(&copy.pin)) {
    for (std::size_t i = 0; i < sss->pins.size(); ++i) {
      sss->pins[i] = for_later(std::get<SssPin>(policy.pin).pins[i]);
    }
  }
  auto* tang = std::get_if<TangPin>(&copy.pin);
  if (tang == nullptr) return copy;
  if (!tang->advertisement_path.empty()) {
    tang->advertisement = load_saved_advertisement(*tang);
    tang->advertisement_path.clear();
  }
  const auto& seen = leaves_[index_.at(&std::get<TangPin>(policy.pin))].fetched.advertisement;
  if (seen && tang->thumbprint.empty() && tang->advertisement.empty()) {
    tang->thumbprint = thumbprint(seen->signing_keys().front()->point);
  }
  return copy;
}

Json Sealer::pending_entry(const PinPolicy& policy) const {
  check_pending(policy);
  return {{"pin", pin_name(policy)}, {"config", to_json(for_later(policy))}};
}

Jwe Sealer::seal(const PinPolicy& policy, ByteView plain) {
  collect(policy);
  fetch_all();
  for (const LeafState& leaf : leaves_) {
    if (!leaf.fetched.down) continue;
    const Error& down = *leaf.fetched.down;
    if (!context_.allow_pending) {
      throw Error(down.code(), down.message(),
                  down.hint().empty() ? "adv= takes a saved advertisement; --allow-pending leaves "
                                        "servers that are down for later, if the rest suffice"
                                      : down.hint());
    }
    if (!is_ready(policy)) {
      throw Error(down.code(), fmt::format("too few servers are there: {}", down.message()));
    }
  }
  return seal_node(policy, plain);
}

Jwe Sealer::seal_node(const PinPolicy& policy, ByteView plain) const {
  if (const auto* tang = std::get_if<TangPin>(&policy.pin)) return seal_tang(*tang, plain);
  if (const auto* tpm2 = std::get_if<Tpm2Pin>(&policy.pin)) return seal_tpm2(*tpm2, plain);
  if (const auto* null = std::get_if<NullPin>(&policy.pin)) return seal_null(*null, plain);
  return seal_sss(std::get<SssPin>(policy.pin), plain);
}

Jwe Sealer::seal_tang(const TangPin& pin, ByteView plain) const {
  const std::optional<Advertisement>& advertisement =
      leaves_[index_.at(&pin)].fetched.advertisement;
  if (!advertisement) throw Error(Code::kInternal, "a server that is not there is sealed to");
  // The first, as Clevis does.
  const EcPoint& server = advertisement->exchange_keys().front()->point;
  const EcmrSealed sealed = ecmr_seal(server);
  Json header = new_header("ECDH-ES", "tang", {{"adv", advertisement->key_set}, {"url", pin.url}});
  header["epk"] = public_jwk({.point = sealed.ephemeral, .secret = {}, .use = {}});
  header["kid"] = thumbprint(server);
  if (!pin.advertisement.empty() || !pin.advertisement_path.empty()) {
    own_members(header)["saved"] = true;
  }
  return encrypt_jwe(header, derive_content_key(sealed.shared_x.span()).span(), plain);
}

Jwe Sealer::seal_tpm2(const Tpm2Pin& pin, ByteView plain) const {
  const SecretBytes key = crypto::random_secret(kContentKeyBytes);
  const TpmObject object = tpm2_seal(pin, content_jwk_text(key).span(), context_.tcti);
  Json config = {{"hash", pin.hash},
                 {"key", pin.key},
                 {"jwk_pub", to_base64url(object.public_area)},
                 {"jwk_priv", to_base64url(object.private_area)}};
  if (!pin.pcrs.empty()) {
    config["pcr_bank"] = pin.pcr_bank.empty() ? "sha256" : pin.pcr_bank;
    config["pcr_ids"] = fmt::format("{}", fmt::join(pin.pcrs, ","));
  }
  return encrypt_jwe(new_header("dir", "tpm2", std::move(config)), key.span(), plain);
}

// Its key stands in the header: a secret only of tests.
Jwe Sealer::seal_null(const NullPin& pin, ByteView plain) {
  const SecretBytes key = crypto::random_secret(kContentKeyBytes);
  Json config = Json::object();
  if (!pin.fail) {
    const SecretBytes jwk = content_jwk_text(key);
    config["jwk"] = parse_json(as_string_view(jwk.span()), "the key of the pin 'null'");
  }
  return encrypt_jwe(new_header("dir", "null", std::move(config)), key.span(), plain);
}

Jwe Sealer::seal_sss(const SssPin& pin, ByteView plain) const {
  SharedSecret shared = SharedSecret::make(pin.threshold);
  Json shares = Json::array();
  Json pending = Json::array();
  for (const PinPolicy& one : pin.pins) {
    if (is_ready(one)) {
      shares.push_back(to_compact(seal_node(one, shared.new_share().span())));
    } else {
      pending.push_back(pending_entry(one));
    }
  }
  Json header = new_header(
      "dir", "sss",
      {{"jwe", std::move(shares)}, {"p", to_base64url(shared.prime())}, {"t", pin.threshold}});
  if (!pending.empty()) own_members(header)["pending"] = std::move(pending);
  return encrypt_jwe(header, shared.key().span(), plain);
}

// Makes the header of an opened node anew: its shares sealed again where they changed, pending
// ones added. The content keys stay as they are.
class TopUp {
 public:
  explicit TopUp(PinContext context) : context_(std::move(context)) {
    context_.allow_pending = true;
    context_.all_shares = true;
  }

  ToppedUp run(const Jwe& jwe) {
    const SealedPin root = describe(jwe, "what is to be topped up");
    const std::unique_ptr<Opened> opened = open_tree(root, context_, nullptr);
    result_.jwe = update(root, *opened);
    return std::move(result_);
  }

 private:
  Jwe update(const SealedPin& pin, Opened& opened);
  bool update_shares(const SealedPin& pin, Opened& opened, Json& header);
  bool add_pending(Opened& opened, Json& header);

  PinContext context_;
  ToppedUp result_;
};

Jwe TopUp::update(const SealedPin& pin, Opened& opened) {
  Json header = jwe_header(pin.jwe, "what is to be topped up");
  bool changed = false;
  if (pin.state == ShareState::kSaved) {
    own_members(header).erase("saved");
    ++result_.saved;
    changed = true;
  }
  if (pin.pin == "sss") {
    changed = update_shares(pin, opened, header) || changed;
    changed = add_pending(opened, header) || changed;
  }
  if (!changed) return pin.jwe;
  if (own_members(header).empty()) header["clevis"].erase("lukskeep");
  return encrypt_jwe(header, opened.key.span(), opened.plain.span());
}

bool TopUp::update_shares(const SealedPin& pin, Opened& opened, Json& header) {
  bool changed = false;
  Json& list = header["clevis"]["sss"]["jwe"];
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (opened.children[i] == nullptr) continue;
    const Jwe updated = update(pin.shares[i], *opened.children[i]);
    if (updated == pin.shares[i].jwe) continue;
    list[i] = to_compact(updated);
    changed = true;
  }
  return changed;
}

bool TopUp::add_pending(Opened& opened, Json& header) {
  if (!header["clevis"].contains("lukskeep") || !own_members(header).contains("pending")) {
    return false;
  }
  Json still = Json::array();
  bool changed = false;
  for (const Json& entry : own_members(header)["pending"]) {
    const PinPolicy policy =
        parse_pin_policy(entry.at("config").dump(), entry.at("pin").get<std::string>());
    try {
      // Each with its own limit: one that hangs takes nothing from those that are there.
      const Jwe share =
          Sealer(context_, deadline_of(context_)).seal(policy, opened.shared->new_share().span());
      header["clevis"]["sss"]["jwe"].push_back(to_compact(share));
      ++result_.added;
      changed = true;
    } catch (const Error& error) {
      if (error.code() == Code::kInterrupted) throw;
      still.push_back(entry);
      result_.errors.push_back(error);
      ++result_.pending;
    }
  }
  if (still.empty()) {
    own_members(header).erase("pending");
  } else {
    own_members(header)["pending"] = std::move(still);
  }
  return changed;
}

}  // namespace

Jwe seal(const PinPolicy& policy, ByteView plain, const PinContext& context) {
  check_pin_policy(policy);
  return Sealer(context, deadline_of(context)).seal(policy, plain);
}

SecretBytes unseal(const Jwe& jwe, const PinContext& context, std::vector<ShareReport>* report) {
  const SealedPin root = describe(jwe, "what is to be opened");
  return std::move(open_tree(root, context, report)->plain);
}

ToppedUp top_up(const Jwe& jwe, const PinContext& context) { return TopUp(context).run(jwe); }

}  // namespace lukskeep::nbde
