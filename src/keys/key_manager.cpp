#include "keys/key_manager.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"

namespace lukskeep::keys {
namespace {

constexpr std::array<std::pair<SecretType, std::string_view>, 6> kTypes = {{
    {SecretType::kSymmetric, "symmetric"},
    {SecretType::kPassphrase, "passphrase"},
    {SecretType::kOpaque, "opaque"},
    {SecretType::kPublic, "public"},
    {SecretType::kPrivate, "private"},
    {SecretType::kCertificate, "certificate"},
}};

void check_text(std::string_view what, std::string_view text) {
  if (text.size() <= limits::kSecretTextBytesMax && is_utf8(text) &&
      text.find('\0') == std::string_view::npos) {
    return;
  }
  throw Error(Code::kInvalidArgument, fmt::format("the {} of a secret is UTF-8 of at most {} bytes",
                                                  what, limits::kSecretTextBytesMax));
}

bool is_metadata_name(std::string_view name) {
  return !name.empty() && name.size() <= limits::kSecretTextBytesMax &&
         std::ranges::all_of(name, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
         });
}

// The number in a fixed range of `text`; absent if it is none.
std::optional<int> number_at(std::string_view text, std::size_t start, std::size_t digits) {
  int value = 0;
  const char* end = text.data() + start + digits;
  const auto [stop, error] = std::from_chars(text.data() + start, end, value);
  if (error != std::errc() || stop != end || text[start] == '-') return std::nullopt;
  return value;
}

}  // namespace

std::string_view secret_type_name(SecretType type) noexcept {
  return std::ranges::find(kTypes, type, &std::pair<SecretType, std::string_view>::first)->second;
}

SecretType parse_secret_type(std::string_view text) {
  for (const auto& [type, name] : kTypes) {
    if (name == text) return type;
  }
  throw Error(Code::kUsage, fmt::format("'{}' is no type of a secret", printable(text)),
              "symmetric, passphrase, opaque, public, private, certificate");
}

void check_metadata(const Metadata& metadata) {
  if (metadata.size() > limits::kSecretMetadataMax) {
    throw Error(Code::kInvalidArgument, fmt::format("a secret has at most {} words of metadata",
                                                    limits::kSecretMetadataMax));
  }
  for (const auto& [name, value] : metadata) {
    if (!is_metadata_name(name)) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("'{}' is no name of metadata", printable(name)),
                  "lower-case letters, digits, '-' and '_'");
    }
    check_text("metadata", value);
  }
}

Consumer parse_consumer(std::string_view text) {
  const std::size_t first = text.find('/');
  const std::size_t second = first == std::string_view::npos ? first : text.find('/', first + 1);
  if (second != std::string_view::npos && first != 0 && second != first + 1 &&
      second + 1 != text.size()) {
    Consumer consumer{.service = std::string(text.substr(0, first)),
                      .resource_type = std::string(text.substr(first + 1, second - first - 1)),
                      .resource_id = std::string(text.substr(second + 1))};
    if (text.size() <= limits::kSecretTextBytesMax && is_utf8(text)) return consumer;
  }
  throw Error(Code::kUsage, fmt::format("'{}' is no consumer", printable(text)),
              "it is written SERVICE/TYPE/ID, e.g. image/image/6c7b…");
}

std::string to_string(const Consumer& consumer) {
  return fmt::format("{}/{}/{}", consumer.service, consumer.resource_type, consumer.resource_id);
}

AccessList KeyManager::access(const std::string& /*id*/) {
  throw Error(Code::kUnsupported, fmt::format("{} has no access lists", description()));
}

void KeyManager::set_access(const std::string& id, const AccessList& /*access*/) {
  static_cast<void>(KeyManager::access(id));
}

void KeyManager::refuse_used(const std::string& id, const std::vector<Consumer>& consumers) {
  if (consumers.empty()) return;
  std::string users;
  for (const Consumer& consumer : consumers) {
    if (users.size() > 400) {
      users += ", …";
      break;
    }
    users += fmt::format("{}{}", users.empty() ? "" : ", ", printable(to_string(consumer), 128));
  }
  throw Error(Code::kUnsafe,
              fmt::format("secret '{}' is used by {}: {}", printable(id, 128),
                          consumers.size() == 1 ? "one consumer"
                                                : fmt::format("{} consumers", consumers.size()),
                          users),
              "what it encrypts would be lost; remove the consumers first, or add --used-too");
}

void check_new_secret(const SecretInfo& info, ByteView payload, const Metadata& metadata) {
  if (payload.empty()) throw Error(Code::kInvalidArgument, "the secret is empty");
  if (payload.size() > limits::kSecretBytesMax) {
    throw Error(Code::kInvalidArgument, fmt::format("a secret has at most {} bytes, not {}",
                                                    limits::kSecretBytesMax, payload.size()));
  }
  check_text("name", info.name);
  check_text("algorithm", info.algorithm);
  check_text("mode", info.mode);
  check_metadata(metadata);
}

std::string time_text(std::int64_t seconds) {
  const std::chrono::sys_seconds time{std::chrono::seconds(seconds)};
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(time - day);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                     clock.hours().count(), clock.minutes().count(), clock.seconds().count());
}

std::optional<std::int64_t> parse_time(std::string_view text) {
  if (text.ends_with('Z')) text.remove_suffix(1);
  constexpr std::size_t kSize = 19;  // "2026-03-01T12:00:00"
  if (text.size() < kSize || (text.size() > kSize && text[kSize] != '.')) return std::nullopt;
  if (text[4] != '-' || text[7] != '-' || (text[10] != 'T' && text[10] != ' ') || text[13] != ':' ||
      text[16] != ':') {
    return std::nullopt;
  }
  const auto year = number_at(text, 0, 4);
  const auto month = number_at(text, 5, 2);
  const auto day = number_at(text, 8, 2);
  const auto hour = number_at(text, 11, 2);
  const auto minute = number_at(text, 14, 2);
  const auto second = number_at(text, 17, 2);
  if (!year || !month || !day || !hour || !minute || !second) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(*year),
                                         std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day))};
  if (!date.ok() || *hour > 23 || *minute > 59 || *second > 60) return std::nullopt;
  const auto days = std::chrono::sys_days(date).time_since_epoch();
  const auto time = days + std::chrono::hours(*hour) + std::chrono::minutes(*minute) +
                    std::chrono::seconds(*second);
  return time.count();
}

}  // namespace lukskeep::keys
