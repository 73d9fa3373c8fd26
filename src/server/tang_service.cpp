#include "server/tang_service.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <exception>
#include <filesystem>
#include <fstream>
#include <utility>

#include <poll.h>

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/base64url.h"
#include "base/limits.h"
#include "nbde/ecmr.h"
#include "storage/file_device.h"
#include "storage/folder_watch.h"

namespace lukskeep::server {
namespace {

using net::HttpReply;
using net::HttpServerRequest;

constexpr std::string_view kKinds[] = {"adv", "rec", "healthz", "metrics", "other"};
constexpr int kLookMs = 200;
// After the first event: the steps of one change are read once.
constexpr int kSettleMs = 30;

std::int64_t milliseconds_now() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

HttpReply status(unsigned code) { return {.status = code}; }

// Takes what is in front; false if it is not there.
bool take(std::string_view& text, std::string_view front) {
  if (!text.starts_with(front)) return false;
  text.remove_prefix(front.size());
  return true;
}

bool take_slashes(std::string_view& text) {
  const std::size_t end = std::min(text.find_first_not_of('/'), text.size());
  text.remove_prefix(end);
  return end > 0;
}

bool is_thumbprint(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ||
           c == '-';
  });
}

std::string client_of(const net::HttpPeer& peer) {
  if (!peer.certificate_sha256.empty()) return "certificate " + peer.certificate_sha256;
  return peer.address.empty() ? "unknown" : peer.address;
}

// A request of /rec. Absent if it is none: `refusal` says how that is answered.
std::optional<nbde::EcPoint> parse_request(ByteView body, unsigned& refusal) {
  refusal = 400;
  try {
    const Json jwk = parse_json(as_string_view(body), "request");
    if (!jwk.is_object()) return std::nullopt;
    // A private part of a client's is nothing to us; other requests would not have one.
    const nbde::EcKey key = nbde::parse_public_key(jwk, "request", nbde::Coordinates::kAnyLength);
    if (!key.use.allows("deriveKey", false)) {
      refusal = 403;
      return std::nullopt;
    }
    if (!key.use.algorithm.empty() && key.use.algorithm != "ECMR") return std::nullopt;
    return key.point;
  } catch (const Error& error) {
    if (error.code() != Code::kDamaged && error.code() != Code::kUnsupported) throw;
    return std::nullopt;
  }
}

std::string reply_jwk(const nbde::EcPoint& point) {
  return fmt::format(
      R"({{"alg":"ECMR","crv":"{}","key_ops":["deriveKey"],"kty":"EC","x":"{}","y":"{}"}})",
      nbde::curve_name(point.curve()), to_base64url(point.x()), to_base64url(point.y()));
}

std::string read_rules(const std::string& path) {
  const auto device = storage::open_file(path, {.lock = false});
  if (device->size_bytes() > limits::kTangRulesBytesMax) {
    throw Error(Code::kInvalidArgument, fmt::format("'{}' is too large", printable(path, 256)));
  }
  std::string text(device->size_bytes(), '\0');
  device->read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

std::shared_ptr<const TangAccess> read_access(const std::string& path) {
  const std::string what = fmt::format("'{}'", printable(path, 256));
  auto access = std::make_shared<const TangAccess>(TangAccess::parse(read_rules(path), what));
  // It may be about to be written again, and would let everybody in until then.
  if (access->size() == 0) {
    throw Error(Code::kInvalidArgument, fmt::format("{} has no rule", what),
                "'allow ::/0' lets everybody in");
  }
  return access;
}

// Slashes at the end or none in front: all the same.
std::string normal_endpoint(std::string endpoint) {
  while (endpoint.ends_with('/')) endpoint.pop_back();
  endpoint.erase(0, std::min(endpoint.find_first_not_of('/'), endpoint.size()));
  return endpoint;
}

}  // namespace

TangService::TangService(TangServiceOptions options)
    : options_(std::move(options)), folder_(options_.key_folder), rate_(options_.rate_per_second) {
  options_.endpoint = normal_endpoint(std::move(options_.endpoint));
  auto keys = std::make_shared<const TangKeys>(folder_.read());
  for (const std::string& problem : keys->problems()) warn(problem);
  keys_.store(std::move(keys));
  access_.store(std::make_shared<const TangAccess>());
  if (options_.access_file) {
    access_.store(read_access(*options_.access_file));
  }
  open_usage();
  if (options_.access_log) log_ = std::make_unique<AccessLog>(*options_.access_log);
}

// Volumes that do not open are worse than a record that lacks something.
void TangService::open_usage() {
  if (!options_.usage_file) return;
  try {
    usage_ = std::make_unique<TangUsageRecorder>(*options_.usage_file);
  } catch (const Error& error) {
    if (options_.usage_required) throw;
    warn(fmt::format("nobody records who uses which key: {}", error.message()));
  }
}

