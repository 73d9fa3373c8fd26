// Members of JSON that may be anything: what is not there, or of another kind, is empty.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"

namespace lukskeep::vm {

// Null if `value` is no object or has no such member.
inline const Json& member(const Json& value, const char* name) {
  static const Json none;
  if (!value.is_object()) return none;
  const auto found = value.find(name);
  return found != value.end() ? *found : none;
}

inline std::string text_member(const Json& value, const char* name) {
  const Json& text = member(value, name);
  return text.is_string() ? text.get<std::string>() : std::string();
}

inline bool true_member(const Json& value, const char* name) {
  const Json& flag = member(value, name);
  return flag.is_boolean() && flag.get<bool>();
}

// -1 for what is no integer.
inline std::int64_t number_member(const Json& value, const char* name) {
  const Json& number = member(value, name);
  return number.is_number_integer() ? number.get<std::int64_t>() : -1;
}

}  // namespace lukskeep::vm
