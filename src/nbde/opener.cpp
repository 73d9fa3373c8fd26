#include "nbde/opener.h"

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/base64url.h"
#include "base/bytes.h"
#include "nbde/advertisement.h"
#include "nbde/tpm2_pin.h"

namespace lukskeep::nbde {
namespace {

using Path = std::vector<std::size_t>;
using Clock = std::chrono::steady_clock;

// Members of the header that describe() has checked, or not.
std::string text_member(const Json& config, const char* name) {
  const auto found = config.find(name);
  if (found == config.end() || !found->is_string()) {
    throw Error(Code::kDamaged, fmt::format("a pin has no text '{}'", name));
  }
  return found->get<std::string>();
}

Bytes bytes_member(const Json& config, const char* name) {
  auto bytes = from_base64url(text_member(config, name));
  if (!bytes) throw Error(Code::kDamaged, fmt::format("'{}' of a pin is not in base64url", name));
  return std::move(*bytes);
}

SecretBytes key_of_jwk(ByteView text, std::string_view what) {
  OctKey key = parse_oct_key(text, what);
  if (key.bytes.size() != kContentKeyBytes) {
    throw Error(Code::kDamaged, fmt::format("{} has the wrong length", what));
  }
  return std::move(key.bytes);
}

class Opener {
 public:
  Opener(const PinContext& context, bool reporting)
      : context_(context), deadline_(deadline_of(context)), reporting_(reporting) {}

  std::unique_ptr<Opened> open(const SealedPin& pin, const Path& path, const CancelToken& cancel);

  std::vector<ShareReport> take_report() {
    std::ranges::sort(report_, {}, &ShareReport::path);
    return std::move(report_);
  }

 private:
  // What the threads of one sss tell the one that waits for them.
  struct Group {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::unique_ptr<Opened>> opened;
    std::vector<SecretBytes> shares;  // of those, the ones that count
    std::vector<Error> errors;
    std::size_t running = 0;
  };

  std::unique_ptr<Opened> open_sss(const SealedPin& pin, const Path& path,
                                   const CancelToken& cancel);
  void open_share(const SealedPin& pin, const Path& path, std::size_t prime_bytes, Group& group,
                  const CancelToken& cancel);
  std::unique_ptr<Opened> open_leaf(const SealedPin& pin, const CancelToken& cancel) const;
  SecretBytes leaf_key(const SealedPin& pin, const CancelToken& cancel) const;
  void note(const SealedPin& pin, const Path& path, Clock::time_point start, const Error* error);

  const PinContext& context_;
  Deadline deadline_;
  bool reporting_;
  std::mutex report_mutex_;
  std::vector<ShareReport> report_;
};

void Opener::note(const SealedPin& pin, const Path& path, Clock::time_point start,
                  const Error* error) {
  if (!reporting_) return;
  ShareReport row{.path = path, .pin = pin.pin, .url = pin.url};
  row.outcome = ShareReport::Outcome::kOpened;
  if (error != nullptr) {
    const bool cancelled = error->code() == Code::kInterrupted;
    row.outcome = cancelled ? ShareReport::Outcome::kNotNeeded : ShareReport::Outcome::kFailed;
    if (!cancelled) row.error = *error;
  }
  row.elapsed_ms = static_cast<std::uint32_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start).count());
  const std::lock_guard lock(report_mutex_);
  report_.push_back(std::move(row));
}

std::unique_ptr<Opened> Opener::open(const SealedPin& pin, const Path& path,
                                     const CancelToken& cancel) {
  if (pin.pin == "sss" && !pin.problem && pin.state != ShareState::kPending) {
    return open_sss(pin, path, cancel);
  }
  const Clock::time_point start = Clock::now();
  try {
    std::unique_ptr<Opened> opened = open_leaf(pin, cancel);
    note(pin, path, start, nullptr);
    return opened;
  } catch (const Error& error) {
    note(pin, path, start, &error);
    throw;
  }
}

SecretBytes Opener::leaf_key(const SealedPin& pin, const CancelToken& cancel) const {
  if (pin.pin == "tang") {
    return context_.tang_key ? context_.tang_key(pin)
                             : recover_content_key(pin, context_, deadline_, cancel);
  }
  const Json header = jwe_header(pin.jwe, "the JWE");
  const Json& config = header.at("clevis").value(pin.pin, Json::object());
  if (pin.pin == "tpm2") {
    const TpmObject object{.public_area = bytes_member(config, "jwk_pub"),
                           .private_area = bytes_member(config, "jwk_priv")};
    return key_of_jwk(tpm2_unseal(pin.tpm2, object, context_.tcti).span(),
                      "the key that the TPM gave back");
  }
  if (pin.pin == "null") {
    if (!config.contains("jwk")) {
      throw Error(Code::kWrongPassphrase, "a pin 'null' was made never to open");
    }
    return key_of_jwk(as_byte_view(config.at("jwk").dump()), "the key of the pin 'null'");
  }
  throw Error(Code::kUnsupported,
              fmt::format("the pin '{}' is not known here", printable(pin.pin)));
}

