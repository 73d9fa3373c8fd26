// The checks of a header's values: strength, and how its objects belong together.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/bytes.h"
#include "crypto/cipher_spec.h"
#include "crypto/hash.h"
#include "luks/guess_rate.h"
#include "luks/header_check.h"
#include "luks/keyslots.h"
#include "luks/luks2_codec.h"

namespace lukskeep::luks {
namespace {

using crypto::CipherMode;
using crypto::IvGenerator;

// A salt shorter than this makes tables of guesses worth while (NIST SP 800-132 §5.1: 128 bits).
constexpr std::size_t kSaltBytesMin = 16;
// `plain` numbers sectors of 512 bytes in 32 bits.
constexpr std::uint64_t kPlainIvBytes = std::uint64_t{512} << 32;
constexpr int kPassphraseLength = 8;

constexpr std::string_view kNewVolume =
    "it cannot be changed in place: make a new volume (lukskeep create) and copy";

// "5.5 million".
std::string human_count(double count) {
  constexpr std::array<std::pair<double, std::string_view>, 4> kUnits = {
      {{1e12, "million million"}, {1e9, "billion"}, {1e6, "million"}, {1e3, "thousand"}}};
  for (const auto& [unit, name] : kUnits) {
    if (count >= unit) return fmt::format("{:.3g} {}", count / unit, name);
  }
  return fmt::format("{:.3g}", count);
}

// "20 minutes", "4 thousand years".
std::string human_time(double seconds) {
  constexpr std::array<std::pair<double, std::string_view>, 4> kUnits = {
      {{365.25 * 86400, "years"}, {86400, "days"}, {3600, "hours"}, {60, "minutes"}}};
  for (const auto& [unit, name] : kUnits) {
    if (seconds >= 2 * unit)
      return fmt::format("{} {}", human_count(std::round(seconds / unit)), name);
  }
  return fmt::format("{} seconds", human_count(seconds));
}

class Settings {
 public:
  Settings(const Header& header, std::optional<std::uint64_t> payload_size_bytes)
      : header_(header), payload_size_bytes_(payload_size_bytes) {}

  std::vector<Finding> check() {
    check_version();
    check_requirements();
    check_ways_in();
    for (const auto& [number, keyslot] : header_.keyslots) check_keyslot(number, keyslot);
    check_shared_salts();
    check_hashes();
    for (const auto& [number, segment] : header_.segments) check_segment(number, segment);
    check_tokens();
    check_inactive_luks1_slots();
    return std::move(findings_);
  }

 private:
  void add(Severity severity, std::string_view code, std::string object, std::string problem,
           std::string advice = {}) {
    findings_.push_back({.severity = severity,
                         .code = std::string(code),
                         .object = std::move(object),
                         .offset_bytes = {},
                         .size_bytes = 0,
                         .problem = std::move(problem),
                         .advice = std::move(advice)});
  }

  void check_version();
  void check_requirements();
  void check_ways_in();
  void check_keyslot(int number, const Keyslot& keyslot);
  void check_kdf(int number, const Keyslot& keyslot);
  void check_salt(int number, const Keyslot& keyslot);
  void check_shared_salts();
  void check_hashes();
  void check_segment(int number, const Segment& segment);
  void check_cipher(int number, const Segment& segment, const crypto::CipherSpec& spec);
  void check_iv(int number, const Segment& segment, const crypto::CipherSpec& spec);
  void check_tokens();
  void check_inactive_luks1_slots();

  bool luks1() const { return header_.version == Version::kLuks1; }
  std::uint32_t key_size_bytes(int segment) const;
  std::optional<std::uint64_t> segment_size_bytes(const Segment& segment) const;

