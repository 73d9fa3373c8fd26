#include "luks/policy.h"

#include <algorithm>
#include <memory>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "crypto/cipher_spec.h"
#include "crypto/hash.h"
#include "luks/header_backup.h"
#include "storage/memory_device.h"

namespace lukskeep::luks {
namespace {

// A header may hold many thousand names; a message tells of the first ones.
constexpr std::size_t kNamesToldMax = 4;

std::string canonical_hash(const std::string& name) {
  const auto info = crypto::find_hash(name);
  return info ? info->name : name;
}

std::string list_names(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kNamesToldMax); ++i) {
    text += fmt::format("{}'{}'", i == 0 ? "" : ", ", printable(names[i]));
  }
  if (names.size() > kNamesToldMax) {
    text += fmt::format(" and {} more", names.size() - kNamesToldMax);
  }
  return text;
}

// What everybody should know of a cipher that is refused.
std::string remark_on(const crypto::CipherSpec& spec) {
  using crypto::IvGenerator;
  if (crypto::is_insecure(spec)) return ": it encrypts nothing";
  if (spec.mode == crypto::CipherMode::kEcb) return ": equal blocks stay equal";
  const bool plain = spec.iv == IvGenerator::kPlain || spec.iv == IvGenerator::kPlain64 ||
                     spec.iv == IvGenerator::kPlain64be || spec.iv == IvGenerator::kNull;
  if (spec.mode == crypto::CipherMode::kCbc && plain) return ": its IVs can be predicted";
  return {};
}

class Judge {
 public:
  Judge(const Policy& policy, const Header& header, const std::optional<std::string>& fingerprint)
      : policy_(policy), header_(header), fingerprint_(fingerprint) {}

  std::vector<Violation> run() {
    judge_header();
    for (const auto& [id, segment] : header_.segments) judge_segment(id, segment);
    for (const auto& [id, keyslot] : header_.keyslots) judge_keyslot(id, keyslot);
    for (const auto& [id, digest] : header_.digests) judge_digest(id, digest);
    for (const auto& [id, token] : header_.tokens) {
      judge_name(policy_.token_types, "token_types", fmt::format("token {}", id), "type",
                 token.type);
    }
    return std::move(violations_);
  }

 private:
  void judge_header();
  void judge_pin();
  void judge_segment(int id, const Segment& segment);
  void judge_segment_key(int id, const std::string& object);
  void judge_keyslot(int id, const Keyslot& keyslot);
  void judge_kdf(const std::string& object, const Kdf& kdf);
  void judge_digest(int id, const Digest& digest);
  void judge_cipher(const std::optional<CipherRules>& rules, std::string_view rule,
                    const std::string& object, const std::string& encryption,
                    const std::set<std::uint32_t>& key_bits);

  void add(std::string_view rule, const std::string& object, std::string found,
           std::string_view problem) {
    violations_.push_back({.rule = std::string(rule),
                           .object = object,
                           .found = std::move(found),
                           .message = fmt::format("{}: {}", object, problem)});
  }

  void judge_name(const Names& allowed, std::string_view rule, const std::string& object,
                  std::string_view noun, const std::string& name) {
    if (!allowed || allowed->contains(name)) return;
    add(rule, object, printable(name),
        fmt::format("{} '{}' is not allowed", noun, printable(name)));
  }

  void judge_names(const Names& allowed, std::string_view rule, const std::string& object,
                   std::string_view noun, const std::set<std::string>& names) {
    if (!allowed) return;
    std::vector<std::string> refused;
    std::ranges::set_difference(names, *allowed, std::back_inserter(refused));
    if (refused.empty()) return;
    const std::string list = list_names(refused);
    add(rule, object, list,
        fmt::format("{} {} {} not allowed", noun, list, refused.size() == 1 ? "is" : "are"));
  }

  void judge_bounds(const Bounds& bounds, std::string_view rule, const std::string& object,
                    std::string_view noun, std::uint64_t value) {
    if (bounds.contain(value)) return;
    const bool low = value < bounds.min;
    add(rule, object, std::to_string(value),
        fmt::format("{} of {} is {} {}", noun, value, low ? "below" : "above",
                    low ? bounds.min : bounds.max));
  }

  // Sizes in bits of the keys that keyslots hold for a segment.
  std::set<std::uint32_t> key_bits_of(int segment) const;

  const Policy& policy_;
  const Header& header_;
  const std::optional<std::string>& fingerprint_;
  std::vector<Violation> violations_;
};

void Judge::judge_pin() {
  if (!policy_.fingerprints) return;
  if (!fingerprint_) {
    return add("pin.fingerprints", "header", {}, "its bytes cannot be had for a fingerprint");
  }
  if (policy_.fingerprints->contains(*fingerprint_)) return;
  add("pin.fingerprints", "header", *fingerprint_,
      fmt::format("its fingerprint {} is not among those pinned", *fingerprint_));
}

