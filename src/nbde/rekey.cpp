#include "nbde/rekey.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <system_error>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/base64url.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "crypto/hash.h"
#include "nbde/advertisement.h"

namespace lukskeep::nbde {
namespace {

constexpr const char* kJournalType = "lukskeep-rekey-journal";
constexpr const char* kReportType = "lukskeep-rekey-report";
constexpr std::uint64_t kKeyslotMax = 31;  // LUKS2

// A key that a tang depends on. One that is pending has no more than its thumbprint.
struct Needed {
  std::optional<EcPoint> point;
  std::string name;  // thumbprint
  bool signs = false;

  bool is(std::string_view key) const { return point ? has_thumbprint(*point, key) : name == key; }
  bool is_among(std::span<const std::string> keys) const {
    return std::ranges::any_of(keys, [this](const auto& key) { return is(key); });
  }
};

void collect_needed(const SealedPin& pin, std::vector<Needed>& needed) {
  if (pin.problem) return;
  if (pin.pin == "tang" && pin.state == ShareState::kPending) {
    needed.push_back({.point = {}, .name = pin.thumbprint, .signs = true});
  } else if (pin.pin == "tang") {
    for (const EcKey& key : parse_key_set(pin.advertisement, "the keys of the server")) {
      const bool signs = key.use.allows("verify", true);
      if (!signs && !has_thumbprint(key.point, pin.kid)) continue;
      needed.push_back({.point = key.point, .name = thumbprint(key.point), .signs = signs});
    }
  }
  for (const SealedPin& share : pin.shares) collect_needed(share, needed);
}

std::vector<Needed> needed_by(const SealedPin& pin) {
  std::vector<Needed> needed;
  collect_needed(pin, needed);
  return needed;
}

std::string digest_of(const Jwe& jwe) {
  return to_base64url(crypto::hash("sha256", as_byte_view(to_compact(jwe))));
}

[[noreturn]] void fail(Code code, const std::string& name, std::string_view problem) {
  throw Error(code, fmt::format("the journal '{}' {}", name, problem));
}

[[noreturn]] void fail_errno(const std::string& name, std::string_view doing) {
  const int number = errno;
  const Code code = number == EACCES   ? Code::kPermissionDenied
                    : number == ENOENT ? Code::kNotFound
                    : number == ENOSPC ? Code::kNoSpace
                                       : Code::kIo;
  throw Error(code, fmt::format("cannot {} the journal '{}': {}", doing, name,
                                std::generic_category().message(number)));
}

std::string read_all(int fd, const std::string& name) {
  struct stat status{};
  if (fstat(fd, &status) != 0) fail_errno(name, "read");
  if (!S_ISREG(status.st_mode)) fail(Code::kInvalidArgument, name, "is no file");
  if (static_cast<std::uint64_t>(status.st_size) > limits::kRekeyTextBytesMax) {
    fail(Code::kInvalidArgument, name, "is too large");
  }
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t got = pread(fd, text.data() + done, text.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_errno(name, "read");
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  text.resize(done);
  return text;
}

// So that a journal that was just made is there after a power cut.
void flush_folder_of(const std::string& path, const std::string& name) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const int fd = open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail_errno(name, "keep");
  // Some file systems have no such notion (EINVAL).
  const bool failed = fsync(fd) != 0 && errno != EINVAL;
  const int number = errno;
  close(fd);
  errno = number;
  if (failed) fail_errno(name, "keep");
}

}  // namespace

std::set<std::string> keys_of(const SealedPin& pin) {
  std::set<std::string> keys;
  for (const Needed& key : needed_by(pin)) {
    if (!key.name.empty()) keys.insert(key.name);
  }
  return keys;
}

bool depends_on(const SealedPin& pin, std::span<const std::string> keys) {
  return std::ranges::any_of(needed_by(pin),
                             [&](const Needed& key) { return keys.empty() || key.is_among(keys); });
}

bool trusts(const SealedPin& pin, std::span<const std::string> keys) {
  return std::ranges::any_of(needed_by(pin),
                             [&](const Needed& key) { return key.signs && key.is_among(keys); });
}

std::set<std::string> unexpected_keys(const SealedPin& before, const SealedPin& after,
                                      std::span<const std::string> expected) {
  const std::set<std::string> known = keys_of(before);
  std::set<std::string> unexpected;
  for (const Needed& key : needed_by(after)) {
    if (!known.contains(key.name) && !key.is_among(expected)) unexpected.insert(key.name);
  }
  return unexpected;
}

RekeyJournal::RekeyJournal(const std::string& path) : name_(printable(path, 256)) {
  fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
  if (fd_ < 0) fail_errno(name_, "open");
  try {
    if (flock(fd_, LOCK_EX | LOCK_NB) != 0) fail(Code::kBusy, name_, "is in use by another run");
    load(path);
  } catch (...) {
    close(fd_);
    throw;
  }
}

RekeyJournal::~RekeyJournal() { close(fd_); }

void RekeyJournal::load(const std::string& path) {
  const std::string text = read_all(fd_, name_);
  const std::string head = Json{{"type", kJournalType}, {"version", 1}}.dump();
  // A line without its end is one that was cut; a file that is none of ours stays as it is.
  const std::size_t whole = text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1;
  if (whole == 0 && !head.starts_with(text)) {
    fail(Code::kInvalidArgument, name_, "is no journal of a rekeying");
  }
  std::string_view rest = std::string_view(text).substr(0, whole);
  for (std::size_t line = 1; !rest.empty(); ++line) {
    const std::string_view one = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(one.size() + 1);
    Json json;
    try {
      json = parse_json(one, fmt::format("line {}", line));
    } catch (const Error& error) {
      fail(Code::kInvalidArgument, name_, fmt::format("is damaged: {}", error.message()));
    }
    if (line == 1) {
      check_head(json);
    } else {
      load_line(json, line);
    }
  }
  if (whole != text.size() && ftruncate(fd_, static_cast<off_t>(whole)) != 0) {
    fail_errno(name_, "write");
  }
  if (whole != 0) return;
  append(head);
  flush_folder_of(path, name_);
}

void RekeyJournal::check_head(const Json& json) const {
  if (!json.is_object() || json.value("type", Json()) != kJournalType ||
      json.value("version", Json()) != 1) {
    fail(Code::kInvalidArgument, name_, "is no journal of a rekeying");
  }
}

void RekeyJournal::load_line(const Json& json, std::size_t line) {
  const auto member = [&](const char* name) {
    return json.is_object() ? json.value(name, Json()) : Json();
  };
  const Json keyslot = member("keyslot");
  const Json uuid = member("uuid");
  const Json sealed = member("sealed");
  if (!keyslot.is_number_unsigned() || keyslot.get<std::uint64_t>() > kKeyslotMax ||
      !uuid.is_string() || !sealed.is_string()) {
    fail(Code::kInvalidArgument, name_, fmt::format("is damaged in line {}", line));
  }
  done_.emplace(uuid.get<std::string>(), keyslot.get<int>(), sealed.get<std::string>());
}

void RekeyJournal::append(const std::string& line) {
  struct stat before{};
  if (fstat(fd_, &before) != 0) fail_errno(name_, "write");
  const std::string text = line + "\n";
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t wrote = write(fd_, rest.data(), rest.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) break;
    rest.remove_prefix(static_cast<std::size_t>(wrote));
  }
  if (rest.empty() && fdatasync(fd_) == 0) return;
  const int number = errno;
  // Behind half a line the next one would be damage.
  static_cast<void>(!ftruncate(fd_, before.st_size));
  errno = number;
  fail_errno(name_, "write");
}

