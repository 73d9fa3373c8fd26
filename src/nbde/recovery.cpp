#include "nbde/recovery.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "base/base64url.h"
#include "base/limits.h"
#include "base/parallel_for.h"
#include "nbde/ecmr.h"
#include "nbde/jwk_text.h"
#include "nbde/sealed_pin.h"
#include "nbde/tang_client.h"

namespace lukskeep::nbde {
namespace {

constexpr const char* kStateType = "lukskeep-recovery-state";
constexpr const char* kSecrets = "secrets";

std::string shown(std::string_view url) { return printable(url, 128); }

void collect_tang(const SealedPin& pin, std::vector<const SealedPin*>& found) {
  if (pin.problem || pin.state == ShareState::kPending) return;
  if (pin.pin == "tang") found.push_back(&pin);
  for (const SealedPin& share : pin.shares) collect_tang(share, found);
}

void add_point(const SealedPin& pin, PreparedRecovery& prepared) {
  const EcPoint client = exchange_points(pin).client;
  EcmrRequest exchange = ecmr_request(client);
  RecoveryPoint point{.url = pin.url, .kid = pin.kid, .blinded = exchange.blinded};
  // What no request could hold must not keep the others from being asked.
  static_cast<void>(pack(RecoveryRequest{.uuid = {}, .points = {point}}));
  prepared.request.points.push_back(std::move(point));
  prepared.state.shares.push_back(
      {.epk = thumbprint(client), .secret = std::move(exchange.secret)});
}

// The others may do.
template <typename Call>
void leave_out_if_wrong(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    if (error.code() == Code::kInterrupted || error.code() == Code::kOutOfMemory) throw;
  }
}

// The numbers of all shares, one behind the other.
SecretBytes joined_secrets(const std::vector<RecoveryShare>& shares) {
  std::size_t size = 0;
  for (const RecoveryShare& share : shares) size += share.secret.bytes().size();
  SecretBytes bytes(size);
  std::byte* out = bytes.data();
  for (const RecoveryShare& share : shares) {
    out = std::ranges::copy(share.secret.bytes().span(), out).out;
  }
  return bytes;
}

class StateReader {
 public:
  StateReader(ByteView text, std::string_view what) : what_(what) {
    if (text.size() > limits::kRecoveryTextBytesMax) fail("is too large");
    SplitJson split = split_secret(text, kSecrets);
    try {
      json_ = parse_json(split.rest, what);
    } catch (const Error& error) {
      throw Error(Code::kInvalidArgument, error.message());
    }
    if (!json_.is_object() || json_.value("type", Json()) != kStateType ||
        json_.value("version", Json()) != 1) {
      fail("is no state of a recovery");
    }
    auto secrets = secret_from_base64url(as_string_view(split.secret));
    if (!secrets) fail("has lost what it kept");
    secrets_ = std::move(*secrets);
  }

  RecoveryState read() {
    RecoveryState state{.volume = text(json_, "volume"),
                        .header = text(json_, "header"),
                        .uuid = text(json_, "uuid"),
                        .shares = {}};
    const auto code = from_base64url(text(json_, "request"));
    if (!code || code->size() != state.request.size()) fail("names no request");
    std::ranges::copy(*code, state.request.begin());
    const auto list = json_.find("shares");
    if (list == json_.end() || !list->is_array() || list->size() > limits::kRecoveryPointsMax) {
      fail("has no shares");
    }
    for (const Json& one : *list) state.shares.push_back(share(one));
    if (used_ != secrets_.size()) fail("keeps more than its shares");
    return state;
  }

 private:
  [[noreturn]] void fail(std::string_view problem) const {
    throw Error(Code::kInvalidArgument, fmt::format("{} {}", what_, problem));
  }
  std::string text(const Json& json, const char* name) const {
    const auto found = json.is_object() ? json.find(name) : json.end();
    if (found == json.end() || !found->is_string()) fail(fmt::format("has no text '{}'", name));
    return found->get<std::string>();
  }
  RecoveryShare share(const Json& json) {
    const auto curve = find_curve(text(json, "crv"));
    if (!curve) fail("has a share of no curve");
    const std::size_t size = coordinate_bytes(*curve);
    if (secrets_.size() - used_ < size) fail("keeps less than its shares");
    SecretBytes bytes(ByteView(secrets_.span()).subspan(used_, size));
    used_ += size;
    return {.epk = text(json, "epk"), .secret = EcScalar::from_bytes(*curve, std::move(bytes))};
  }

  std::string_view what_;
  Json json_;
  SecretBytes secrets_;
  std::size_t used_ = 0;
};

// The answers by the client's points that they are for.
struct Recovered {
  struct Share {
    EcScalar secret;
    std::optional<EcPoint> answer;
  };
  std::map<std::string, Share, std::less<>> shares;
};

}  // namespace