void Judge::judge_header() {
  judge_pin();
  const auto version = static_cast<std::uint32_t>(header_.version);
  if (policy_.versions && !policy_.versions->contains(version)) {
    add("versions", "header", std::to_string(version),
        fmt::format("LUKS{} is not allowed", version));
  }
  judge_names(policy_.requirements, "requirements", "header", "requirement",
              header_.config.requirements);
  judge_names(policy_.flags, "flags", "header", "flag", header_.config.flags);
  judge_bounds(policy_.segments, "segments", "header", "number of segments",
               header_.segments.size());
  judge_bounds(policy_.keyslots, "keyslots", "header", "number of keyslots",
               header_.keyslots.size());
}

std::set<std::uint32_t> Judge::key_bits_of(int segment) const {
  if (header_.version == Version::kLuks1) return {header_.luks1_key_size_bytes * 8};
  std::set<std::uint32_t> bits;
  for (const auto& [id, digest] : header_.digests) {
    if (!digest.segments.contains(segment)) continue;
    for (const int keyslot : digest.keyslots) {
      const auto found = header_.keyslots.find(keyslot);
      // A re-encryption's keyslot says 1 byte, and holds no key.
      if (found == header_.keyslots.end()) continue;
      if (found->second.type == Keyslot::Type::kLuks2) {
        bits.insert(found->second.key_size_bytes * 8);
      }
    }
  }
  return bits;
}

void Judge::judge_cipher(const std::optional<CipherRules>& rules, std::string_view rule,
                         const std::string& object, const std::string& encryption,
                         const std::set<std::uint32_t>& key_bits) {
  if (!rules) return;
  crypto::CipherSpec spec;
  try {
    spec = crypto::parse_cipher_spec(encryption);
  } catch (const Error& error) {
    // What is not known here is allowed nowhere: capi: names an implementation, others a cipher of
    // which nobody can say whether it is one.
    if (error.code() != Code::kUnsupported) throw;
    return add(rule, object, printable(encryption), error.message());
  }
  const auto allowed = rules->find(crypto::to_string(spec));
  if (allowed == rules->end()) {
    return add(rule, object, printable(encryption),
               fmt::format("cipher '{}' is not allowed{}", printable(encryption), remark_on(spec)));
  }
  for (const std::uint32_t bits : key_bits) {
    const bool fits = allowed->second.empty()
                          ? std::ranges::count(crypto::key_sizes_bytes(spec), bits / 8) != 0
                          : allowed->second.contains(bits);
    if (fits) continue;
    add(rule, object, fmt::format("{}/{}", printable(encryption), bits),
        fmt::format("cipher '{}' with a key of {} bits is not allowed", printable(encryption),
                    bits));
  }
}

// Who can set the header up can name any key for the payload, unless its digest is pinned.
void Judge::judge_segment_key(int id, const std::string& object) {
  if (!policy_.volume_key_digests) return;
  bool proven = false;
  for (const auto& [number, digest] : header_.digests) {
    if (!digest.segments.contains(id)) continue;
    const std::string value = to_hex(digest.digest);
    if (policy_.volume_key_digests->contains(value)) {
      proven = true;
      continue;
    }
    add("pin.volume_key_digests", object, value,
        fmt::format("its digest {} is {}, which is not among those pinned", number,
                    printable(value, 128)));
    return;
  }
  if (!proven) {
    add("pin.volume_key_digests", object, {}, "no digest is for it, so none that is pinned");
  }
}

void Judge::judge_segment(int id, const Segment& segment) {
  const std::string object = fmt::format("segment {}", id);
  judge_name(policy_.segment_types, "segment_types", object, "type", segment.type_name);
  judge_names(policy_.segment_flags, "segment_flags", object, "flag", segment.flags);
  judge_segment_key(id, object);
  if (segment.has_integrity && !policy_.integrity) {
    add("integrity", object, "true", "integrity is not allowed");
  }
  if (segment.type != Segment::Type::kCrypt) return;
  // With integrity the key of a keyslot has a part that is not the cipher's.
  judge_cipher(policy_.ciphers, "ciphers", object, segment.encryption,
               segment.has_integrity ? std::set<std::uint32_t>() : key_bits_of(id));
  if (policy_.sector_sizes && !policy_.sector_sizes->contains(segment.sector_size_bytes)) {
    add("sector_sizes", object, std::to_string(segment.sector_size_bytes),
        fmt::format("sectors of {} bytes are not allowed", segment.sector_size_bytes));
  }
}

