// JSON (nlohmann) with the strictness that hostile input needs.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace lukskeep {

using Json = nlohmann::json;
// Keeps members in the order of insertion: for what people read.
using OrderedJson = nlohmann::ordered_json;

// Parses one JSON text (RFC 8259). Beyond the syntax it refuses what other readers would
// understand differently: a repeated member name (nlohmann would keep the last), text that is no
// UTF-8, a depth above limits::kJsonDepthMax.
// Throws Error{kDamaged}; the message starts with `what` (e.g. "LUKS2 metadata of 'x'").
Json parse_json(std::string_view text, std::string_view what);

// The members of the object `text`, each value as the slice of `text` that spells it, without
// white space around it. `text` must have passed parse_json and must outlive the result; the
// names are decoded. Empty if `text` is not an object.
std::map<std::string, std::string_view> json_member_texts(std::string_view text);

}  // namespace lukskeep
