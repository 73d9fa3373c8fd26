#include "keys/credentials.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

namespace lukskeep::keys {
namespace {

std::string_view trimmed(std::string_view text) {
  const std::size_t start = text.find_first_not_of(" \t\r");
  if (start == std::string_view::npos) return {};
  return text.substr(start, text.find_last_not_of(" \t\r") - start + 1);
}

// Absent if it is something that a shell would have to work on.
std::optional<std::string_view> plain_value(std::string_view value) {
  if (value.size() >= 2 && (value.front() == '\'' || value.front() == '"') &&
      value.back() == value.front()) {
    const bool literal = value.front() == '\'';
    const std::string_view inner = value.substr(1, value.size() - 2);
    if (inner.find_first_of(literal ? "'" : "\"$`\\") != std::string_view::npos) return {};
    return inner;
  }
  if (value.find_first_of("'\"$`\\ \t;&|<>()") != std::string_view::npos) return {};
  return value;
}

}  // namespace

void Credentials::set(std::string name, SecretBytes value) {
  values_.insert_or_assign(std::move(name), std::move(value));
}

const SecretBytes* Credentials::find(std::string_view name) const {
  const auto found = values_.find(name);
  if (found == values_.end() || found->second.empty()) return nullptr;
  return &found->second;
}

std::string Credentials::text(std::string_view name) const {
  const SecretBytes* value = find(name);
  return value == nullptr ? std::string() : std::string(as_string_view(value->span()));
}

const SecretBytes& Credentials::need(std::string_view name) const {
  if (const SecretBytes* value = find(name)) return *value;
  throw Error(Code::kUsage, fmt::format("the credentials have no {}", name),
              "put a line NAME=VALUE into the file that LUKSKEEP_CREDENTIALS names, mode 0600");
}

Credentials parse_credentials(ByteView text, std::string_view what) {
  Credentials credentials;
  std::string_view rest = as_string_view(text);
  for (std::size_t number = 1; !rest.empty(); ++number) {
    const std::string_view raw = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), raw.size() + 1));
    std::string_view line = trimmed(raw);
    if (line.starts_with("export ")) line = trimmed(line.substr(7));
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view name = line.substr(0, equals);
    if (!name.starts_with("OS_") && !name.starts_with("VAULT_")) continue;
    const auto value = plain_value(trimmed(line.substr(equals + 1)));
    if (!value) {
      throw Error(
          Code::kInvalidArgument,
          fmt::format("{}, line {}: the value of {} is shell code", what, number, printable(name)),
          "write the value itself, in single quotes if it has special characters");
    }
    credentials.set(std::string(name), SecretBytes(as_byte_view(*value)));
  }
  return credentials;
}

}  // namespace lukskeep::keys
