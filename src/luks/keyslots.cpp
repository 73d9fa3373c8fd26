#include "luks/keyslots.h"

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "base/parallel_for.h"
#include "crypto/af_splitter.h"
#include "crypto/cipher_spec.h"
#include "crypto/hash.h"
#include "crypto/random.h"
#include "crypto/sector_cipher.h"
#include "luks/crypt_device.h"
#include "luks/layout.h"
#include "luks/luks2_codec.h"

namespace lukskeep::luks {
namespace {

constexpr std::uint32_t kAreaSectorBytes = 512;  // of keyslot areas, whatever the payload has
constexpr std::size_t kNewSaltBytes = 32;
constexpr std::size_t kArgon2SaltBytesMin = 8;  // RFC 9106, 3.1

crypto::KdfCost kdf_cost(const Kdf& kdf) {
  crypto::KdfCost cost{.type = crypto::KdfType::kPbkdf2,
                       .hash = kdf.hash,
                       .iterations = kdf.iterations,
                       .memory_kib = kdf.memory_kib,
                       .parallel = kdf.parallel};
  if (kdf.type == Kdf::Type::kArgon2i) cost.type = crypto::KdfType::kArgon2i;
  if (kdf.type == Kdf::Type::kArgon2id) cost.type = crypto::KdfType::kArgon2id;
  return cost;
}

Kdf to_kdf(const crypto::KdfCost& cost, Bytes salt) {
  Kdf kdf{.type_name = std::string(crypto::kdf_name(cost.type)),
          .iterations = cost.iterations,
          .salt = std::move(salt)};
  switch (cost.type) {
    case crypto::KdfType::kPbkdf2:
      kdf.type = Kdf::Type::kPbkdf2;
      kdf.hash = cost.hash;
      return kdf;
    case crypto::KdfType::kArgon2i:
      kdf.type = Kdf::Type::kArgon2i;
      break;
    case crypto::KdfType::kArgon2id:
      kdf.type = Kdf::Type::kArgon2id;
      break;
  }
  kdf.memory_kib = cost.memory_kib;
  kdf.parallel = cost.parallel;
  return kdf;
}

crypto::KdfCost digest_cost(const Digest& digest) {
  return {.type = crypto::KdfType::kPbkdf2, .hash = digest.hash, .iterations = digest.iterations};
}

std::optional<int> digest_of(const Header& header, int keyslot) {
  for (const auto& [id, digest] : header.digests) {
    if (digest.type == Digest::Type::kPbkdf2 && digest.keyslots.contains(keyslot)) return id;
  }
  return std::nullopt;
}

bool matches(const Digest& digest, ByteView key, const CancelToken* cancel) {
  if (digest.digest.empty()) return false;
  SecretBytes computed(digest.digest.size());
  crypto::derive(digest_cost(digest), key, digest.salt, computed.span(), 1, cancel);
  return equal_constant_time(computed.span(), digest.digest);
}

// Keyslot areas of cipher_null leave the volume key readable to anybody.
void check_area_secure(const crypto::CipherSpec& spec, int id, bool allow_insecure) {
  if (!crypto::is_insecure(spec) || allow_insecure) return;
  throw Error(Code::kUnsafe,
              fmt::format("keyslot {} is not encrypted (cipher_null): any passphrase opens it", id),
              "--allow-insecure uses it all the same");
}

std::unique_ptr<crypto::SectorCipher> area_cipher(const KeyslotArea& area, ByteView key) {
  const crypto::CipherSpec spec = crypto::parse_cipher_spec(area.encryption);
  return crypto::make_sector_cipher(spec, key, kAreaSectorBytes);
}

// Why `id` cannot be tried at all, or nothing. Throws kKdfLimit and kUnsafe.
std::optional<std::string> obstacle(const HeaderFile& file, int id, const UnlockOptions& options) {
  const Header& header = file.header();
  const Keyslot& keyslot = header.keyslots.at(id);
  if (keyslot.type != Keyslot::Type::kLuks2) {
    return fmt::format("keyslot {} is of type '{}'", id, printable(keyslot.type_name));
  }
  if (keyslot.kdf.type == Kdf::Type::kUnknown) {
    return fmt::format("keyslot {} has the unknown KDF '{}'", id, printable(keyslot.kdf.type_name));
  }
  const std::uint64_t size = material_bytes(keyslot.key_size_bytes, keyslot.af.stripes);
  const std::uint64_t device_size = file.device()->size_bytes();
  if (keyslot.area.offset_bytes > device_size || size > device_size - keyslot.area.offset_bytes) {
    return fmt::format("keyslot {} lies beyond the end of the device", id);
  }
  if (keyslot.kdf.type != Kdf::Type::kPbkdf2 && keyslot.kdf.salt.size() < kArgon2SaltBytesMin) {
    return fmt::format("keyslot {} has a salt of {} bytes, too short for argon2", id,
                       keyslot.kdf.salt.size());
  }
  const std::optional<int> digest = digest_of(header, id);
  if (!digest) return fmt::format("keyslot {} belongs to no usable digest", id);
  if (!opens_active_segment(header, header.digests.at(*digest)) && !options.allow_unbound) {
    return fmt::format("keyslot {} is unbound", id);
  }
  const Digest& check = header.digests.at(*digest);
  const std::string name = fmt::format("keyslot {}", id);
  try {
    const crypto::CipherSpec spec = crypto::parse_cipher_spec(keyslot.area.encryption);
    check_area_secure(spec, id, options.allow_insecure);
    crypto::check_key_size(spec, keyslot.area.key_size_bytes);
    crypto::require_hash(keyslot.af.hash);
    crypto::check_limit(kdf_cost(keyslot.kdf), keyslot.area.key_size_bytes, options.kdf_limit,
                        name);
    crypto::check_limit(digest_cost(check), check.digest.size(), options.kdf_limit,
                        fmt::format("digest {}", *digest));
  } catch (const Error& error) {
    // One keyslot that makes no sense must not keep the others from being tried.
    if (error.code() != Code::kUnsupported && error.code() != Code::kDamaged) throw;
    const bool named = error.message().starts_with(name);
    return named ? error.message() : fmt::format("{}: {}", name, error.message());
  }
  return std::nullopt;
}

std::optional<Unlocked> try_keyslot(const HeaderFile& file, int id, ByteView passphrase,
                                    unsigned threads, const CancelToken* cancel) {
  const Keyslot& keyslot = file.header().keyslots.at(id);
  const int digest = digest_of(file.header(), id).value_or(-1);  // candidates have one
  SecretBytes area_key(keyslot.area.key_size_bytes);
  crypto::derive(kdf_cost(keyslot.kdf), passphrase, keyslot.kdf.salt, area_key.span(), threads,
                 cancel);
  const std::uint64_t size = material_bytes(keyslot.key_size_bytes, keyslot.af.stripes);
  SecretBytes material(size);
  file.device()->read(keyslot.area.offset_bytes, material.span());
  area_cipher(keyslot.area, area_key.span())->decrypt(0, material.span());
  material.truncate(std::uint64_t{keyslot.key_size_bytes} * keyslot.af.stripes);
  SecretBytes key = crypto::af_merge(material.span(), keyslot.af.stripes, keyslot.af.hash);
  if (!matches(file.header().digests.at(digest), key.span(), cancel)) return std::nullopt;
  return Unlocked{.key = std::move(key), .keyslot = id, .digest = digest};
}

// Threads one attempt makes use of: more attempts at once than fit would slow down the first.
unsigned useful_threads(const Keyslot& keyslot) {
  if (keyslot.kdf.type != Kdf::Type::kPbkdf2) return std::max(1U, keyslot.kdf.parallel);
  const auto hash = crypto::find_hash(keyslot.kdf.hash);
  const auto digest_bytes = static_cast<std::uint32_t>(hash ? hash->digest_bytes : 1);
  return (keyslot.area.key_size_bytes + digest_bytes - 1) / digest_bytes;
}

std::uint64_t memory_budget(const UnlockOptions& options) {
  if (options.memory_bytes_max != 0) return options.memory_bytes_max;
  return std::uint64_t{crypto::cap_memory_kib(UINT32_MAX)} * limits::kKiB;
}

// How many of `ids` to try at once.
unsigned attempts_at_once(const Header& header, const std::vector<int>& ids,
                          const UnlockOptions& options, unsigned threads) {
  unsigned widest = 1;
  std::uint64_t memory_max = limits::kMiB;
  for (const int id : ids) {
    const Keyslot& keyslot = header.keyslots.at(id);
    widest = std::max(widest, useful_threads(keyslot));
    memory_max = std::max(memory_max, std::uint64_t{keyslot.kdf.memory_kib} * limits::kKiB);
  }
  const std::uint64_t by_memory = std::max<std::uint64_t>(1, memory_budget(options) / memory_max);
  return static_cast<unsigned>(std::min<std::uint64_t>(std::max(1U, threads / widest), by_memory));
}

// What came of trying several keyslots.
struct Tries {
  std::optional<Unlocked> found;
  std::optional<Error> failure;  // of a keyslot that could not be tried to its end
};

// Tries `ids` side by side and remembers the best: the lowest that opens wins, and stops those
// behind it, so that the result does not depend on which is quicker.
class Race {
 public:
  Race(std::size_t count, const CancelToken* cancel) : cancel_(cancel) {
    for (std::size_t i = 0; i < count; ++i)
      tokens_.push_back(std::make_unique<CancelToken>(cancel));
  }