void Judge::judge_kdf(const std::string& object, const Kdf& kdf) {
  if (!policy_.kdfs) return;
  const auto found = policy_.kdfs->find(kdf.type_name);
  if (found == policy_.kdfs->end()) {
    return add("kdf", object, printable(kdf.type_name),
               fmt::format("KDF '{}' is not allowed", printable(kdf.type_name)));
  }
  const KdfRule& rule = found->second;
  const auto member = [&](std::string_view name) {
    return fmt::format("kdf.{}.{}", kdf.type_name, name);
  };
  if (kdf.type == Kdf::Type::kPbkdf2) {
    judge_name(rule.hashes, member("hashes"), object, "KDF hash", canonical_hash(kdf.hash));
    judge_bounds(rule.iterations, member("iterations"), object, "an iteration count",
                 kdf.iterations);
    return;
  }
  judge_bounds(rule.iterations, member("time"), object, "a time cost", kdf.iterations);
  judge_bounds(rule.memory_kib, member("memory_kib"), object, "memory in KiB", kdf.memory_kib);
  judge_bounds(rule.parallel, member("parallel"), object, "a lane count", kdf.parallel);
  judge_bounds(rule.time_memory_kib, member("time_memory_kib"), object,
               "a product of time cost and memory in KiB",
               std::uint64_t{kdf.iterations} * kdf.memory_kib);
}

void Judge::judge_keyslot(int id, const Keyslot& keyslot) {
  const std::string object = fmt::format("keyslot {}", id);
  judge_name(policy_.keyslot_types, "keyslot_types", object, "type", keyslot.type_name);
  // Others have none of what follows.
  if (keyslot.type != Keyslot::Type::kLuks2) return;
  const bool own = policy_.keyslot_ciphers.has_value();
  judge_cipher(own ? policy_.keyslot_ciphers : policy_.ciphers, own ? "keyslot_ciphers" : "ciphers",
               object, keyslot.area.encryption, {keyslot.area.key_size_bytes * 8});
  judge_kdf(object, keyslot.kdf);
  judge_name(policy_.af_hashes, "af.hashes", object, "AF splitter hash",
             canonical_hash(keyslot.af.hash));
  judge_bounds(policy_.af_stripes, "af.stripes", object, "a stripe count", keyslot.af.stripes);
}

void Judge::judge_digest(int id, const Digest& digest) {
  const std::string object = fmt::format("digest {}", id);
  const bool limited = policy_.digest_hashes || policy_.digest_iterations != Bounds{} ||
                       policy_.digest_size_bytes != Bounds{};
  if (digest.type != Digest::Type::kPbkdf2) {
    if (!limited) return;
    return add("digest", object, printable(digest.type_name),
               fmt::format("type '{}' is not known", printable(digest.type_name)));
  }
  judge_name(policy_.digest_hashes, "digest.hashes", object, "hash", canonical_hash(digest.hash));
  judge_bounds(policy_.digest_iterations, "digest.iterations", object, "an iteration count",
               digest.iterations);
  judge_bounds(policy_.digest_size_bytes, "digest.size_bytes", object, "a size in bytes",
               digest.digest.size());
}

// Absent where the device ends before its header does, or the header is larger than any.
std::optional<std::string> fingerprint_if_any(const HeaderFile& file) {
  try {
    return header_fingerprint(file);
  } catch (const Error& error) {
    if (error.code() != Code::kTooSmall && error.code() != Code::kUnsupported) throw;
    return std::nullopt;
  }
}

}  // namespace

bool Policy::operator==(const Policy& other) const { return to_json(*this) == to_json(other); }

std::string header_fingerprint(const HeaderFile& file) {
  Bytes bytes = backup_header(file, true);
  const Bytes digest = crypto::hash("sha256", bytes);
  // The bytes were read after the header was: they prove something of it only if they hold it.
  std::optional<Header> same;
  try {
    same =
        HeaderFile::open(std::make_shared<storage::MemoryDevice>(std::move(bytes), false)).header();
  } catch (const Error& error) {
    if (error.code() != Code::kNotLuks && error.code() != Code::kDamaged) throw;
  }
  if (same != file.header()) {
    throw Error(Code::kConflict, fmt::format("somebody else changed the header of '{}' meanwhile",
                                             file.device()->name()));
  }
  return to_hex(digest);
}

std::vector<Violation> judge(const Policy& policy, const Header& header,
                             const std::optional<std::string>& fingerprint) {
  return Judge(policy, header, fingerprint).run();
}

std::vector<Violation> judge(const Policy& policy, const HeaderFile& file) {
  std::optional<std::string> fingerprint;
  if (policy.fingerprints) fingerprint = fingerprint_if_any(file);
  return judge(policy, file.header(), fingerprint);
}

void enforce(const Policy& policy, const HeaderFile& file) {
  const std::vector<Violation> violations = judge(policy, file);
  if (violations.empty()) return;
  std::vector<std::string_view> messages;
  messages.reserve(violations.size());
  for (const Violation& violation : violations) messages.push_back(violation.message);
  throw Error(
      Code::kUnsafe,
      fmt::format("the header of '{}' is not what policy '{}' allows: {}", file.device()->name(),
                  printable(policy.name, 256), fmt::join(messages, "; ")),
      fmt::format("'lukskeep policy show {}' tells what it allows", printable(policy.name, 256)));
}

}  // namespace lukskeep::luks
