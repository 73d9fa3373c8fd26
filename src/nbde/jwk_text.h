// JSON texts that hold a secret: it is taken out before a parser sees the rest.
#pragma once

#include <string>
#include <string_view>

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::nbde {

struct SplitJson {
  std::string rest;  // as it was, but for an empty string in place of the secret
  ByteView secret;   // the text between the quotes, in the input; empty if there is none
};

// Takes out the value of the member `name` of the outermost object. `text` need not be valid: then
// `rest` is not either.
SplitJson split_secret(ByteView text, std::string_view name);

// The reverse: `rest` is valid JSON with the member `name` being "", sorted and compact.
SecretBytes join_secret(std::string_view rest, std::string_view name, ByteView secret);

}  // namespace lukskeep::nbde