  // `attempt` returns what it opened; it is given the token that stops it.
  template <typename Attempt>
  void run(std::size_t i, const Attempt& attempt) {
    if (cancel_ != nullptr) cancel_->check();
    if (tokens_[i]->cancelled()) return;
    try {
      if (auto opened = attempt(*tokens_[i])) won(i, std::move(*opened));
    } catch (const Error& error) {
      const bool by_user = cancel_ != nullptr && cancel_->cancelled();
      if (by_user) throw;
      // Stopped because a keyslot before it opened: no failure. Otherwise one keyslot that cannot
      // be tried (its memory, its sectors) must not keep the others from opening.
      const std::lock_guard lock(mutex_);
      if (error.code() != Code::kInterrupted && !tries_.failure) tries_.failure = error;
    }
  }

  Tries result() { return std::move(tries_); }

 private:
  void won(std::size_t i, Unlocked opened) {
    const std::lock_guard lock(mutex_);
    if (tries_.found && best_ < i) return;
    tries_.found = std::move(opened);
    best_ = i;
    for (std::size_t behind = i + 1; behind < tokens_.size(); ++behind) tokens_[behind]->cancel();
  }

  const CancelToken* cancel_;
  std::vector<std::unique_ptr<CancelToken>> tokens_;
  std::mutex mutex_;
  Tries tries_;
  std::size_t best_ = 0;
};

Tries try_keyslots(const HeaderFile& file, const std::vector<int>& ids, ByteView passphrase,
                   const UnlockOptions& options) {
  const unsigned threads = options.threads != 0 ? options.threads : hardware_threads();
  const unsigned at_once = attempts_at_once(file.header(), ids, options, threads);
  Race race(ids.size(), options.cancel);
  parallel_for(ids.size(), at_once, [&](std::size_t i) {
    race.run(i, [&](const CancelToken& stop) {
      return try_keyslot(file, ids[i], passphrase, threads / at_once, &stop);
    });
  });
  return race.result();
}

struct Candidates {
  std::array<std::vector<int>, 2> by_priority;  // prefer, normal
  std::vector<std::string> obstacles;
  std::optional<Error> refused;
  std::optional<Error> left_out;  // it could be tried alone, but not behind the others
};

// Drops from `candidates` what no longer fits into the limit, in the order in which they are tried.
void keep_within_limit(const Header& header, const UnlockOptions& options, Candidates& candidates) {
  crypto::KdfBudget budget(options.kdf_limit);
  for (std::vector<int>& ids : candidates.by_priority) {
    std::erase_if(ids, [&](int id) {
      const Keyslot& keyslot = header.keyslots.at(id);
      const Digest& digest = header.digests.at(digest_of(header, id).value_or(-1));
      try {
        budget.take({{kdf_cost(keyslot.kdf), keyslot.area.key_size_bytes},
                     {digest_cost(digest), digest.digest.size()}},
                    fmt::format("keyslot {}", id));
        return false;
      } catch (const Error& error) {
        if (error.code() != Code::kKdfLimit) throw;
        const std::string hint = options.keyslot ? "" : "name the keyslot with --slot, or ";
        if (!candidates.left_out) {
          candidates.left_out = Error(error.code(), error.message(), hint + error.hint());
        }
        return true;
      }
    });
  }
}

Candidates find_candidates(const HeaderFile& file, const UnlockOptions& options) {
  Candidates candidates;
  for (const auto& [id, keyslot] : file.header().keyslots) {
    if (options.keyslot && *options.keyslot != id) continue;
    if (!options.keyslot && keyslot.priority == Priority::kIgnore) continue;
    try {
      if (auto why = obstacle(file, id, options)) {
        candidates.obstacles.push_back(std::move(*why));
        continue;
      }
    } catch (const Error& error) {
      if (error.code() != Code::kKdfLimit && error.code() != Code::kUnsafe) throw;
      if (!candidates.refused) candidates.refused = error;
      continue;
    }
    candidates.by_priority[keyslot.priority == Priority::kPrefer ? 0 : 1].push_back(id);
  }
  keep_within_limit(file.header(), options, candidates);
  return candidates;
}

[[noreturn]] void throw_nothing_to_try(const HeaderFile& file, const Candidates& candidates) {
  if (candidates.obstacles.empty()) {
    throw Error(
        Code::kWrongPassphrase,
        fmt::format("'{}' has no active keyslot: no passphrase opens it", file.device()->name()),
        "restore a header that has keyslots, or give the volume key itself "
        "(--key volume-key:FILE)");
  }
  throw Error(Code::kUnsupported,
              fmt::format("no keyslot of '{}' can be tried: {}", file.device()->name(),
                          fmt::join(candidates.obstacles, "; ")));
}

struct AreaDefaults {
  std::string encryption;
  std::uint32_t key_size_bytes = 0;
};

// Whether `encryption` is known, under any of its names, and not the null cipher.
bool encrypts(const std::string& encryption) {
  try {
    return !crypto::is_insecure(crypto::parse_cipher_spec(encryption));
  } catch (const Error&) {
    return false;
  }
}

// What the other keyslots of the volume use; else what the payload uses; else cryptsetup's default.
AreaDefaults area_defaults(const Header& header, std::uint32_t key_size_bytes) {
  for (const auto& [id, keyslot] : header.keyslots) {
    // What somebody else wrote must not weaken what we write.
    if (keyslot.type == Keyslot::Type::kLuks2 && encrypts(keyslot.area.encryption)) {
      return {keyslot.area.encryption, keyslot.area.key_size_bytes};
    }
  }
  for (const auto& [id, segment] : header.segments) {
    if (segment.type != Segment::Type::kCrypt) continue;
    const bool luks1 = header.version == Version::kLuks1;
    try {
      const auto spec = crypto::parse_cipher_spec(segment.encryption);
      crypto::check_key_size(spec, key_size_bytes);
      if (luks1 || !crypto::is_insecure(spec)) return {segment.encryption, key_size_bytes};
    } catch (const Error&) {
      if (luks1) throw;  // LUKS1 has one cipher for payload and keyslots
    }
  }
  return {"aes-xts-plain64", 64};
}

std::uint64_t place_area(const Header& header, int id, std::uint64_t size_bytes) {
  if (header.version == Version::kLuks1) {
    return std::uint64_t{
               header.luks1_slots.at(static_cast<std::size_t>(id)).material_offset_sectors} *
           512;
  }
  const auto place = find_free_area(header, size_bytes);
  if (!place) {
    throw Error(Code::kNoFreeKeyslot,
                fmt::format("the keyslots area has no free {} bytes left", size_bytes),
                "remove a keyslot that is no longer needed");
  }
  return *place;
}

// The area's bytes: split key, padded to whole sectors, encrypted under the passphrase.
Bytes seal_material(const Keyslot& keyslot, ByteView key, ByteView passphrase,
                    const CancelToken* cancel) {
  SecretBytes area_key(keyslot.area.key_size_bytes);
  crypto::derive(kdf_cost(keyslot.kdf), passphrase, keyslot.kdf.salt, area_key.span(),
                 hardware_threads(), cancel);
  const SecretBytes split = crypto::af_split(key, keyslot.af.stripes, keyslot.af.hash);
  SecretBytes material(material_bytes(keyslot.key_size_bytes, keyslot.af.stripes));
  std::copy(split.span().begin(), split.span().end(), material.span().begin());
  area_cipher(keyslot.area, area_key.span())->encrypt(0, material.span());
  return {material.span().begin(), material.span().end()};
}

std::string af_hash(const Header& header, int digest, const NewKeyslot& options) {
  const std::string& digest_hash = header.digests.at(digest).hash;
  const bool fixed = header.version == Version::kLuks1 || options.af_hash.empty();
  return fixed ? digest_hash : options.af_hash;
}

void check_luks1_cost(const Header& header, int digest, const crypto::KdfCost& cost) {
  if (header.version != Version::kLuks1) return;
  const std::string& hash = header.digests.at(digest).hash;
  const auto wanted = crypto::find_hash(cost.hash);
  const auto present = crypto::find_hash(hash);
  const bool same_hash = wanted && present && wanted->name == present->name;
  if (cost.type != crypto::KdfType::kPbkdf2 || !same_hash) {
    throw Error(Code::kInvalidArgument,
                fmt::format("a LUKS1 keyslot is opened by pbkdf2 with {}, the hash of its header",
                            printable(hash)),
                "leave out the option, or use a LUKS2 volume");
  }
}

// The least that cryptsetup accepts for a new keyslot, and the most lanes.
void check_new_cost(const crypto::KdfCost& cost) {
  const bool pbkdf2 = cost.type == crypto::KdfType::kPbkdf2;
  const std::uint32_t iterations_max =
      pbkdf2 ? limits::kPbkdf2IterationsMax : limits::kArgon2TimeMax;
  if (cost.iterations > iterations_max) {
    throw Error(Code::kInvalidArgument,
                fmt::format("{} with {} iterations would never be opened again",
                            crypto::kdf_name(cost.type), cost.iterations),
                fmt::format("at most {}", iterations_max));
  }
  const std::uint32_t iterations_min = pbkdf2 ? 1000 : 4;
  if (cost.iterations < iterations_min) {
    throw Error(Code::kInvalidArgument,
                fmt::format("{} with {} iterations is too weak for a new keyslot",
                            crypto::kdf_name(cost.type), cost.iterations),
                fmt::format("at least {}", iterations_min));
  }
  if (!pbkdf2 && cost.memory_kib < 32) {
    throw Error(Code::kInvalidArgument,
                fmt::format("{} with {} KiB of memory is too weak for a new keyslot",
                            crypto::kdf_name(cost.type), cost.memory_kib),
                "at least 32 KiB");
  }
  if (!pbkdf2 && (cost.parallel < 1 || cost.parallel > 4)) {
    throw Error(
        Code::kInvalidArgument,
        fmt::format("{} with {} lanes is not possible", crypto::kdf_name(cost.type), cost.parallel),
        "1 to 4");
  }
}

Keyslot make_keyslot(const Header& header, int id, int digest, std::uint32_t key_size_bytes,
                     const NewKeyslot& options) {
  check_luks1_cost(header, digest, options.cost);
  check_new_cost(options.cost);
  AreaDefaults area = area_defaults(header, key_size_bytes);
  if (!options.area_encryption.empty()) area.encryption = options.area_encryption;
  if (options.area_key_size_bytes != 0) area.key_size_bytes = options.area_key_size_bytes;
  // LUKS1 has one cipher for payload and keyslots: there the payload was created so.
  if (header.version == Version::kLuks2 && !encrypts(area.encryption)) {
    throw Error(Code::kUnsafe,
                fmt::format("a keyslot in '{}' would show the volume key to everybody",
                            printable(area.encryption)),
                "choose a cipher that encrypts");
  }
  const std::uint64_t area_bytes = keyslot_area_bytes(key_size_bytes, kNewStripes);
  Keyslot keyslot;
  keyslot.key_size_bytes = key_size_bytes;
  keyslot.af.stripes = kNewStripes;
  keyslot.af.hash = af_hash(header, digest, options);
  keyslot.area.encryption = area.encryption;
  keyslot.area.key_size_bytes = area.key_size_bytes;
  keyslot.area.offset_bytes = place_area(header, id, area_bytes);
  // LUKS1 areas end where their material ends: the next may follow at once.
  keyslot.area.size_bytes =
      header.version == Version::kLuks1 ? material_bytes(key_size_bytes, kNewStripes) : area_bytes;
  keyslot.kdf = to_kdf(options.cost, crypto::random_bytes(kNewSaltBytes));
  if (header.version == Version::kLuks1) keyslot.kdf.hash = header.digests.at(digest).hash;
  keyslot.priority = options.priority;
  return keyslot;
}

AreaRange area_range(const Keyslot& keyslot) {
  return {.offset_bytes = keyslot.area.offset_bytes, .size_bytes = keyslot.area.size_bytes};
}

// As a keyslot that was never used.
void reset_inactive(Luks1Slot& slot) {
  slot = {.material_offset_sectors = slot.material_offset_sectors, .stripes = slot.stripes};
}

// LUKS2: new material in free room, one commit, then the old area is wiped.
int change_luks2_keyslot(HeaderFile& file, const Unlocked& key, ByteView new_passphrase,
                         const NewKeyslot& options, const CancelToken* cancel) {
  const Keyslot old = file.header().keyslots.at(key.keyslot);
  HeaderChange change{.header = file.header()};
  Keyslot fresh = make_keyslot(change.header, key.keyslot, key.digest,
                               static_cast<std::uint32_t>(key.key.size()), options);
  fresh.priority = old.priority;
  fresh.unknown = old.unknown;
  change.new_areas.push_back(
      {.offset_bytes = fresh.area.offset_bytes,
       .material = seal_material(fresh, key.key.span(), new_passphrase, cancel)});
  change.header.keyslots[key.keyslot] = std::move(fresh);
  change.obsolete.push_back(area_range(old));
  file.commit(std::move(change));
  return key.keyslot;
}

// LUKS1 has one header sector pair and fixed areas. The new passphrase first gets a keyslot of its
// own; the old number is then rewritten with the same sealed bytes (a keyslot's salt, costs and
// material do not depend on where it is) and the helper goes. At every step one of the two opens.
int change_luks1_keyslot(HeaderFile& file, const Unlocked& key, ByteView new_passphrase,
                         const NewKeyslot& options, const CancelToken* cancel) {
  const auto spare = find_free_keyslot(file.header());
  if (!spare) {
    throw Error(Code::kNoFreeKeyslot,
                "all 8 keyslots are taken: a change needs a free one, so that a power cut in the "
                "middle loses nothing",
                "remove a keyslot that is no longer needed first");
  }
  HeaderChange add{.header = file.header()};
  add.new_areas.push_back(
      put_keyslot(add.header, *spare, key.digest, key.key.span(), new_passphrase, options, cancel));
  const Keyslot fresh = add.header.keyslots.at(*spare);
  const Bytes material = add.new_areas.front().material;
  file.commit(std::move(add));

  Keyslot moved = fresh;
  moved.area.offset_bytes = file.header().keyslots.at(key.keyslot).area.offset_bytes;
  HeaderChange retire{.header = file.header()};
  retire.obsolete.push_back(area_range(file.header().keyslots.at(key.keyslot)));
  drop_keyslot(retire.header, key.keyslot);
  file.commit(std::move(retire));

  HeaderChange renumber{.header = file.header()};
  renumber.new_areas.push_back({.offset_bytes = moved.area.offset_bytes, .material = material});
  renumber.header.keyslots[key.keyslot] = std::move(moved);
  renumber.header.digests.at(key.digest).keyslots.insert(key.keyslot);
  file.commit(std::move(renumber));

  HeaderChange clean{.header = file.header()};
  drop_keyslot(clean.header, *spare);
  clean.obsolete.push_back(area_range(fresh));
  file.commit(std::move(clean));
  return key.keyslot;
}

}  // namespace

void drop_keyslot(Header& header, int id) {
  header.keyslots.erase(id);
  for (auto it = header.digests.begin(); it != header.digests.end();) {
    it->second.keyslots.erase(id);
    const bool idle = it->second.keyslots.empty() && it->second.segments.empty();
    it = idle ? header.digests.erase(it) : std::next(it);
  }
  for (auto& [token_id, token] : header.tokens) {
    if (!token.keyslots.contains(id)) continue;
    std::set<int> rest = token.keyslots;
    rest.erase(id);
    set_token_keyslots(token, std::move(rest));
  }
  if (header.version == Version::kLuks1) {
    Luks1Slot& slot = header.luks1_slots.at(static_cast<std::size_t>(id));
    reset_inactive(slot);
  }
}

std::optional<Unlocked> unlock(const HeaderFile& file, ByteView passphrase,
                               const UnlockOptions& options) {
  if (options.keyslot && !file.header().keyslots.contains(*options.keyslot)) {
    throw Error(Code::kNotFound, fmt::format("'{}' has no active keyslot {}", file.device()->name(),
                                             *options.keyslot));
  }
  const Candidates candidates = find_candidates(file, options);
  std::optional<Error> failure;
  for (const std::vector<int>& ids : candidates.by_priority) {
    if (ids.empty()) continue;
    Tries tries = try_keyslots(file, ids, passphrase, options);
    if (tries.found) return std::move(tries.found);
    if (!failure) failure = std::move(tries.failure);
  }
  if (failure) throw Error(*failure);
  // None of those that were tried opens, which says nothing about the passphrase.
  if (candidates.left_out) throw Error(*candidates.left_out);
  if (candidates.by_priority[0].empty() && candidates.by_priority[1].empty()) {
    if (candidates.refused) throw Error(*candidates.refused);
    throw_nothing_to_try(file, candidates);
  }
  return std::nullopt;
}

std::optional<int> find_digest(const Header& header, ByteView key, const crypto::KdfLimit& limit,
                               const CancelToken* cancel) {
  crypto::KdfBudget budget(limit);
  for (const auto& [id, digest] : header.digests) {
    if (digest.type != Digest::Type::kPbkdf2 || !crypto::find_hash(digest.hash)) continue;
    // PBKDF2's HMAC pads short keys with zeroes: a key of another length must not pass for one.
    const bool wrong_size = std::any_of(
        digest.keyslots.begin(), digest.keyslots.end(),
        [&](int keyslot) { return header.keyslots.at(keyslot).key_size_bytes != key.size(); });
    const bool wrong_luks1_size =
        header.version == Version::kLuks1 && header.luks1_key_size_bytes != key.size();
    if (wrong_size || wrong_luks1_size) continue;
    const std::string name = fmt::format("digest {}", id);
    crypto::check_limit(digest_cost(digest), digest.digest.size(), limit, name);
    budget.take({{digest_cost(digest), digest.digest.size()}}, name);
    if (matches(digest, key, cancel)) return id;
  }
  return std::nullopt;
}

std::optional<Unlocked> unlock_with_volume_key(const HeaderFile& file, SecretBytes key,
                                               const UnlockOptions& options) {
  const auto digest = find_digest(file.header(), key.span(), options.kdf_limit, options.cancel);
  if (!digest) return std::nullopt;
  const Header& header = file.header();
  if (!opens_active_segment(header, header.digests.at(*digest)) && !options.allow_unbound) {
    return std::nullopt;
  }
  return Unlocked{.key = std::move(key), .keyslot = -1, .digest = *digest};
}

bool opens_segment(const Header& header, int keyslot) {
  const auto digest = digest_of(header, keyslot);
  return header.keyslots.at(keyslot).type == Keyslot::Type::kLuks2 && digest &&
         opens_active_segment(header, header.digests.at(*digest));
}

AreaWrite put_keyslot(Header& header, int keyslot, int digest, ByteView key,
                      ByteView new_passphrase, const NewKeyslot& options,
                      const CancelToken* cancel) {
  Keyslot fresh =
      make_keyslot(header, keyslot, digest, static_cast<std::uint32_t>(key.size()), options);
  AreaWrite area{.offset_bytes = fresh.area.offset_bytes,
                 .material = seal_material(fresh, key, new_passphrase, cancel)};
  header.keyslots[keyslot] = std::move(fresh);
  header.digests.at(digest).keyslots.insert(keyslot);
  if (header.version == Version::kLuks1) {
    // Old programs left salt and costs of a removed key behind.
    Luks1Slot& slot = header.luks1_slots.at(static_cast<std::size_t>(keyslot));
    reset_inactive(slot);
  }
  return area;
}

int add_keyslot(HeaderFile& file, const Unlocked& key, ByteView new_passphrase,
                const NewKeyslot& options, const CancelToken* cancel) {
  const Header& header = file.header();
  const int count = header.version == Version::kLuks1 ? kLuks1KeyslotCount : kLuks2KeyslotCountMax;
  if (options.keyslot && (*options.keyslot < 0 || *options.keyslot >= count)) {
    throw Error(Code::kInvalidArgument,
                fmt::format("keyslot {} does not exist: they are numbered 0 to {}",
                            *options.keyslot, count - 1));
  }
  if (options.keyslot && header.keyslots.contains(*options.keyslot)) {
    throw Error(Code::kExists, fmt::format("keyslot {} is taken", *options.keyslot),
                "remove it first, or leave the number out");
  }
  const auto id = options.keyslot ? options.keyslot : find_free_keyslot(header);
  if (!id) {
    throw Error(Code::kNoFreeKeyslot, fmt::format("all {} keyslots are taken", count),
                "remove one that is no longer needed");
  }
  HeaderChange change{.header = header};
  change.new_areas.push_back(
      put_keyslot(change.header, *id, key.digest, key.key.span(), new_passphrase, options, cancel));
  file.commit(std::move(change));
  return *id;
}

void remove_keyslot(HeaderFile& file, int keyslot, bool allow_last) {
  const Header& header = file.header();
  const auto found = header.keyslots.find(keyslot);
  if (found == header.keyslots.end()) {
    throw Error(Code::kNotFound,
                fmt::format("'{}' has no active keyslot {}", file.device()->name(), keyslot));
  }
  const bool another =
      std::any_of(header.keyslots.begin(), header.keyslots.end(), [&](const auto& entry) {
        return entry.first != keyslot && opens_segment(header, entry.first);
      });
  if (opens_segment(header, keyslot) && !another && !allow_last) {
    throw Error(Code::kLastKeyslot,
                fmt::format("keyslot {} is the last that opens '{}': without it the data is lost",
                            keyslot, file.device()->name()),
                "--yes removes it all the same");
  }
  HeaderChange change{.header = header};
  change.obsolete.push_back(area_range(found->second));
  drop_keyslot(change.header, keyslot);
  file.commit(std::move(change));
}

int change_keyslot(HeaderFile& file, const Unlocked& key, ByteView new_passphrase,
                   const NewKeyslot& options, const CancelToken* cancel) {
  if (!file.header().keyslots.contains(key.keyslot)) {
    throw Error(Code::kNotFound, "no keyslot to change: a volume key was given",
                "add a keyslot instead");
  }
  return file.header().version == Version::kLuks1
             ? change_luks1_keyslot(file, key, new_passphrase, options, cancel)
             : change_luks2_keyslot(file, key, new_passphrase, options, cancel);
}

void erase_keyslots(HeaderFile& file) {
  HeaderChange change{.header = file.header()};
  if (change.header.version == Version::kLuks2) {
    change.obsolete.push_back({.offset_bytes = 2 * change.header.metadata_size_bytes,
                               .size_bytes = change.header.config.keyslots_size_bytes});
  } else {
    for (const Luks1Slot& slot : change.header.luks1_slots) {
      change.obsolete.push_back(
          {.offset_bytes = std::uint64_t{slot.material_offset_sectors} * 512,
           .size_bytes = material_bytes(change.header.luks1_key_size_bytes, slot.stripes)});
    }
  }
  const std::map<int, Keyslot> keyslots = change.header.keyslots;
  for (const auto& [id, keyslot] : keyslots) drop_keyslot(change.header, id);
  file.commit(std::move(change));
}

}  // namespace lukskeep::luks
