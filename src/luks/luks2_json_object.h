// Reading and writing single JSON objects of LUKS2 metadata. Internal to the LUKS2 codec.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lukskeep/header.h>

#include "base/bytes.h"
#include "base/json.h"

namespace lukskeep::luks {

// Inclusive bounds of a JSON number.
struct U32Range {
  std::uint32_t min = 0;
  std::uint32_t max = UINT32_MAX;
};

// One object and who it is. Each getter takes a member: rest() is what nobody took. Every getter
// throws Error{kDamaged} "WHERE: 'NAME' ..." if the member is missing or not what it must be.
// Refers to the value and text it was made from, which must outlive it.
class JsonReader {
 public:
  // `text` spells `value`. Throws unless that is an object.
  JsonReader(const Json& value, std::string_view text, std::string where);

  bool has(const std::string& name) const;
  bool is_array(const std::string& name) const;

  // A string that is neither empty nor holds a zero byte (readers in C would stop there).
  std::string text(const std::string& name);
  // A number without fraction or exponent.
  std::uint32_t u32(const std::string& name, U32Range range = {});
  // A string of decimal digits in canonical form: LUKS2 §3 spells 64-bit numbers so.
  std::uint64_t u64(const std::string& name);
  Bytes base64(const std::string& name, std::size_t size_min, std::size_t size_max);
  std::set<std::string> texts(const std::string& name);
  // An array of ids, spelt as strings, below `count_max`.
  std::set<int> ids(const std::string& name, int count_max);
  JsonReader object(const std::string& name);
  // The members of the object `name`, which are themselves objects called by their ids. `kind` is
  // what one is called in messages, e.g. "keyslot".
  std::vector<std::pair<int, JsonReader>> numbered(const std::string& name, std::string_view kind,
                                                   int count_max);
  // The text that spells this object.
  std::string_view spelling() const noexcept { return spelling_; }
  UnknownMembers rest() const;

  [[noreturn]] void fail(std::string_view problem) const;
  // For a member whose value is not `expected`.
  [[noreturn]] void fail(const std::string& name, std::string_view expected) const;

 private:
  const Json& take(const std::string& name);

  const Json* value_;
  std::string_view spelling_;
  std::map<std::string, std::string_view> texts_;
  std::string where_;
  std::set<std::string> taken_;
};

// Collects members and spells the object, in the compact form that json-c writes.
class JsonWriter {
 public:
  void add_json(std::string_view name, std::string_view json);
  void add_text(std::string_view name, std::string_view text);
  void add_u32(std::string_view name, std::uint32_t value);
  void add_u64(std::string_view name, std::uint64_t value);
  void add_base64(std::string_view name, ByteView bytes);
  void add_texts(std::string_view name, const std::set<std::string>& texts);
  void add_ids(std::string_view name, const std::set<int>& ids);
  void add_all(const UnknownMembers& members);
  std::string finish() const { return "{" + members_ + "}"; }

 private:
  std::string members_;
};

// An array of ids, spelt as strings: ["0","1"].
std::string spell_ids(const std::set<int>& ids);

// `text` as a JSON string. Throws Error{kDamaged} if it is not UTF-8.
std::string quote_json(std::string_view text);

}  // namespace lukskeep::luks