// What could not be written is kept to be written later.
void TangService::tell_usage_problem() {
  if (!usage_) return;
  std::string problem = usage_->problem();
  if (problem == usage_problem_) return;
  if (!problem.empty()) warn(fmt::format("who uses which key cannot be recorded now: {}", problem));
  usage_problem_ = std::move(problem);
}

void TangService::warn(const std::string& message) const {
  if (options_.warn) options_.warn(message);
}

// Tang's README: ^/+adv/*$, ^/+adv/+([0-9A-Za-z_-]+)$, ^/+rec/+([0-9A-Za-z_-]+)$.
TangService::Route TangService::route(std::string_view target) const {
  if (target == "/healthz") return {.kind = Kind::kHealth, .thumbprint = {}};
  if (target == "/metrics") return {.kind = Kind::kMetrics, .thumbprint = {}};
  if (!take_slashes(target)) return {};
  if (!options_.endpoint.empty() && !(take(target, options_.endpoint) && take_slashes(target))) {
    return {};
  }
  const bool advertises = take(target, "adv");
  if (!advertises && !take(target, "rec")) return {};
  const bool parted = take_slashes(target);
  if (target.empty()) {
    return {.kind = advertises ? Kind::kAdvertise : Kind::kOther, .thumbprint = {}};
  }
  if (!parted || !is_thumbprint(target)) return {};
  return {.kind = advertises ? Kind::kAdvertise : Kind::kRecover, .thumbprint = target};
}

HttpReply TangService::handle(const HttpServerRequest& request) {
  const Route chosen = route(request.target);
  HttpReply reply;
  if (!access_.load()->allows(request.peer)) {
    denied_.fetch_add(1, std::memory_order_relaxed);
    reply = status(403);
  } else {
    reply = answer(request, chosen);
  }
  Counter& counter = requests_[static_cast<std::size_t>(chosen.kind)];
  counter.by_class[std::min(reply.status / 100, 5U)].fetch_add(1, std::memory_order_relaxed);
  if (log_ && chosen.kind != Kind::kHealth && chosen.kind != Kind::kMetrics) {
    log_->write(fmt::format("{:%Y-%m-%dT%H:%M:%SZ} {} {} {} => {}", fmt::gmtime(std::time(nullptr)),
                            client_of(request.peer), printable(request.method),
                            printable(request.target, 200), reply.status));
  }
  return reply;
}

HttpReply TangService::answer(const HttpServerRequest& request, const Route& chosen) {
  const std::string_view wanted = chosen.kind == Kind::kRecover ? "POST" : "GET";
  if (chosen.kind == Kind::kOther) return status(404);
  if (request.method != wanted) return status(405);
  if (chosen.kind == Kind::kHealth) return health();
  if (chosen.kind == Kind::kMetrics) return metrics();
  if (const unsigned wait = rate_.wait_seconds(request.peer, milliseconds_now()); wait > 0) {
    limited_.fetch_add(1, std::memory_order_relaxed);
    return {.status = 429, .retry_after_seconds = wait};
  }
  if (chosen.kind == Kind::kAdvertise) return advertise(request, chosen.thumbprint);
  return recover(request, chosen.thumbprint);
}

HttpReply TangService::advertise(const HttpServerRequest& request, std::string_view thumbprint) {
  const auto keys = keys_.load();
  const auto text = thumbprint.empty() ? keys->advertisement() : keys->advertisement(thumbprint);
  if (!text) return status(thumbprint.empty() ? 500 : 404);
  // Who asks for a key by name still trusts it.
  if (!thumbprint.empty()) note_use(*keys->find(thumbprint), request.peer);
  return {.status = 200, .content_type = "application/jose+json", .shared_body = text};
}

HttpReply TangService::recover(const HttpServerRequest& request, std::string_view thumbprint) {
  unsigned refusal = 400;
  const auto point = parse_request(request.body, refusal);
  if (!point) return status(refusal);
  const auto keys = keys_.load();
  const TangKeyFile* key = keys->find(thumbprint);
  if (key == nullptr) return status(404);
  if (!key->key.secret || !is_exchange_key(key->key)) return status(403);
  if (point->curve() != key->key.point.curve()) return status(400);
  const nbde::EcPoint answer = nbde::ecmr_answer(*point, *key->key.secret);
  note_use(*key, request.peer);
  return {.status = 200, .content_type = "application/jwk+json", .body = reply_jwk(answer)};
}

void TangService::note_use(const TangKeyFile& key, const net::HttpPeer& peer) {
  {
    const std::lock_guard lock(used_lock_);
    ++used_[key.thumbprint];
  }
  if (usage_) usage_->note(key.thumbprint, client_of(peer), std::time(nullptr));
}

HttpReply TangService::health() const {
  const bool good = keys_.load()->complete();
  return {.status = good ? 200U : 503U,
          .content_type = "text/plain",
          .body = good ? "ok\n" : "no keys to advertise\n"};
}