std::unique_ptr<Opened> Opener::open_leaf(const SealedPin& pin, const CancelToken& cancel) const {
  if (pin.problem) throw Error(*pin.problem);
  if (pin.state == ShareState::kPending) {
    throw Error(Code::kNotFound, fmt::format("the share of '{}' is still pending",
                                             pin.url.empty() ? pin.pin : printable(pin.url, 128)));
  }
  auto opened = std::make_unique<Opened>();
  opened->key = leaf_key(pin, cancel);
  std::optional<SecretBytes> plain = decrypt_jwe(pin.jwe, opened->key.span());
  if (!plain) {
    throw pin.pin == "tang"
        ? Error(Code::kRemote,
                fmt::format("what '{}' answers does not open it", printable(pin.url, 128)),
                "another server is behind that name, or what was sealed has been changed")
        : Error(Code::kDamaged, fmt::format("what the pin '{}' sealed has been changed", pin.pin));
  }
  opened->plain = std::move(*plain);
  return opened;
}

void Opener::open_share(const SealedPin& pin, const Path& path, std::size_t prime_bytes,
                        Group& group, const CancelToken& cancel) {
  std::unique_ptr<Opened> opened;
  std::optional<Error> error;
  try {
    opened = open(pin, path, cancel);
  } catch (const Error& failed) {
    error = failed;
  } catch (const std::exception& failed) {
    error = Error(Code::kInternal, failed.what());
  }
  const std::lock_guard lock(group.mutex);
  if (opened != nullptr && is_share_beside(opened->plain.span(), prime_bytes, group.shares)) {
    group.shares.push_back(opened->plain.clone());
    group.opened[path.back()] = std::move(opened);
  } else if (opened != nullptr) {
    error = Error(Code::kDamaged, "a share is not one, or is there twice");
  }
  if (error) group.errors.push_back(std::move(*error));
  --group.running;
  group.changed.notify_all();
}

// What to say when too few shares have opened: the kind of what failed first, and all of it.
Error too_few(const SealedPin& pin, std::size_t opened, const std::vector<Error>& errors) {
  std::string list;
  for (const Error& error : errors) list += fmt::format("; {}", error.message());
  const auto passing = std::ranges::find_if(errors, [](const Error& error) {
    return error.code() == Code::kTimeout || error.code() == Code::kRemote;
  });
  Code code = errors.empty() ? Code::kInternal : errors.front().code();
  if (passing != errors.end()) code = passing->code();
  return Error(code,
               fmt::format("{} of {} shares that are needed open{}", opened, pin.threshold, list));
}

std::unique_ptr<Opened> Opener::open_sss(const SealedPin& pin, const Path& path,
                                         const CancelToken& cancel) {
  Group group;
  group.opened.resize(pin.shares.size());
  group.running = pin.shares.size();
  CancelToken enough(&cancel);
  {
    struct CancelOnExit {
      CancelToken& token;
      ~CancelOnExit() { token.cancel(); }
    };
    std::vector<std::jthread> threads;
    const CancelOnExit cancel_before_join{enough};
    threads.reserve(pin.shares.size());
    for (std::size_t i = 0; i < pin.shares.size(); ++i) {
      Path below = path;
      below.push_back(i);
      threads.emplace_back([this, &pin, &group, &enough, i, below = std::move(below)] {
        open_share(pin.shares[i], below, pin.prime_bytes, group, enough);
      });
    }
    std::unique_lock lock(group.mutex);
    group.changed.wait(lock, [&] {
      const bool done =
          !context_.all_shares && (group.shares.size() >= pin.threshold ||
                                   group.shares.size() + group.running < pin.threshold);
      return group.running == 0 || done;
    });
  }
  cancel.check();
  if (group.shares.size() < pin.threshold) {
    std::erase_if(group.errors, [](const Error& e) { return e.code() == Code::kInterrupted; });
    throw too_few(pin, group.shares.size(), group.errors);
  }
  group.shares.erase(group.shares.begin() + static_cast<std::ptrdiff_t>(pin.threshold),
                     group.shares.end());
  const Json header = jwe_header(pin.jwe, "the JWE");
  auto opened = std::make_unique<Opened>();
  opened->shared = std::make_unique<SharedSecret>(bytes_member(header.at("clevis").at("sss"), "p"),
                                                  group.shares);
  opened->key = opened->shared->key();
  std::optional<SecretBytes> plain = decrypt_jwe(pin.jwe, opened->key.span());
  if (!plain) throw Error(Code::kDamaged, "the shares do not fit together: one was exchanged");
  opened->plain = std::move(*plain);
  opened->children = std::move(group.opened);
  return opened;
}

}  // namespace

std::unique_ptr<Opened> open_tree(const SealedPin& root, const PinContext& context,
                                  std::vector<ShareReport>* report) {
  Opener opener(context, report != nullptr);
  const CancelToken cancel(context.cancel);
  try {
    std::unique_ptr<Opened> opened = opener.open(root, {}, cancel);
    if (report != nullptr) *report = opener.take_report();
    return opened;
  } catch (...) {
    if (report != nullptr) *report = opener.take_report();
    throw;
  }
}

}  // namespace lukskeep::nbde