  const Header& header_;
  std::optional<std::uint64_t> payload_size_bytes_;
  std::vector<Finding> findings_;
};

void Settings::check_version() {
  if (!luks1()) return;
  add(Severity::kNote, "luks1", "header",
      "LUKS1 has one copy of its header without a checksum, PBKDF2 only, and sectors of 512 bytes",
      "keep a copy of the header (lukskeep header backup, or the archive); new volumes are better "
      "LUKS2");
}

void Settings::check_requirements() {
  for (const std::string& requirement : header_.config.requirements) {
    const bool reencrypt = requirement.find("reencrypt") != std::string::npos;
    add(reencrypt ? Severity::kWarning : Severity::kNote,
        reencrypt ? "reencryption-unfinished" : "requirement-unknown", "header",
        fmt::format("the header requires '{}', which this program does not support",
                    printable(requirement)),
        reencrypt ? "finish the re-encryption with the program that began it" : "");
  }
}

void Settings::check_ways_in() {
  const bool any =
      std::any_of(header_.keyslots.begin(), header_.keyslots.end(), [&](const auto& entry) {
        return entry.second.type == Keyslot::Type::kLuks2 && opens_segment(header_, entry.first);
      });
  if (any) return;
  add(Severity::kError, "no-keyslot", "header", "no keyslot opens the payload",
      "if that was not the purpose, restore the header from a backup or the archive (lukskeep "
      "header restore)");
}

void Settings::check_keyslot(int number, const Keyslot& keyslot) {
  const std::string object = fmt::format("keyslot {}", number);
  const bool digest =
      std::any_of(header_.digests.begin(), header_.digests.end(),
                  [&](const auto& entry) { return entry.second.keyslots.contains(number); });
  if (keyslot.type != Keyslot::Type::kLuks2) {
    if (keyslot.type == Keyslot::Type::kUnknown) {
      add(Severity::kNote, "keyslot-unknown", object,
          fmt::format("type '{}' is not known here: its area was not examined",
                      printable(keyslot.type_name)));
    }
    if (!digest) {
      add(Severity::kWarning, "keyslot-without-digest", object,
          "no digest is for it: nothing proves that its key is the right one",
          "remove it (lukskeep key remove --slot) unless you know what made it");
    }
    return;
  }
  if (!opens_segment(header_, number)) {
    add(Severity::kNote, "keyslot-unbound", object, "its key opens no segment of the payload");
  }
  check_kdf(number, keyslot);
  check_salt(number, keyslot);
  if (keyslot.area.encryption.starts_with("cipher_null")) {
    add(Severity::kError, "keyslot-not-encrypted", object,
        fmt::format("its area is encrypted with '{}': whoever reads the header has the key, and "
                    "any passphrase opens it",
                    printable(keyslot.area.encryption)),
        "remove it; take the volume key for known");
  }
}

void Settings::check_kdf(int number, const Keyslot& keyslot) {
  const std::string object = fmt::format("keyslot {}", number);
  const auto rate = guesses_per_second(keyslot.kdf, keyslot.area.key_size_bytes);
  if (!rate) {
    return add(
        Severity::kWarning, "kdf-unknown", object,
        fmt::format("its key derivation '{}' is not known here: it cannot be opened",
                    printable(keyslot.kdf.type == Kdf::Type::kPbkdf2 ? "pbkdf2-" + keyslot.kdf.hash
                                                                     : keyslot.kdf.type_name)));
  }
  if (*rate <= kWeakGuessesPerSecond) return;
  const std::string cost =
      keyslot.kdf.type == Kdf::Type::kPbkdf2
          ? fmt::format("{} iterations of {}", keyslot.kdf.iterations, printable(keyslot.kdf.hash))
          : fmt::format("{} KiB and time {}", keyslot.kdf.memory_kib, keyslot.kdf.iterations);
  add(Severity::kWarning, "kdf-weak", object,
      fmt::format("{} with {} is weak: one graphics card tries up to {} passphrases a second, and "
                  "finds {} random letters and digits in {} on average",
                  keyslot.kdf.type_name, cost, human_count(*rate), kPassphraseLength,
                  human_time(seconds_to_find(kPassphraseLength, *rate))),
      fmt::format("lukskeep key convert VOLUME --slot {}{}", number,
                  luks1() ? "" : " --pbkdf argon2id"));
}

void Settings::check_salt(int number, const Keyslot& keyslot) {
  const auto& salt = keyslot.kdf.salt;
  if (keyslot.kdf.type == Kdf::Type::kUnknown) return;
  const bool constant =
      std::all_of(salt.begin(), salt.end(), [&](std::byte byte) { return byte == salt.front(); });
  if (salt.size() >= kSaltBytesMin && !constant) return;
  add(Severity::kWarning, "salt-weak", fmt::format("keyslot {}", number),
      constant
          ? "its salt is the same byte throughout: it was not made at random, or is overwritten"
          : fmt::format("its salt has {} bytes only", salt.size()),
      fmt::format("lukskeep key convert VOLUME --slot {}", number));
}

void Settings::check_shared_salts() {
  std::map<std::string_view, int> seen;
  for (const auto& [number, keyslot] : header_.keyslots) {
    if (keyslot.type != Keyslot::Type::kLuks2 || keyslot.kdf.type == Kdf::Type::kUnknown) continue;
    const auto [first, fresh] = seen.emplace(as_string_view(keyslot.kdf.salt), number);
    if (fresh) continue;
    add(Severity::kWarning, "salt-shared", fmt::format("keyslot {}", number),
        fmt::format("it has the salt of keyslot {}: one guess tries both", first->second),
        fmt::format("lukskeep key convert VOLUME --slot {}", number));
  }
}

void Settings::check_hashes() {
  std::vector<std::string> users;
  const auto is_sha1 = [](std::string_view name) {
    const auto hash = crypto::find_hash(name);
    return hash && (hash->name == "sha1" || hash->name == "md5");
  };
  for (const auto& [number, keyslot] : header_.keyslots) {
    if (keyslot.type != Keyslot::Type::kLuks2) continue;
    if (is_sha1(keyslot.kdf.hash) || is_sha1(keyslot.af.hash)) {
      users.push_back(fmt::format("keyslot {}", number));
    }
  }
  for (const auto& [number, digest] : header_.digests) {
    if (is_sha1(digest.hash)) users.push_back(fmt::format("digest {}", number));
  }
  if (users.empty()) return;
  add(Severity::kNote, "hash-old", "header",
      fmt::format("SHA-1 or MD5 in {}: no attack on this use is known, but they are on their way "
                  "out, and policies forbid them",
                  fmt::join(users, ", ")),
      luks1() ? std::string(kNewVolume) : "lukskeep key convert VOLUME --hash sha256");
}

// Of the volume key, 0 if no keyslot tells.
std::uint32_t Settings::key_size_bytes(int segment) const {
  if (luks1()) return header_.luks1_key_size_bytes;
  for (const auto& [id, digest] : header_.digests) {
    if (!digest.segments.contains(segment)) continue;
    for (const int number : digest.keyslots) {
      const auto keyslot = header_.keyslots.find(number);
      if (keyslot != header_.keyslots.end()) return keyslot->second.key_size_bytes;
    }
  }
  return 0;
}

// A dynamic segment is the last one.
std::optional<std::uint64_t> Settings::segment_size_bytes(const Segment& segment) const {
  if (segment.size_bytes) return segment.size_bytes;
  return header_.segments.size() == 1 ? payload_size_bytes_ : std::nullopt;
}

void Settings::check_segment(int number, const Segment& segment) {
  const std::string object = fmt::format("segment {}", number);
  if (segment.type == Segment::Type::kLinear) {
    return add(Severity::kWarning, "segment-not-encrypted", object,
               fmt::format(
                   "it is of type 'linear': {} from byte {} is not encrypted",
                   segment.size_bytes ? fmt::format("{} bytes", *segment.size_bytes) : "everything",
                   segment.offset_bytes),
               "right only while a re-encryption runs");
  }
  if (segment.type == Segment::Type::kUnknown) {
    return add(Severity::kNote, "segment-unknown", object,
               fmt::format("type '{}' is not known here", printable(segment.type_name)));
  }
  try {
    const crypto::CipherSpec spec = crypto::parse_cipher_spec(segment.encryption);
    check_cipher(number, segment, spec);
    check_iv(number, segment, spec);
  } catch (const Error& error) {
    if (error.code() != Code::kUnsupported) throw;
    add(Severity::kWarning, "cipher-unknown", object, error.message());
  }
}

void Settings::check_cipher(int number, const Segment& segment, const crypto::CipherSpec& spec) {
  const std::string object = fmt::format("segment {}", number);
  const std::string name = printable(segment.encryption);
  const auto say = [&](Severity severity, std::string_view code, std::string_view problem) {
    add(severity, code, object, fmt::format("{}: {}", name, problem), std::string(kNewVolume));
  };
  if (crypto::is_insecure(spec)) {
    return say(Severity::kError, "segment-not-encrypted", "this encrypts nothing");
  }
  if (crypto::block_bytes(spec.cipher) < 16) {
    say(Severity::kWarning, "cipher-weak",
        "blocks of 64 bits repeat after some 32 GiB, which tells about the data");
  }
  switch (spec.mode) {
    case CipherMode::kEcb:
      return say(Severity::kWarning, "cipher-weak", "equal blocks of data stay visible as equal");
    case CipherMode::kCtr:
      return say(Severity::kWarning, "cipher-weak",
                 "who sees two states of a sector knows how their data differs, and single bits "
                 "can be changed at will");
    case CipherMode::kCbc:
      return say(Severity::kNote, "cipher-old",
                 "who can write to the device can change chosen bits of what is decrypted");
    case CipherMode::kXts:
      if (key_size_bytes(number) == 32) {
        add(Severity::kNote, "key-128", object,
            fmt::format("{} with a key of 256 bits has the strength of 128: xts splits it in two",
                        name));
      }
      return;
    case CipherMode::kLrw:
      return say(Severity::kNote, "cipher-old", "lrw is superseded by xts");
  }
}

void Settings::check_iv(int number, const Segment& segment, const crypto::CipherSpec& spec) {
  const std::string object = fmt::format("segment {}", number);
  const bool foreseeable = spec.iv == IvGenerator::kPlain || spec.iv == IvGenerator::kPlain64 ||
                           spec.iv == IvGenerator::kPlain64be || spec.iv == IvGenerator::kNull ||
                           spec.iv == IvGenerator::kBenbi;
  if (spec.mode == CipherMode::kCbc && foreseeable) {
    add(Severity::kWarning, "cipher-weak", object,
        fmt::format("{}: with IVs that can be foreseen, files prepared for it can be recognised in "
                    "the encrypted data (watermarks)",
                    printable(segment.encryption)),
        std::string(kNewVolume));
  }
  if (spec.iv == IvGenerator::kNull && spec.mode != CipherMode::kCbc) {
    add(Severity::kWarning, "cipher-weak", object,
        fmt::format("{}: all sectors have the same IV", printable(segment.encryption)),
        std::string(kNewVolume));
  }
  const auto size = segment_size_bytes(segment);
  if (spec.iv != IvGenerator::kPlain || !size || *size <= kPlainIvBytes) return;
  add(Severity::kWarning, "iv-wraps", object,
      fmt::format("{}: sector numbers begin anew after 2 TiB, and sectors that far apart share an "
                  "IV",
                  printable(segment.encryption)),
      std::string(kNewVolume));
}

void Settings::check_tokens() {
  for (const auto& [number, token] : header_.tokens) {
    if (!token.keyslots.empty()) continue;
    add(Severity::kNote, "token-unassigned", fmt::format("token {}", number),
        fmt::format("type '{}': it belongs to no keyslot, and opens nothing",
                    printable(token.type)),
        fmt::format("lukskeep token remove VOLUME {}, unless something else reads it", number));
  }
}

void Settings::check_inactive_luks1_slots() {
  if (!luks1()) return;
  for (int number = 0; number < kLuks1KeyslotCount; ++number) {
    const Luks1Slot& slot = header_.luks1_slots.at(static_cast<std::size_t>(number));
    const bool salt = !all_zero(slot.inactive_salt);
    if (header_.keyslots.contains(number) || (slot.inactive_iterations == 0 && !salt)) continue;
    add(Severity::kNote, "keyslot-not-wiped", fmt::format("keyslot {}", number),
        "it is not in use but keeps iterations or salt: who makes it active again may open the "
        "volume with its old passphrase, if its area was not wiped either",
        "adding a passphrase there and removing it again wipes it (lukskeep key add --slot)");
  }
}

}  // namespace

std::vector<Finding> check_settings(const Header& header,
                                    std::optional<std::uint64_t> payload_size_bytes) {
  return Settings(header, payload_size_bytes).check();
}

}  // namespace lukskeep::luks
