#include "nbde/binding_change.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "luks/header_backup.h"
#include "luks/layout.h"
#include "luks/luks1_gap.h"
#include "luks/luks2_codec.h"
#include "nbde/binding_marks.h"

namespace lukskeep::nbde {
namespace {

using luks::Header;
using luks::HeaderChange;
using luks::HeaderFile;
using luks::Luks1Gap;

luks::AreaRange area_range(const luks::Keyslot& keyslot) {
  return {.offset_bytes = keyslot.area.offset_bytes, .size_bytes = keyslot.area.size_bytes};
}

Luks1Gap open_gap(const HeaderFile& file) {
  auto gap = Luks1Gap::open(file);
  if (gap) return std::move(*gap);
  throw Error(
      Code::kUnsupported,
      fmt::format("'{}' is LUKS1, which keeps bindings between its keyslots and the payload, "
                  "and there is no room",
                  file.device()->name()),
      "make the header LUKS2 (lukskeep header convert), or a new volume");
}

// ---- where a new binding goes ----------------------------------------------------------------

// Whether another program keeps something beside that keyslot, which a binding would overwrite.
bool taken_by_others(const Luks1Gap* gap, int keyslot) {
  if (gap == nullptr) return false;
  const luks::LuksmetaSlot& record = gap->table().slots.at(static_cast<std::size_t>(keyslot));
  return record.used() && record.type != kBindingRecordType;
}

int choose_keyslot(const HeaderFile& file, const Luks1Gap* gap, std::optional<int> wanted) {
  const Header& header = file.header();
  const int count = header.version == luks::Version::kLuks1 ? luks::kLuks1KeyslotCount
                                                            : luks::kLuks2KeyslotCountMax;
  if (wanted && (*wanted < 0 || *wanted >= count)) {
    throw Error(
        Code::kInvalidArgument,
        fmt::format("keyslot {} does not exist: they are numbered 0 to {}", *wanted, count - 1));
  }
  std::set<int> taken;
  for (const Binding& binding : list_bindings(file)) {
    if (binding.replaces && !binding.orphan) taken.insert(*binding.replaces);
  }
  for (int id = 0; id < count; ++id) {
    if (header.keyslots.contains(id) || taken_by_others(gap, id)) taken.insert(id);
  }
  if (wanted && !header.keyslots.contains(*wanted) && taken_by_others(gap, *wanted)) {
    throw Error(Code::kExists,
                fmt::format("another program keeps a luksmeta record beside keyslot {}", *wanted),
                "leave the number out; 'lukskeep bindings' says what it is");
  }
  if (wanted && taken.contains(*wanted)) {
    throw Error(Code::kExists, fmt::format("keyslot {} is taken", *wanted),
                "remove it first, or leave the number out");
  }
  if (wanted) return *wanted;
  for (int id = 0; id < count; ++id) {
    if (!taken.contains(id)) return id;
  }
  throw Error(Code::kNoFreeKeyslot, fmt::format("all {} keyslots are taken", count),
              "remove one that is no longer needed");
}

int choose_token(const Header& header, std::optional<int> wanted) {
  if (wanted && (*wanted < 0 || *wanted >= luks::kLuks2TokenCountMax)) {
    throw Error(Code::kInvalidArgument,
                fmt::format("token {} does not exist: they are numbered 0 to {}", *wanted,
                            luks::kLuks2TokenCountMax - 1));
  }
  if (wanted && header.tokens.contains(*wanted)) {
    throw Error(Code::kExists, fmt::format("token {} is taken", *wanted),
                "remove it first, or leave the number out");
  }
  if (wanted) return *wanted;
  for (int id = 0; id < luks::kLuks2TokenCountMax; ++id) {
    if (!header.tokens.contains(id)) return id;
  }
  throw Error(Code::kNoSpace, "all 32 tokens are taken", "remove one (lukskeep token remove)");
}

void drop_orphan_tokens(Header& header) {
  std::erase_if(header.tokens, [&](const auto& entry) {
    return entry.second.type == kBindingTokenType &&
           std::ranges::none_of(entry.second.keyslots,
                                [&](int id) { return header.keyslots.contains(id); });
  });
}

int wipe_orphan_records(const HeaderFile& file, Luks1Gap& gap) {
  int wiped = 0;
  for (const Binding& binding : list_bindings(file)) {
    if (!binding.orphan) continue;
    gap.wipe(binding.keyslot);
    ++wiped;
  }
  return wiped;
}

// The metadata is full: says how much larger it would have to be.
void commit_with_remedy(HeaderFile& file, HeaderChange change) {
  const std::uint64_t metadata_bytes = change.header.metadata_size_bytes;
  try {
    file.commit(std::move(change));
  } catch (const Error& error) {
    if (error.code() != Code::kNoSpace) throw;
    throw Error(
        Code::kNoSpace, error.message(),
        fmt::format("make the metadata larger: lukskeep header resize --metadata-size {}KiB; "
                    "or bind to fewer servers",
                    metadata_bytes * 4 / 1024));
  }
}

struct Fresh {
  Jwe jwe;
  SecretBytes passphrase;
  std::optional<int> replaces;
  std::uint16_t print = 0;  // of the keyslot that it replaces
};

int add_luks2(HeaderFile& file, const luks::Unlocked& key, const Sealer& seal, Fresh fresh,
              const BindOptions& options) {
  const int keyslot = choose_keyslot(file, nullptr, options.keyslot);
  HeaderChange change{.header = file.header()};
  drop_orphan_tokens(change.header);
  const int token = choose_token(change.header, options.token);
  if (!luks::find_free_area(change.header,
                            luks::keyslot_area_bytes(static_cast<std::uint32_t>(key.key.size())))) {
    throw Error(Code::kNoFreeKeyslot, "the keyslots area has no room for another keyslot",
                "remove a keyslot that is no longer needed");
  }
  fresh.jwe = seal(fresh.passphrase.span());
  change.new_areas.push_back(luks::put_keyslot(change.header, keyslot, key.digest, key.key.span(),
                                               fresh.passphrase.span(),
                                               binding_keyslot(change.header), options.cancel));
  change.header.tokens[token] = make_binding_token(fresh.jwe, keyslot, fresh.replaces, fresh.print);
  commit_with_remedy(file, std::move(change));
  return keyslot;
}

int add_luks1(HeaderFile& file, const luks::Unlocked& key, const Sealer& seal, Fresh fresh,
              const BindOptions& options) {
  if (options.token) {
    throw Error(Code::kInvalidArgument, "LUKS1 has no tokens, so none of that number");
  }
  Luks1Gap gap = open_gap(file);
  const int keyslot = choose_keyslot(file, &gap, options.keyslot);
  fresh.jwe = seal(fresh.passphrase.span());
  const std::string text = to_compact(fresh.jwe);
  HeaderChange change{.header = file.header()};
  change.new_areas.push_back(luks::put_keyslot(change.header, keyslot, key.digest, key.key.span(),
                                               fresh.passphrase.span(),
                                               binding_keyslot(change.header), options.cancel));
  wipe_orphan_records(file, gap);
  const MarkPrints prints = {.own = short_print(change.header.keyslots.at(keyslot)),
                             .replaced = fresh.print};
  const std::uint32_t mark = fresh.replaces ? make_mark(kReplacesMark, *fresh.replaces, prints) : 0;
  gap.save(
      {.slot = keyslot, .type = kBindingRecordType, .data = as_byte_view(text), .reserved = mark});
  file.commit(std::move(change));
  return keyslot;
}

int add(HeaderFile& file, const luks::Unlocked& key, const Sealer& seal,
        std::optional<int> replaces, const BindOptions& options) {
  Fresh fresh{.jwe = {}, .passphrase = make_binding_passphrase(), .replaces = replaces};
  if (replaces) fresh.print = keyslot_print(file.header().keyslots.at(*replaces));
  return file.header().version == luks::Version::kLuks1
             ? add_luks1(file, key, seal, std::move(fresh), options)
             : add_luks2(file, key, seal, std::move(fresh), options);
}

// ---- removing --------------------------------------------------------------------------------

void check_not_last(const HeaderFile& file, int keyslot) {
  const Header& header = file.header();
  const bool another = std::ranges::any_of(header.keyslots, [&](const auto& entry) {
    return entry.first != keyslot && luks::opens_segment(header, entry.first);
  });
  if (!luks::opens_segment(header, keyslot) || another) return;
  throw Error(Code::kLastKeyslot,
              fmt::format("keyslot {} is the last that opens '{}': without it the data is lost",
                          keyslot, file.device()->name()),
              "--yes removes it all the same");
}

// Without the keyslot, and without the binding tokens that were for it alone.
HeaderChange without_binding(const HeaderFile& file, int keyslot) {
  HeaderChange change{.header = file.header()};
  const auto found = change.header.keyslots.find(keyslot);
  if (found != change.header.keyslots.end()) change.obsolete.push_back(area_range(found->second));
  std::erase_if(change.header.tokens, [&](const auto& entry) {
    return entry.second.type == kBindingTokenType &&
           entry.second.keyslots == std::set<int>{keyslot};
  });
  luks::drop_keyslot(change.header, keyslot);
  return change;
}

// ---- replacing -------------------------------------------------------------------------------

// The new binding of a rebind of `keyslot` that was cut.
std::optional<Binding> find_helper(const HeaderFile& file, int keyslot) {
  for (Binding& binding : list_bindings(file)) {
    if (binding.replaces == keyslot && !binding.orphan) return std::move(binding);
  }
  return std::nullopt;
}

// Whether the volume opens with what is in the header now, and nothing else.
bool opens(const HeaderFile& file, const luks::Unlocked& key, const Binding& helper,
           const Opener& open, const RebindOptions& options) {
  const HeaderFile stored = HeaderFile::open(file.device());
  const Binding binding = find_binding(stored, helper.keyslot);
  const SecretBytes passphrase = open(sealed_of(binding));
  luks::UnlockOptions unlock = options.unlock;
  unlock.keyslot = helper.keyslot;
  unlock.cancel = options.cancel;
  const auto unlocked = luks::unlock(stored, passphrase.span(), unlock);
  return unlocked && equal_constant_time(unlocked->key.span(), key.key.span());
}

// The token that is this keyslot's alone.
std::optional<int> token_of(const HeaderFile& file, int keyslot) {
  for (const auto& [id, token] : file.header().tokens) {
    if (token.type == kBindingTokenType && token.keyslots == std::set<int>{keyslot}) return id;
  }
  return std::nullopt;
}

// The helper's material stays where it is; its keyslot and token get the old one's numbers.
void finish_luks2(HeaderFile& file, int keyslot, const Binding& helper) {
  HeaderChange change{.header = file.header()};
  Header& header = change.header;
  luks::Keyslot fresh = header.keyslots.at(helper.keyslot);
  const auto digest = std::ranges::find_if(header.digests, [&](const auto& entry) {
    return entry.second.keyslots.contains(helper.keyslot);
  });
  const int digest_id = digest->first;
  const luks::Digest kept = digest->second;
  const int helper_token = helper.token.value_or(-1);  // LUKS2: it has one
  const int token = token_of(file, keyslot).value_or(helper_token);
  if (const auto old = header.keyslots.find(keyslot); old != header.keyslots.end()) {
    fresh.priority = old->second.priority;
    change.obsolete.push_back(area_range(old->second));
    luks::drop_keyslot(header, keyslot);
  }
  luks::drop_keyslot(header, helper.keyslot);
  header.tokens.erase(helper_token);
  header.tokens[token] = make_binding_token(sealed_of(helper), keyslot);
  header.keyslots[keyslot] = std::move(fresh);
  // A digest of unbound keys goes with its last keyslot.
  header.digests.try_emplace(digest_id, kept);
  header.digests.at(digest_id).keyslots.erase(helper.keyslot);
  header.digests.at(digest_id).keyslots.insert(keyslot);
  file.commit(std::move(change));
}

bool holds_same_key(const Header& header, int a, int b) {
  return header.keyslots.contains(a) && header.keyslots.contains(b) &&
         luks::same_key(header.keyslots.at(a), header.keyslots.at(b));
}

// A keyslot's sealed bytes do not depend on where they are.
void copy_luks1_keyslot(HeaderFile& file, int from, int to) {
  HeaderChange change{.header = file.header()};
  luks::Keyslot copy = change.header.keyslots.at(from);
  Bytes material(copy.area.size_bytes);
  file.device()->read(copy.area.offset_bytes, material);
  luks::Luks1Slot& slot = change.header.luks1_slots.at(static_cast<std::size_t>(to));
  slot = {.material_offset_sectors = slot.material_offset_sectors, .stripes = slot.stripes};
  copy.area.offset_bytes = std::uint64_t{slot.material_offset_sectors} * 512;
  change.new_areas.push_back(
      {.offset_bytes = copy.area.offset_bytes, .material = std::move(material)});
  for (auto& [id, digest] : change.header.digests) {
    if (digest.keyslots.contains(from)) digest.keyslots.insert(to);
  }
  change.header.keyslots[to] = std::move(copy);
  file.commit(std::move(change));
}

// Takes the keyslot away that a rebind has left, and then what says so.
void drop_leftover(HeaderFile& file, Luks1Gap& gap, int keyslot, int leftover) {
  if (leftover != keyslot && holds_same_key(file.header(), keyslot, leftover)) {
    const auto material = [&](int id) {
      const luks::KeyslotArea& area = file.header().keyslots.at(id).area;
      Bytes bytes(area.size_bytes);
      file.device()->read(area.offset_bytes, bytes);
      return bytes;
    };
    // The helper was proven to open, the copy of it was not.
    if (material(keyslot) != material(leftover)) {
      throw Error(Code::kIo,
                  fmt::format("keyslot {} of '{}' reads back as something else than was written",
                              keyslot, file.device()->name()),
                  fmt::format("keyslot {} still has the key", leftover));
    }
    luks::remove_keyslot(file, leftover, false);
  }
  gap.mark(keyslot, 0);
}

// Each step can be the last before power fails; done again from the start, what was done is passed
// over. At every point the old binding, the helper or the new one is whole.
void finish_luks1(HeaderFile& file, int keyslot, int helper) {
  if (file.header().keyslots.contains(keyslot) && !holds_same_key(file.header(), keyslot, helper)) {
    // First: what others add there, if power fails now, is not taken for what was bound.
    open_gap(file).wipe(keyslot);
    luks::remove_keyslot(file, keyslot, false);
  }
  if (!file.header().keyslots.contains(keyslot)) copy_luks1_keyslot(file, helper, keyslot);
  Luks1Gap gap = open_gap(file);
  gap.move(helper, keyslot, make_mark(kLeftoverMark, helper, {}));
  drop_leftover(file, gap, keyslot, helper);
}

void finish(HeaderFile& file, int keyslot, const Binding& helper) {
  if (file.header().version == luks::Version::kLuks1) {
    return finish_luks1(file, keyslot, helper.keyslot);
  }
  finish_luks2(file, keyslot, helper);
}

bool is_bound(const HeaderFile& file, int keyslot) {
  return std::ranges::any_of(list_bindings(file), [&](const Binding& binding) {
    return binding.keyslot == keyslot && !binding.orphan;
  });
}

// Whether the keyslot that `helper` is to replace is what it was then.
bool still_there(const HeaderFile& file, const Binding& helper) {
  const auto found = file.header().keyslots.find(helper.replaces.value_or(-1));
  return found != file.header().keyslots.end() &&
         keyslot_print(found->second) == helper.replaces_print;
}

// For who cannot complete a rebind that was cut, because its servers are gone for good.
std::string way_out(const HeaderFile& file, const Binding& helper) {
  std::string text = "if its servers are gone for good, these take away what it has left:";
  for (const int id :
       {helper.keyslot, helper.replaces.value_or(-1), helper.leftover.value_or(-1)}) {
    if (file.header().keyslots.contains(id)) {
      text += fmt::format(" lukskeep key remove --slot {};", id);
    }
  }
  return text + " see first that another keyslot opens it (lukskeep key test)";
}

// Whether what a cut rebind of `keyslot` has left is completed by now.
bool resume(HeaderFile& file, const luks::Unlocked& key, int keyslot, const Opener& open,
            const RebindOptions& options) {
  for (const Binding& binding : list_bindings(file)) {
    if (binding.keyslot != keyslot || !binding.leftover) continue;
    Luks1Gap gap = open_gap(file);
    drop_leftover(file, gap, keyslot, *binding.leftover);
    return true;
  }
  const auto helper = find_helper(file, keyslot);
  if (!helper) return false;
  const bool old_is_there = file.header().keyslots.contains(keyslot) &&
                            !holds_same_key(file.header(), keyslot, helper->keyslot);
  if (old_is_there && !still_there(file, *helper)) {
    throw Error(
        Code::kConflict,
        fmt::format("a rebind of '{}' was cut, and keyslot {} has been given to another key "
                    "since",
                    file.device()->name(), keyslot),
        fmt::format("remove what is left of the rebind: lukskeep unbind --slot {}",
                    helper->keyslot));
  }
  // LUKS1: the record goes before the keyslot.
  const bool old_opens = old_is_there && is_bound(file, keyslot);
  try {
    if (opens(file, key, *helper, open, options)) {
      finish(file, keyslot, *helper);
      return true;
    }
  } catch (const Error& error) {
    if (error.code() == Code::kInterrupted) throw;
    if (!old_opens) {
      const std::string hint = error.hint().empty() ? "" : fmt::format("{}; ", error.hint());
      throw Error(error.code(), error.message(), hint + way_out(file, *helper));
    }
  }
  // It was cut too early, or its servers are gone: from the start.
  remove_binding(file, helper->keyslot, false);
  return false;
}

// Where the metadata has no room for two tokens: what is sealed is opened before it counts, and the
// old keyslot's material stays until the volume has opened with the new one.
struct Place {
  int keyslot;
  int token;
};
void replace_at_once(HeaderFile& file, const luks::Unlocked& key, Place place, const Sealer& seal,
                     const Opener& open, const RebindOptions& options) {
  const auto [keyslot, token] = place;
  const Header old = file.header();
  const SecretBytes passphrase = make_binding_passphrase();
  const Jwe jwe = seal(passphrase.span());
  const auto fail = [&] {
    throw Error(Code::kInternal,
                fmt::format("what the servers opened does not open keyslot {} of '{}'", keyslot,
                            file.device()->name()),
                "the old binding is as it was");
  };
  if (!equal_constant_time(open(jwe).span(), passphrase.span())) fail();
  HeaderChange change{.header = old};
  luks::NewKeyslot fresh = binding_keyslot(old);
  fresh.priority = old.keyslots.at(keyslot).priority;
  // The present area is in the model still, so that the new one goes elsewhere.
  change.new_areas.push_back(luks::put_keyslot(change.header, keyslot, key.digest, key.key.span(),
                                               passphrase.span(), fresh, options.cancel));
  change.header.tokens[token] = make_binding_token(jwe, keyslot);
  commit_with_remedy(file, std::move(change));
  luks::UnlockOptions unlock = options.unlock;
  unlock.keyslot = keyslot;
  const auto unlocked = luks::unlock(HeaderFile::open(file.device()), passphrase.span(), unlock);
  if (!unlocked || !equal_constant_time(unlocked->key.span(), key.key.span())) {
    file.commit({.header = old, .new_areas = {}, .obsolete = {}});
    fail();
  }
  file.commit({.header = file.header(),
               .new_areas = {},
               .obsolete = {area_range(old.keyslots.at(keyslot))}});
}

// What says that a rebind that was cut has left two keyslots with one binding, of which `keyslot`
// is one: both hold the same key, or the record of the old one has gone and its keyslot has not.
// Null if none has.
const Binding* find_half_rebound(const HeaderFile& file, const std::vector<Binding>& bindings,
                                 int keyslot) {
  const auto found = std::ranges::find_if(bindings, [&](const Binding& binding) {
    const std::optional<int> other = binding.leftover ? binding.leftover : binding.replaces;
    if (!other || binding.orphan || (binding.keyslot != keyslot && *other != keyslot)) return false;
    if (holds_same_key(file.header(), binding.keyslot, *other)) return true;
    return binding.replaces && !is_bound(file, *other) && still_there(file, binding);
  });
  return found == bindings.end() ? nullptr : &*found;
}

}  // namespace

int add_binding(HeaderFile& file, const luks::Unlocked& key, const Sealer& seal,
                const BindOptions& options) {
  return add(file, key, seal, {}, options);
}

void remove_binding(HeaderFile& file, int keyslot, bool allow_last) {
  const std::vector<Binding> bindings = list_bindings(file);
  // First: the old keyslot has no record any more.
  if (const Binding* half = find_half_rebound(file, bindings, keyslot)) {
    throw Error(Code::kConflict,
                fmt::format("a rebind of '{}' was cut: keyslot {} takes the place of another, or "
                            "has left it",
                            file.device()->name(), keyslot),
                fmt::format("lukskeep rebind completes it, then unbind; {}", way_out(file, *half)));
  }
  const bool bound = std::ranges::any_of(
      bindings, [&](const Binding& binding) { return binding.keyslot == keyslot; });
  if (!bound) {
    throw Error(
        Code::kNotFound,
        fmt::format("keyslot {} of '{}' has no binding", keyslot, file.device()->name()),
        "'lukskeep bindings' lists those that there are, 'lukskeep key remove' removes other "
        "keyslots");
  }
  // Beside an orphan there may be another key, which is none of a binding.
  const bool active = is_bound(file, keyslot);
  if (active && !allow_last) check_not_last(file, keyslot);
  if (active || file.header().version == luks::Version::kLuks2) {
    file.commit(without_binding(file, keyslot));
  }
  if (file.header().version == luks::Version::kLuks1) open_gap(file).wipe(keyslot);
}

int remove_orphan_bindings(HeaderFile& file) {
  if (file.header().version == luks::Version::kLuks1) {
    auto gap = Luks1Gap::open(file);
    return gap ? wipe_orphan_records(file, *gap) : 0;
  }
  HeaderChange change{.header = file.header()};
  drop_orphan_tokens(change.header);
  const std::size_t before = file.header().tokens.size();
  const std::size_t after = change.header.tokens.size();
  if (after != before) file.commit(std::move(change));
  return static_cast<int>(before - after);
}

bool rebind(HeaderFile& file, const luks::Unlocked& key, int keyslot, const Sealer& seal,
            const Opener& open, const RebindOptions& options) {
  if (resume(file, key, keyslot, open, options)) return true;
  if (!is_bound(file, keyslot)) {
    throw Error(Code::kNotFound,
                fmt::format("keyslot {} of '{}' has no binding", keyslot, file.device()->name()),
                "'lukskeep bindings' lists those that there are");
  }
  int fresh = -1;
  try {
    fresh = add(file, key, seal, keyslot, {.keyslot = {}, .token = {}, .cancel = options.cancel});
  } catch (const Error& error) {
    const bool luks2 = file.header().version == luks::Version::kLuks2;
    const auto token = luks2 ? token_of(file, keyslot) : std::nullopt;
    if (error.code() != Code::kNoSpace || !token) throw;
    replace_at_once(file, key, {.keyslot = keyslot, .token = *token}, seal, open, options);
    return false;
  }
  const Binding helper = find_binding(file, fresh);
  if (!opens(file, key, helper, open, options)) {
    remove_binding(file, fresh, false);
    throw Error(Code::kInternal,
                fmt::format("what the servers opened does not open keyslot {} of '{}'", fresh,
                            file.device()->name()),
                "the old binding is as it was");
  }
  finish(file, keyslot, helper);
  return false;
}

void replace_sealed(HeaderFile& file, const Binding& binding, const Jwe& jwe) {
  if (file.header().version == luks::Version::kLuks1) {
    Luks1Gap gap = open_gap(file);
    const std::string text = to_compact(jwe);
    const std::uint32_t mark =
        gap.table().slots.at(static_cast<std::size_t>(binding.keyslot)).reserved;
    return gap.save({.slot = binding.keyslot,
                     .type = kBindingRecordType,
                     .data = as_byte_view(text),
                     .reserved = mark});
  }
  HeaderChange change{.header = file.header()};
  luks::Token& token = change.header.tokens[*binding.token];
  std::set<int> keyslots = std::move(token.keyslots);
  token = make_binding_token(jwe, binding.keyslot, binding.replaces, binding.replaces_print);
  luks::set_token_keyslots(token, std::move(keyslots));
  commit_with_remedy(file, std::move(change));
}

}  // namespace lukskeep::nbde
