#include "server/nbd/settings.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"

namespace lukskeep::server {
namespace {

constexpr std::size_t kFdMax = 1U << 20U;
constexpr std::size_t kNameBytesMax = 4096;  // the NBD protocol's own bound on strings

[[noreturn]] void refuse(std::string message, std::string hint = {}) {
  throw Error(Code::kUsage, std::move(message), std::move(hint));
}

// As nbdkit spells them.
bool parse_bool(std::string_view name, std::string_view value) {
  constexpr std::array<std::string_view, 5> yes = {"1", "true", "t", "yes", "on"};
  constexpr std::array<std::string_view, 5> no = {"0", "false", "f", "no", "off"};
  if (std::find(yes.begin(), yes.end(), value) != yes.end()) return true;
  if (std::find(no.begin(), no.end(), value) != no.end()) return false;
  refuse(fmt::format("{}: '{}' is neither true nor false", name, printable(value)));
}

Discard parse_discard(std::string_view value) {
  if (value == "off") return Discard::kOff;
  if (value == "on") return Discard::kOn;
  if (value == "zeroes") return Discard::kZeroes;
  refuse(fmt::format("discard: '{}' is none of off, on, zeroes", printable(value)));
}

std::size_t parse_count(std::string_view name, std::string_view value, std::size_t max) {
  std::size_t count = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), count);
  if (error != std::errc() || end != value.data() + value.size() || count > max) {
    refuse(fmt::format("{}: '{}' is not a number up to {}", name, printable(value), max));
  }
  return count;
}

ExportKey parse_key(std::string_view value) {
  keys::KeySource source = keys::parse_key_source(value);
  const bool is_volume_key = keys::is_volume_key(source);
  return {.source = std::move(source), .is_volume_key = is_volume_key};
}

ExportKey volume_key_of(std::size_t fd) {
  return {.source = {.kind = keys::KeySource::Kind::kFd, .fd = static_cast<int>(fd)},
          .is_volume_key = true,
          .close_fd = true};
}

}  // namespace

SettingsParser::Given& SettingsParser::current() {
  if (given_.empty()) given_.emplace_back();
  return given_.back();
}

void SettingsParser::take(std::string_view name, std::string_view value) {
  if (name == "export") {
    if (!given_.empty() && !given_.front().named) {
      refuse("export= stands behind a volume: it begins the next one, and all need a name then");
    }
    if (given_.size() == limits::kServeExportsMax) {
      refuse(fmt::format("more than {} exports", limits::kServeExportsMax));
    }
    if (value.size() > kNameBytesMax || value.find('\0') != std::string_view::npos) {
      refuse(fmt::format("export '{}': the name is too long", printable(value)));
    }
    given_.emplace_back().named = true;
    given_.back().settings.name = value;
  } else if (name == "connections") {
    all_.connections_max = parse_count(name, value, limits::kServeConnectionsMax);
  } else if (name == "announce") {
    // FD:TEXT. nbdkit's own standard output goes nowhere.
    const std::size_t colon = std::min(value.find(':'), value.size());
    all_.announcement_fd = static_cast<int>(parse_count(name, value.substr(0, colon), kFdMax));
    all_.announcement = value.substr(std::min(value.size(), colon + 1));
  } else if (name == "system-log") {
    all_.system_log = parse_bool(name, value);
  } else if (name == "remove-socket") {
    all_.socket = value;
  } else {
    take_of_volume(name, value);
  }
}

void SettingsParser::take_of_volume(std::string_view name, std::string_view value) {
  if (name == "backing-key" || name == "backing-volume-key-fd") {
    take_backing_key(name, value);
    return;
  }
  Given& given = current();
  ExportSettings& settings = given.settings;
  if (name == "file") {
    settings.path = value;
  } else if (name == "header") {
    settings.header_path = value;
  } else if (name == "key") {
    settings.key = parse_key(value);
    given.has_key = true;
  } else if (name == "volume-key-fd") {
    settings.key = volume_key_of(parse_count(name, value, kFdMax));
    given.has_key = true;
  } else if (name == "readonly") {
    settings.read_only = parse_bool(name, value);
  } else if (name == "discard") {
    settings.discard = parse_discard(value);
  } else if (name == "allow-insecure") {
    settings.allow_insecure = parse_bool(name, value);
  } else if (name == "allow-backing") {
    settings.allow_backing = parse_bool(name, value);
  } else if (name == "allow-data-file") {
    settings.allow_data_file = parse_bool(name, value);
  } else {
    refuse(fmt::format("unknown parameter '{}'", printable(name)));
  }
  // Two ways to give the key count as one.
  const std::string once(name == "volume-key-fd" ? "key" : name);
  if (std::find(given.names.begin(), given.names.end(), once) != given.names.end()) {
    refuse(fmt::format("{}= is given twice for one volume", name));
  }
  given.names.push_back(once);
}

void SettingsParser::take_backing_key(std::string_view name, std::string_view value) {
  std::vector<ExportKey>& keys = current().settings.backing_keys;
  if (keys.size() == limits::kQcow2ChainMax) {
    refuse(fmt::format("{}= is given more than {} times", name, limits::kQcow2ChainMax));
  }
  keys.push_back(name == "backing-key" ? parse_key(value)
                                       : volume_key_of(parse_count(name, value, kFdMax)));
}

PluginSettings SettingsParser::finish() {
  if (given_.empty()) refuse("no volume is given", "name it: file=PATH key=SOURCE");
  std::set<std::string> names;
  for (Given& given : given_) {
    ExportSettings& settings = given.settings;
    const std::string which =
        given.named ? fmt::format("export '{}'", printable(settings.name)) : "the volume";
    if (settings.path.empty()) refuse(fmt::format("{} has no file=PATH", which));
    if (!given.has_key) {
      refuse(fmt::format("{} has no key=SOURCE", which),
             "e.g. key=file:PATH, or key=prompt: to be asked for it");
    }
    if (!settings.backing_keys.empty() && !settings.allow_backing) {
      refuse(fmt::format("{} has a backing-key=, and backing files are not read", which),
             "allow-backing=true allows that, if you trust who made the image");
    }
    if (!names.insert(settings.name).second) refuse(fmt::format("{} is given twice", which));
    all_.exports.push_back(std::move(settings));
  }
  given_.clear();
  return std::move(all_);
}

}  // namespace lukskeep::server