SecretBytes to_text(const RecoveryState& state) {
  // JSON cannot hold other names: who has them names them again.
  const bool named = is_utf8(state.volume) && is_utf8(state.header);
  Json json = {{"type", kStateType},
               {"version", 1},
               {"volume", named ? state.volume : ""},
               {"header", named ? state.header : ""},
               {"uuid", state.uuid},
               {"request", to_base64url(state.request)},
               {"shares", Json::array()},
               {kSecrets, ""}};
  for (const RecoveryShare& share : state.shares) {
    json["shares"].push_back({{"epk", share.epk}, {"crv", curve_name(share.secret.curve())}});
  }
  const SecretBytes secrets = secret_to_base64url(joined_secrets(state.shares).span());
  return join_secret(json.dump(), kSecrets, secrets.span());
}

RecoveryState parse_recovery_state(ByteView text, std::string_view what) {
  return StateReader(text, what).read();
}

PreparedRecovery prepare_recovery(const std::string& uuid, std::span<const Binding> bindings) {
  PreparedRecovery prepared;
  prepared.request.uuid = uuid;
  prepared.state.uuid = uuid;
  for (const Binding& binding : bindings) {
    if (binding.orphan || !binding.jwe) continue;
    leave_out_if_wrong([&] {
      const SealedPin pin =
          describe(*binding.jwe, fmt::format("the binding of keyslot {}", binding.keyslot));
      std::vector<const SealedPin*> servers;
      collect_tang(pin, servers);
      for (const SealedPin* server : servers) {
        leave_out_if_wrong([&] { add_point(*server, prepared); });
      }
    });
  }
  const std::size_t count = prepared.request.points.size();
  if (count == 0) {
    throw Error(Code::kNotFound,
                fmt::format("no binding of the volume '{}' has a Tang server", printable(uuid)),
                "'lukskeep bindings' lists what there is");
  }
  if (count > limits::kRecoveryPointsMax) {
    throw Error(Code::kUnsupported,
                fmt::format("{} shares are too many for one request, which takes {}", count,
                            limits::kRecoveryPointsMax),
                "choose one binding: --slot N");
  }
  prepared.state.request = recovery_code(prepared.request);
  return prepared;
}

RecoveryOutcome answer_recovery(const RecoveryRequest& request, const PinContext& context) {
  const std::size_t count = request.points.size();
  RecoveryOutcome outcome{.answer = {.request = recovery_code(request), .points = {}},
                          .problems = std::vector<std::optional<Error>>(count)};
  outcome.answer.points.resize(count);
  const CancelToken cancel(context.cancel);
  const Deadline deadline = deadline_of(context);
  parallel_for(count, limits::kUnlockThreadsMax, [&](std::size_t i) {
    const RecoveryPoint& point = request.points[i];
    try {
      const auto blinded = [&]() -> const EcPoint& { return point.blinded; };
      outcome.answer.points[i] = ask_exchange(
          {.url = point.url, .kid = point.kid, .blinded = blinded}, context, deadline, cancel);
    } catch (const Error& error) {
      if (error.code() == Code::kInterrupted) throw;
      outcome.problems[i] = error;
    }
  });
  return outcome;
}

std::function<SecretBytes(const SealedPin&)> recovered_keys(RecoveryState state,
                                                            const RecoveryAnswer& answer) {
  if (answer.request != state.request || answer.points.size() != state.shares.size()) {
    throw Error(Code::kConflict,
                fmt::format("the answer is to the request {}, not to {}, which is waited for",
                            recovery_code_text(answer.request), recovery_code_text(state.request)),
                "name the state that was written with that request, or ask anew");
  }
  auto recovered = std::make_shared<Recovered>();
  for (std::size_t i = 0; i < state.shares.size(); ++i) {
    RecoveryShare& share = state.shares[i];
    recovered->shares.emplace(
        std::move(share.epk),
        Recovered::Share{.secret = std::move(share.secret), .answer = answer.points[i]});
  }
  return [recovered](const SealedPin& pin) {
    const auto found = recovered->shares.find(thumbprint(exchange_points(pin).client));
    if (found == recovered->shares.end()) {
      throw Error(Code::kNotFound,
                  fmt::format("the share of '{}' was not asked for", shown(pin.url)),
                  "the binding was changed since: write a new request");
    }
    if (!found->second.answer) {
      throw Error(Code::kRemote, fmt::format("the answer has nothing of '{}'", shown(pin.url)));
    }
    return content_key_of(pin, *found->second.answer, found->second.secret);
  };
}

}  // namespace lukskeep::nbde
