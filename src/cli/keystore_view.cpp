#include "cli/keystore_view.h"

#include <fmt/format.h>

#include "base/bytes.h"

namespace lukskeep::cli {
namespace {

OrderedJson text_or_null(const std::string& text) {
  return text.empty() ? OrderedJson(nullptr) : OrderedJson(text);
}

}  // namespace

OrderedJson secret_json(const keys::SecretInfo& info) {
  return {{"id", info.id},
          {"name", info.name},
          {"type", keys::secret_type_name(info.type)},
          {"algorithm", text_or_null(info.algorithm)},
          {"bit_length", info.bit_length ? OrderedJson(*info.bit_length) : OrderedJson(nullptr)},
          {"mode", text_or_null(info.mode)},
          {"content_type", info.content_type},
          {"created", keys::time_text(info.created_s)},
          {"expires",
           info.expires_s ? OrderedJson(keys::time_text(*info.expires_s)) : OrderedJson(nullptr)}};
}

OrderedJson consumer_json(const keys::Consumer& consumer) {
  return {{"service", consumer.service},
          {"resource_type", consumer.resource_type},
          {"resource_id", consumer.resource_id}};
}

OrderedJson consumers_json(const std::vector<keys::Consumer>& consumers) {
  OrderedJson json = OrderedJson::array();
  for (const keys::Consumer& consumer : consumers) json.push_back(consumer_json(consumer));
  return json;
}

std::string secret_line(const keys::SecretInfo& info) {
  return fmt::format("{:<36}  {:<11}  {}  {}\n", printable(info.id, 128),
                     keys::secret_type_name(info.type), keys::time_text(info.created_s),
                     printable(info.name, 256));
}

std::string secret_words(const keys::SecretInfo& info) {
  return fmt::format("{} secret '{}' ({})", keys::secret_type_name(info.type),
                     printable(info.name, 256), printable(info.id, 128));
}

}  // namespace lukskeep::cli
