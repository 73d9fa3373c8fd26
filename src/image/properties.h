// What OpenStack's services are told of an encrypted image: the property sets of every generation,
// read into one description, and written from it.
//
//   spec    os_encrypt_*, os_decrypt_*: the standard of Glance's and Cinder's specifications
//           (glance-specs 2025.1, cinder-specs 2026.1); drafts of 2024 are read as well
//   cinder  cinder_encryption_key_id and its deletion policy: what deployed clouds write
//   nova    hw_ephemeral_encryption*: how Nova encrypts the disk of an instance
//
// Pure: values in, values out.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "image/inspector.h"

namespace lukskeep::image {

// As Glance has them: each value is text. disk_format and container_format are among them.
using Properties = std::map<std::string, std::string>;

enum class Style : std::uint8_t { kSpec, kCinder, kNova };
inline constexpr std::array kStyles = {Style::kSpec, Style::kCinder, Style::kNova};
// "spec", "cinder", "nova".
std::string_view style_name(Style style) noexcept;
// Throws Error{kUsage}.
Style parse_style(std::string_view text);

// How the image is encrypted, as far as a set says it.
enum class Encryption : std::uint8_t {
  kNone,
  kLuks,  // one of the versions: drafts, and Nova's "luks", do not say which
  kLuks1,
  kLuks2,
  kPlain,  // Nova's dm-crypt without a header
  kOther,  // a word that nobody has defined
};

// Something wrong with a set, or missing from it, by a stable name such as "key-id-missing".
struct PropertyProblem {
  std::string name;
  bool error = true;     // false: worth knowing
  std::string property;  // may be empty
  std::string what;      // one sentence without a full stop
  std::string remedy;
};

// All generations in one; what a set does not say is empty.
struct Description {
  std::string disk_format;  // lower case: "luks", "qcow2", "raw" …
  std::string container_format;
  Encryption encryption = Encryption::kNone;
  std::string key_id;
  std::optional<bool> delete_key;        // with the image
  std::string decrypt_container_format;  // of compressed images: what is left without compression
  std::optional<std::uint64_t> decrypt_size_bytes;
  std::vector<Style> styles;  // of which the set has members, in the order of kStyles

  bool has(Style style) const noexcept;
};

struct ReadProperties {
  Description description;
  std::vector<PropertyProblem> problems;  // contradictions, values that mean nothing, old spellings
};

// Members that have nothing to do with encryption are passed over.
ReadProperties read_properties(const Properties& properties);

// What a set for this file says, without a key. `compressed`: it travels in a gzip wrapper. Throws
// Error{kInvalidArgument} if the file is not encrypted with LUKS.
Description describe(const Report& report, bool compressed = false);

struct WriteOptions {
  Style style = Style::kSpec;
  // Formats that the receiver takes; empty: all. Without "luks" a raw volume goes as "raw", which
  // is what Cinder makes of its own.
  std::vector<std::string> disk_formats;
};

// Throws Error{kInvalidArgument} for what the style cannot say: Cinder's pair knows raw volumes
// only, Nova's set no compression.
Properties write_properties(const Description& description, const WriteOptions& options);

// What is wrong with the set, or missing from it, for this file.
std::vector<PropertyProblem> check_properties(const Description& description, const Report& report);
bool has_error(const std::vector<PropertyProblem>& problems) noexcept;

// The members of any generation.
bool is_encryption_property(std::string_view name) noexcept;

// What Glance itself says of an image, such as its size: no property that a user sets.
bool is_image_attribute(std::string_view name) noexcept;

// A set in JSON: a flat object, an image of Glance's API, or what `openstack image show -f json`
// prints (its "properties" member goes before the rest). Numbers and truth values become text; what
// is no value is passed over. At most limits::kImagePropertiesMax members. Throws Error{kDamaged}
// naming `what`.
Properties parse_properties(std::string_view json, std::string_view what);

// Options of `openstack image create`, quoted for a shell.
std::string openstack_options(const Properties& properties);

}  // namespace lukskeep::image