HttpReply TangService::metrics() const {
  const auto keys = keys_.load();
  std::string text = "# TYPE lukskeep_tang_requests_total counter\n";
  for (std::size_t kind = 0; kind < requests_.size(); ++kind) {
    for (std::size_t status_class = 1; status_class < 6; ++status_class) {
      const auto count = requests_[kind].by_class[status_class].load(std::memory_order_relaxed);
      if (count == 0) continue;
      text += fmt::format("lukskeep_tang_requests_total{{path=\"{}\",status=\"{}xx\"}} {}\n",
                          kKinds[kind], status_class, count);
    }
  }
  text += "# TYPE lukskeep_tang_key_uses_total counter\n";
  {
    const std::lock_guard lock(used_lock_);
    for (const TangKeyFile& key : keys->keys()) {
      const auto found = used_.find(key.thumbprint);
      text += fmt::format("lukskeep_tang_key_uses_total{{key=\"{}\"}} {}\n", key.thumbprint,
                          found == used_.end() ? 0 : found->second);
    }
  }
  const auto hidden =
      std::ranges::count_if(keys->keys(), [](const TangKeyFile& key) { return key.hidden; });
  const auto line = [&text](std::string_view name, std::string_view type, std::uint64_t value) {
    text += fmt::format("# TYPE {0} {1}\n{0} {2}\n", name, type, value);
  };
  text += "# TYPE lukskeep_tang_keys gauge\n";
  text += fmt::format("lukskeep_tang_keys{{state=\"advertised\"}} {}\n",
                      static_cast<std::ptrdiff_t>(keys->keys().size()) - hidden);
  text += fmt::format("lukskeep_tang_keys{{state=\"hidden\"}} {}\n", hidden);
  line("lukskeep_tang_key_files_unusable", "gauge", keys->problems().size());
  line("lukskeep_tang_denied_total", "counter", denied_.load());
  line("lukskeep_tang_rate_limited_total", "counter", limited_.load());
  line("lukskeep_tang_reloads_total", "counter", reloads_.load());
  const bool unwritten = options_.usage_file && (!usage_ || !usage_->problem().empty());
  line("lukskeep_tang_usage_unwritten", "gauge", unwritten ? 1 : 0);
  return {.status = 200, .content_type = "text/plain; version=0.0.4", .body = std::move(text)};
}

void TangService::reload_keys() {
  try {
    auto keys = std::make_shared<const TangKeys>(folder_.read());
    const auto before = keys_.load();
    for (const std::string& problem : keys->problems()) {
      if (std::ranges::find(before->problems(), problem) == before->problems().end()) warn(problem);
    }
    keys_.store(std::move(keys));
    reloads_.fetch_add(1, std::memory_order_relaxed);
  } catch (const Error& error) {
    warn(fmt::format("the keys stay as they were: {}", error.message()));
  }
}

void TangService::reload_access() {
  if (!options_.access_file) return;
  try {
    access_.store(read_access(*options_.access_file));
  } catch (const Error& error) {
    warn(fmt::format("the rules of access stay as they were: {}", error.message()));
  }
}

void TangService::watch(const CancelToken& cancel) {
  std::optional<storage::FolderWatch> folder;
  try {
    folder.emplace();
    folder->add_tree(options_.key_folder);
    if (options_.access_file) {
      folder->add_file(std::filesystem::absolute(*options_.access_file).string());
    }
  } catch (const std::exception& error) {
    folder.reset();
    warn(fmt::format("changes are seen only every {} seconds: {}", options_.look_anyway_ms / 1000.0,
                     error.what()));
  }
  // What changed between the first reading and now.
  reload_keys();
  reload_access();
  const std::chrono::milliseconds look_anyway(options_.look_anyway_ms);
  auto next = std::chrono::steady_clock::now() + look_anyway;
  while (!cancel.cancelled()) {
    pollfd wait{.fd = folder ? folder->fd() : -1, .events = POLLIN, .revents = 0};
    const bool ready = poll(&wait, 1, kLookMs) > 0;
    tell_usage_problem();
    const bool anyway = std::chrono::steady_clock::now() >= next;
    if (!ready && !anyway) continue;
    if (ready) poll(nullptr, 0, kSettleMs);
    const auto changes = folder ? folder->read() : storage::FolderChanges{};
    const auto ends_with = [&](std::string_view end) {
      return std::ranges::any_of(changes.files,
                                 [end](const std::string& file) { return file.ends_with(end); });
    };
    if (changes.lost) folder->add_tree(options_.key_folder);
    if (anyway) next = std::chrono::steady_clock::now() + look_anyway;
    const bool links = !changes.folders.empty();
    if (anyway || changes.lost || links || ends_with(".jwk")) reload_keys();
    if (!options_.access_file) continue;
    const std::string name = std::filesystem::path(*options_.access_file).filename().string();
    if (anyway || changes.lost || ends_with(name)) reload_access();
  }
}

}  // namespace lukskeep::server
