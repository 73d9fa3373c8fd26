#include "nbde/binding.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/base64url.h"
#include "base/json.h"
#include "crypto/random.h"
#include "luks/luks1_gap.h"
#include "luks/luks2_codec.h"
#include "nbde/binding_marks.h"

namespace lukskeep::nbde {
namespace {

constexpr std::size_t kPassphraseRandomBytes = 40;
constexpr std::uint32_t kPassphraseIterations = 1000;

luks::LuksmetaType record_type() {
  constexpr std::array<unsigned char, 16> kUuid = {0xcb, 0x6e, 0x89, 0x04, 0x81, 0xff, 0x40, 0xda,
                                                   0xa8, 0x4a, 0x07, 0xab, 0x9a, 0xb5, 0x71, 0x5e};
  luks::LuksmetaType type{};
  std::ranges::transform(kUuid, type.begin(), [](unsigned char c) { return std::byte{c}; });
  return type;
}

std::string uuid_text(const luks::LuksmetaType& type) {
  std::string text;
  for (std::size_t i = 0; i < type.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", std::to_integer<unsigned>(type.at(i)));
  }
  return text;
}

// What is wrong with a binding is a finding.
template <typename Read>
void read_into(Binding& binding, const Read& read) {
  try {
    binding.jwe = read();
  } catch (const Error& error) {
    if (error.code() != Code::kDamaged && error.code() != Code::kUnsupported) throw;
    binding.problem = error.message();
  }
}

// Absent if it is none below `end`.
std::optional<unsigned> number_of(const Json& token, const char* name, std::uint64_t end) {
  const auto found = token.find(name);
  if (found == token.end() || !found->is_number_unsigned()) return std::nullopt;
  const auto number = found->get<std::uint64_t>();
  if (number >= end) return std::nullopt;
  return static_cast<unsigned>(number);
}

void add_token(const luks::Header& header, int id, const luks::Token& token,
               std::vector<Binding>& bindings) {
  const std::string what = fmt::format("token {}", id);
  Binding binding;
  binding.token = id;
  read_into(binding, [&] {
    const Json json = parse_json(token.json, what);
    if (const auto replaces = number_of(json, kReplacesMember, luks::kLuks2KeyslotCountMax)) {
      binding.replaces = static_cast<int>(*replaces);
    }
    binding.replaces_print =
        static_cast<std::uint16_t>(number_of(json, kReplacesPrintMember, 1U << 16U).value_or(0));
    const auto jwe = json.find("jwe");
    if (jwe == json.end()) throw Error(Code::kDamaged, fmt::format("{}: it has no jwe", what));
    return parse_flattened_jwe(*jwe, what);
  });
  if (token.keyslots.empty()) {
    binding.orphan = true;
    bindings.push_back(std::move(binding));
    return;
  }
  for (const int keyslot : token.keyslots) {
    Binding one = binding;
    one.keyslot = keyslot;
    one.orphan = !header.keyslots.contains(keyslot);
    // None of ours replaces itself: whoever wrote that wants the keyslot gone.
    if (one.replaces == keyslot) one.replaces.reset();
    bindings.push_back(std::move(one));
  }
}

// Whether the keyslot beside the record of a rebind is the one that it was written for: it came
// after the record, and power may have failed between.
bool is_of_rebind(const luks::Keyslot& keyslot, std::uint32_t reserved) {
  return keyslot.kdf.iterations == kPassphraseIterations &&
         short_print(keyslot) == marked_prints(reserved).own;
}

std::vector<Binding> luks1_bindings(const luks::HeaderFile& file) {
  std::vector<Binding> bindings;
  const auto gap = luks::Luks1Gap::open(file);
  if (!gap) return bindings;
  for (int slot = 0; slot < luks::kLuks1KeyslotCount; ++slot) {
    const luks::LuksmetaSlot& record = gap->table().slots.at(static_cast<std::size_t>(slot));
    if (record.type != kBindingRecordType) continue;
    Binding binding;
    binding.keyslot = slot;
    binding.replaces = marked_keyslot(record.reserved, kReplacesMark);
    binding.replaces_print = marked_prints(record.reserved).replaced;
    const auto keyslot = file.header().keyslots.find(slot);
    binding.orphan = keyslot == file.header().keyslots.end() ||
                     (binding.replaces && !is_of_rebind(keyslot->second, record.reserved));
    binding.leftover = marked_keyslot(record.reserved, kLeftoverMark);
    if (binding.replaces == slot) binding.replaces.reset();
    if (binding.leftover == slot) binding.leftover.reset();
    read_into(binding, [&] {
      return parse_compact_jwe(as_string_view(gap->load(slot)),
                               fmt::format("luksmeta record {}", slot));
    });
    bindings.push_back(std::move(binding));
  }
  return bindings;
}

}  // namespace

const luks::LuksmetaType kBindingRecordType = record_type();

std::vector<Binding> list_bindings(const luks::HeaderFile& file) {
  const luks::Header& header = file.header();
  if (header.version == luks::Version::kLuks1) return luks1_bindings(file);
  std::vector<Binding> bindings;
  for (const auto& [id, token] : header.tokens) {
    if (token.type == kBindingTokenType) add_token(header, id, token, bindings);
  }
  return bindings;
}

std::vector<OtherRecord> list_other_records(const luks::HeaderFile& file) {
  std::vector<OtherRecord> others;
  for (const auto& [id, token] : file.header().tokens) {
    if (token.type == kBindingTokenType) continue;
    others.push_back({.number = id, .type = token.type, .keyslots = token.keyslots});
  }
  if (file.header().version != luks::Version::kLuks1) return others;
  const auto gap = luks::Luks1Gap::open(file);
  if (!gap) return others;
  for (int slot = 0; slot < luks::kLuks1KeyslotCount; ++slot) {
    const luks::LuksmetaType& type = gap->table().slots.at(static_cast<std::size_t>(slot)).type;
    if (type == luks::LuksmetaType{} || type == kBindingRecordType) continue;
    others.push_back({.number = slot, .type = uuid_text(type), .keyslots = {slot}});
  }
  return others;
}

Binding find_binding(const luks::HeaderFile& file, int keyslot) {
  std::optional<Binding> found;
  for (Binding& binding : list_bindings(file)) {
    if (binding.keyslot != keyslot || binding.orphan) continue;
    // Of several the one that can be read, and first of all the one that is there to stay.
    if (!found || !found->jwe || (binding.jwe && found->replaces)) found = std::move(binding);
  }
  if (!found) {
    throw Error(Code::kNotFound,
                fmt::format("keyslot {} of '{}' has no binding", keyslot, file.device()->name()),
                "'lukskeep bindings' lists those that there are");
  }
  if (!found->jwe) {
    throw Error(Code::kDamaged, fmt::format("the binding of keyslot {} of '{}' is damaged: {}",
                                            keyslot, file.device()->name(), found->problem));
  }
  return std::move(*found);
}

const Jwe& sealed_of(const Binding& binding) {
  if (binding.jwe) return *binding.jwe;
  throw Error(Code::kDamaged, fmt::format("the binding of keyslot {} is damaged: {}",
                                          binding.keyslot, binding.problem));
}

luks::Token make_binding_token(const Jwe& jwe, int keyslot, std::optional<int> replaces,
                               std::uint16_t replaces_print) {
  Json json = {{"type", kBindingTokenType},
               {"keyslots", {std::to_string(keyslot)}},
               {"jwe", to_flattened(jwe)}};
  if (replaces) {
    json[kReplacesMember] = static_cast<unsigned>(*replaces);
    json[kReplacesPrintMember] = replaces_print;
  }
  return luks::parse_token(json.dump(), "token of a binding");
}

SecretBytes make_binding_passphrase() {
  return secret_to_base64url(crypto::random_secret(kPassphraseRandomBytes).span());
}

luks::NewKeyslot binding_keyslot(const luks::Header& header) {
  std::string hash = "sha256";
  for (const auto& [id, digest] : header.digests) {
    if (digest.segments.empty() || digest.hash.empty()) continue;
    hash = digest.hash;
    break;
  }
  return {.cost = {.type = crypto::KdfType::kPbkdf2,
                   .hash = std::move(hash),
                   .iterations = kPassphraseIterations}};
}

}  // namespace lukskeep::nbde
