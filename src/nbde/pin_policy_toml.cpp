// Policy files: TOML is toml++'s business; what the members are, ours.
#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <toml++/toml.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/toml_text.h"
#include "nbde/pin_policy.h"

namespace lukskeep::nbde {
namespace {

class Reader {
 public:
  explicit Reader(std::string_view name) : name_(name) {}

  // The root or a region: `threshold` of its pins; of its regions only the `closest` count.
  PinPolicy read_group(const toml::table& table, bool is_root, std::size_t depth) const;

  [[noreturn]] void fail(std::uint64_t line, std::string_view problem) const {
    throw Error(Code::kInvalidArgument,
                fmt::format("policy '{}', line {}: {}", printable(name_, 256), line, problem),
                "lukskeep-seal(1) describes the file");
  }

 private:
  struct Region {
    std::int64_t distance = 0;
    std::size_t place = 0;  // in the file
    PinPolicy policy;
  };

  static std::uint64_t line_of(const toml::node& node) { return node.source().begin.line; }

  std::string text(const toml::node& node, std::string_view member) const {
    if (!node.is_string()) fail(line_of(node), fmt::format("'{}' is not a string", member));
    return node.as_string()->get();
  }

  unsigned number(const toml::node& node, std::string_view member) const {
    const auto* value = node.as_integer();
    if (value == nullptr || value->get() < 0 || std::cmp_greater(value->get(), UINT32_MAX)) {
      fail(line_of(node), fmt::format("'{}' is not a whole number", member));
    }
    return static_cast<unsigned>(value->get());
  }

  // Calls `take` for each element of an array, or for what is none.
  static void each(const toml::node& node, const std::function<void(const toml::node&)>& take) {
    if (!node.is_array()) return take(node);
    for (const toml::node& one : *node.as_array()) take(one);
  }

  const toml::table& table_of(const toml::node& node, std::string_view member) const {
    if (!node.is_table()) fail(line_of(node), fmt::format("'{}' is not a table", member));
    return *node.as_table();
  }

  PinPolicy read_tang(const toml::node& node) const;
  PinPolicy read_tpm2(const toml::node& node) const;
  Region read_region(const toml::node& node, std::size_t depth) const;

  std::string_view name_;
};

// A URL alone, or a table.
PinPolicy Reader::read_tang(const toml::node& node) const {
  if (node.is_string()) return {TangPin{.url = node.as_string()->get()}};
  TangPin tang;
  for (const auto& [key, value] : table_of(node, "tang")) {
    if (key == "url") {
      tang.url = text(value, "url");
    } else if (key == "thp") {
      tang.thumbprint = text(value, "thp");
    } else if (key == "adv") {
      tang.advertisement_path = text(value, "adv");
    } else {
      fail(line_of(value), fmt::format("'{}' of a tang is not known", printable(key.str())));
    }
  }
  if (tang.url.empty()) fail(line_of(node), "a tang has no 'url'");
  return {tang};
}

PinPolicy Reader::read_tpm2(const toml::node& node) const {
  Tpm2Pin tpm2;
  for (const auto& [key, value] : table_of(node, "tpm2")) {
    if (key == "pcrs") {
      each(value, [&](const toml::node& one) { tpm2.pcrs.push_back(number(one, "pcrs")); });
      std::ranges::sort(tpm2.pcrs);
    } else if (key == "bank") {
      tpm2.pcr_bank = text(value, "bank");
    } else if (key == "hash") {
      tpm2.hash = text(value, "hash");
    } else if (key == "key") {
      tpm2.key = text(value, "key");
    } else {
      fail(line_of(value), fmt::format("'{}' of a tpm2 is not known", printable(key.str())));
    }
  }
  return {tpm2};
}

Reader::Region Reader::read_region(const toml::node& node, std::size_t depth) const {
  const toml::table& table = table_of(node, "region");
  Region region;
  if (const toml::node* distance = table.get("distance")) {
    region.distance = number(*distance, "distance");
  }
  region.policy = read_group(table, false, depth + 1);
  return region;
}

PinPolicy Reader::read_group(const toml::table& table, bool is_root, std::size_t depth) const {
  const std::uint64_t line = is_root ? 1 : line_of(table);
  if (depth > limits::kPinDepthMax) fail(line, "regions are nested too deep");
  std::optional<unsigned> threshold;
  std::optional<unsigned> closest;
  std::vector<Region> regions;
  std::vector<PinPolicy> pins;
  for (const auto& [key, value] : table) {
    if (key == "threshold") {
      threshold = number(value, "threshold");
    } else if (key == "closest") {
      closest = number(value, "closest");
    } else if (key == "tang") {
      each(value, [&](const toml::node& one) { pins.push_back(read_tang(one)); });
    } else if (key == "tpm2") {
      each(value, [&](const toml::node& one) { pins.push_back(read_tpm2(one)); });
    } else if (key == "region") {
      each(value, [&](const toml::node& one) { regions.push_back(read_region(one, depth)); });
    } else if (is_root || (key != "name" && key != "distance")) {
      fail(line_of(value), fmt::format("'{}' is not known", printable(key.str())));
    }
  }
  for (std::size_t i = 0; i < regions.size(); ++i) regions[i].place = i;
  std::ranges::sort(regions, {},
                    [](const Region& region) { return std::pair(region.distance, region.place); });
  if (closest && (*closest == 0 || *closest > regions.size())) {
    fail(line, fmt::format("'closest' is {}, of {} regions", *closest, regions.size()));
  }
  regions.resize(closest.value_or(static_cast<unsigned>(regions.size())));
  for (Region& region : regions) pins.push_back(std::move(region.policy));
  if (pins.empty()) fail(line, "there is neither a tang, a tpm2 nor a region");
  if (pins.size() == 1 && threshold.value_or(1) == 1) return std::move(pins.front());
  if (!threshold) fail(line, fmt::format("{} pins want a 'threshold'", pins.size()));
  return {SssPin{.threshold = *threshold, .pins = std::move(pins)}};
}

}  // namespace

PinPolicy parse_pin_policy_toml(std::string_view text, std::string_view name) {
  const Reader reader(name);
  if (text.size() > limits::kPolicyBytesMax) reader.fail(1, "it is too large");
  const std::string fit = fit_for_toml_parser(
      text, [&](std::uint64_t line, const std::string& problem) { reader.fail(line, problem); });
  toml::table root;
  try {
    root = toml::parse(fit);
  } catch (const toml::parse_error& error) {
    reader.fail(error.source().begin.line, printable(error.description(), 256));
  }
  PinPolicy policy = reader.read_group(root, true, 0);
  check_pin_policy(policy);
  return policy;
}

}  // namespace lukskeep::nbde
