// Configurations as `clevis luks list` spells them. Pure: no I/O.
#include <array>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/json.h"
#include "cli/compat_clevis.h"

namespace lukskeep::cli {
namespace {

constexpr std::array kShareOrder = {"null", "tang", "tpm2", "sss"};

// And then those of other programs: left out, whoever edits the list would lose them unseen.
std::vector<std::string> share_order(const nbde::SealedPin& sealed) {
  std::vector<std::string> order(kShareOrder.begin(), kShareOrder.end());
  std::set<std::string> others;
  for (const nbde::SealedPin& share : sealed.shares) {
    if (!share.problem && !nbde::is_known_pin(share.pin)) others.insert(share.pin);
  }
  order.insert(order.end(), others.begin(), others.end());
  return order;
}

OrderedJson to_config(const nbde::SealedPin& sealed);

// Grouped by pins, as the configuration has them. One sss in an sss stands without a list.
OrderedJson sss_config(const nbde::SealedPin& sealed) {
  OrderedJson pins = OrderedJson::object();
  for (const std::string& name : share_order(sealed)) {
    OrderedJson list = OrderedJson::array();
    for (const nbde::SealedPin& share : sealed.shares) {
      if (share.pin == name && !share.problem) list.push_back(to_config(share));
    }
    if (list.empty()) continue;
    pins[name] = list.size() == 1 && name == "sss" ? list.front() : list;
  }
  return {{"t", sealed.threshold}, {"pins", std::move(pins)}};
}

OrderedJson to_config(const nbde::SealedPin& sealed) {
  if (sealed.pin == "tang") return {{"url", sealed.url}};
  if (sealed.pin == "sss") return sss_config(sealed);
  OrderedJson config = OrderedJson::object();
  if (sealed.pin != "tpm2") return config;
  config["hash"] = sealed.tpm2.hash;
  config["key"] = sealed.tpm2.key;
  if (!sealed.tpm2.pcrs.empty()) {
    config["pcr_bank"] = sealed.tpm2.pcr_bank;
    config["pcr_ids"] = fmt::format("{}", fmt::join(sealed.tpm2.pcrs, ","));
  }
  return config;
}

}  // namespace

PinConfig clevis_config(const nbde::SealedPin& sealed) {
  std::string config =
      to_config(sealed).dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  // It stands between quotes like these, and scripts cut it out there.
  for (std::size_t at = 0; (at = config.find('\'', at)) != std::string::npos;) {
    config.replace(at, 1, "\\u0027");
  }
  return {.pin = sealed.pin, .config = std::move(config)};
}

}  // namespace lukskeep::cli