void RekeyJournal::finish() {
  const std::lock_guard lock(mutex_);
  if (ftruncate(fd_, 0) != 0 || fdatasync(fd_) != 0) fail_errno(name_, "empty");
  done_.clear();
}

bool RekeyJournal::is_done(std::string_view uuid, int keyslot, const Jwe& jwe) const {
  const std::lock_guard lock(mutex_);
  return done_.contains({std::string(uuid), keyslot, digest_of(jwe)});
}

void RekeyJournal::note(std::string_view uuid, int keyslot, const Jwe& jwe) {
  const std::string digest = digest_of(jwe);
  const Json line = {
      {"uuid", uuid}, {"keyslot", static_cast<unsigned>(keyslot)}, {"sealed", digest}};
  const std::lock_guard lock(mutex_);
  append(line.dump(-1, ' ', false, Json::error_handler_t::replace));
  done_.emplace(uuid, keyslot, digest);
}

OrderedJson rekey_report(std::span<const std::string> keys,
                         std::span<const RekeyedVolume> volumes) {
  OrderedJson list = OrderedJson::array();
  std::set<std::string> in_use;
  std::size_t left = 0;
  for (const RekeyedVolume& volume : volumes) {
    OrderedJson row = {{"volume", volume.volume}, {"uuid", volume.uuid}};
    row["state"] = !volume.left.empty() ? "left" : volume.rebound.empty() ? "unchanged" : "done";
    row["keyslots"] = volume.rebound;
    row["unproven"] = volume.unproven;
    row["left"] = OrderedJson::array();
    for (const RekeyedVolume::Problem& problem : volume.left) {
      OrderedJson one = {{"keyslot", problem.keyslot}};
      if (problem.keyslot < 0) one["keyslot"] = nullptr;
      one["code"] = code_name(problem.error.code());
      one["message"] = problem.error.message();
      row["left"].push_back(std::move(one));
    }
    row["unknown_pins"] = OrderedJson::array();
    for (const auto& [keyslot, pin] : volume.unknown) {
      row["unknown_pins"].push_back({{"keyslot", keyslot}, {"pin", pin}});
    }
    left += volume.left.size();
    in_use.insert(volume.in_use.begin(), volume.in_use.end());
    list.push_back(std::move(row));
  }
  return {{"type", kReportType}, {"version", 1},     {"keys", keys},   {"good", left == 0},
          {"left", left},        {"in_use", in_use}, {"volumes", list}};
}

RekeyVerdict parse_rekey_report(std::string_view text, std::string_view what) {
  const auto fail_report = [&](std::string_view problem) {
    throw Error(Code::kInvalidArgument, fmt::format("{} {}", what, problem));
  };
  if (text.size() > limits::kRekeyTextBytesMax) fail_report("is too large");
  Json json;
  try {
    json = parse_json(text, what);
  } catch (const Error& error) {
    throw Error(Code::kInvalidArgument, error.message());
  }
  if (!json.is_object() || json.value("type", Json()) != kReportType ||
      json.value("version", Json()) != 1) {
    fail_report("is no report of a rekeying");
  }
  const Json left = json.value("left", Json());
  const Json volumes = json.value("volumes", Json());
  const Json in_use = json.value("in_use", Json());
  const Json keys = json.value("keys", Json());
  if (!left.is_number_unsigned() || !volumes.is_array() || !in_use.is_array() || !keys.is_array()) {
    fail_report("does not say what is left");
  }
  const auto texts = [&](const Json& list) {
    std::set<std::string> result;
    for (const Json& key : list) {
      if (!key.is_string()) fail_report("names keys that are none");
      result.insert(key.get<std::string>());
    }
    return result;
  };
  return {.volumes = volumes.size(),
          .left = left.get<std::size_t>(),
          .in_use = texts(in_use),
          .keys = texts(keys)};
}

}  // namespace lukskeep::nbde
