// The rules of LUKS2 metadata that concern more than one object, in the order in which
// docs/format/luks2.md lists them.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "crypto/hash.h"
#include "luks/luks2_codec.h"
#include "luks/luks2_json.h"

namespace lukskeep::luks {
namespace {

constexpr std::uint64_t kAlignment = 4096;
constexpr std::size_t kTextBytesMax = 47;      // of 48, the last is zero
constexpr std::size_t kUuidFieldBytes = 40;    // the last is zero
constexpr std::size_t kHashNameBytesMax = 31;  // of 32
constexpr std::size_t kChecksumBytesMax = 64;

class Rules {
 public:
  Rules(const Header& header, std::string_view what) : header_(header), what_(what) {}

  void check() const {
    check_binary_header();
    check_requirements();
    check_references();
    check_keyslots_have_digest();
    check_segments();
    check_config();
    check_areas();
    check_reencryption();
  }

 private:
  template <typename... Args>
  void require(bool holds, fmt::format_string<Args...> problem, Args&&... args) const {
    if (holds) return;
    throw Error(Code::kDamaged,
                fmt::format("{}: {}", what_, fmt::format(problem, std::forward<Args>(args)...)));
  }

  void check_binary_header() const;
  void check_text(const std::string& text, std::string_view field) const;
  void check_requirements() const;
  void check_references() const;
  void check_keyslots_have_digest() const;
  void check_segments() const;
  void check_segment_order() const;
  void check_segment_ranges() const;
  void check_config() const;
  void check_areas() const;
  void check_reencryption() const;
  void check_reencryption_segments() const;

  const Header& header_;
  std::string_view what_;
};

bool is_backup(const Segment& segment) {
  return std::any_of(segment.flags.begin(), segment.flags.end(),
                     [](const std::string& flag) { return flag.starts_with("backup-"); });
}

// Whether both hold data of the same form.
bool is_like(const Segment& a, const Segment& b) {
  return a.type_name == b.type_name && a.encryption == b.encryption &&
         a.sector_size_bytes == b.sector_size_bytes;
}

// Including versions of the future: "online-reencrypt" or "online-reencrypt-v" and a number.
bool is_online_reencrypt(std::string_view requirement) {
  constexpr std::string_view kName = "online-reencrypt";
  if (!requirement.starts_with(kName)) return false;
  requirement.remove_prefix(kName.size());
  if (requirement.empty()) return true;
  return requirement.starts_with("-v") && requirement.size() > 2 &&
         requirement.find_first_not_of("0123456789", 2) == std::string_view::npos;
}

// Those of which the parts that belong to them are known.
bool is_known_online_reencrypt(const std::string& requirement) {
  return requirement == "online-reencrypt" || requirement == "online-reencrypt-v2" ||
         requirement == "online-reencrypt-v3";
}

void Rules::check_text(const std::string& text, std::string_view field) const {
  require(text.size() <= kTextBytesMax, "LUKS2 {} '{}' is longer than {} bytes", field,
          printable(text), kTextBytesMax);
  require(text.find('\0') == std::string::npos, "LUKS2 {} '{}' holds a zero byte", field,
          printable(text));
}

void Rules::check_binary_header() const {
  require(header_.version == Version::kLuks2, "not a LUKS2 header");
  const auto& sizes = kLuks2MetadataSizes;
  require(std::find(sizes.begin(), sizes.end(), header_.metadata_size_bytes) != sizes.end(),
          "LUKS2 metadata size of {} bytes is not one of the nine legal ones",
          header_.metadata_size_bytes);
  check_text(header_.label, "label");
  check_text(header_.subsystem, "subsystem");
  const auto is_plain = [](char c) { return c > 0x20 && c < 0x7f; };
  require(header_.uuid.size() < kUuidFieldBytes && std::ranges::all_of(header_.uuid, is_plain),
          "LUKS2 UUID '{}' has characters that are not printable ASCII", printable(header_.uuid));
  const std::string& hash = header_.checksum_algorithm;
  const auto info = crypto::find_hash(hash);
  require(hash.size() <= kHashNameBytesMax && info && info->digest_bytes <= kChecksumBytesMax,
          "LUKS2 checksum algorithm '{}' is unknown", printable(hash));
}

// Two versions of the online re-encryption exclude each other.
void Rules::check_requirements() const {
  const auto& requirements = header_.config.requirements;
  const auto count = std::count_if(requirements.begin(), requirements.end(), is_online_reencrypt);
  require(count <= 1, "requirements name {} versions of 'online-reencrypt'", count);
}

void Rules::check_references() const {
  for (const auto& [id, token] : header_.tokens) {
    for (const int keyslot : token.keyslots) {
      require(header_.keyslots.contains(keyslot), "token {}: keyslot {} does not exist", id,
              keyslot);
    }
  }
  for (const auto& [id, digest] : header_.digests) {
    for (const int keyslot : digest.keyslots) {
      require(header_.keyslots.contains(keyslot), "digest {}: keyslot {} does not exist", id,
              keyslot);
    }
    for (const int segment : digest.segments) {
      require(header_.segments.contains(segment), "digest {}: segment {} does not exist", id,
              segment);
    }
  }
}

// A key that two digests claim, or none, cannot be told from another.
void Rules::check_keyslots_have_digest() const {
  for (const auto& [id, keyslot] : header_.keyslots) {
    if (keyslot.type != Keyslot::Type::kLuks2) continue;
    const auto count =
        std::count_if(header_.digests.begin(), header_.digests.end(),
                      [&](const auto& entry) { return entry.second.keyslots.contains(id); });
    require(count == 1, "keyslot {}: {} digests are for it, not 1", id, count);
  }
}

// Segments are numbered without gaps; those that a re-encryption keeps as backups come last.
void Rules::check_segment_order() const {
  require(!header_.segments.empty(), "there are no segments");
  int next = 0;
  std::optional<int> first_backup;
  for (const auto& [id, segment] : header_.segments) {
    require(id == next, "segment {} is missing before segment {}", next, id);
    ++next;
    if (is_backup(segment)) {
      if (!first_backup) first_backup = id;
    } else {
      require(!first_backup, "segment {}: stands behind backup segment {}", id,
              first_backup.value_or(0));
    }
  }
  require(first_backup != 0, "all segments are backups");
}

void Rules::check_segment_ranges() const {
  struct Range {
    std::uint64_t begin;
    std::uint64_t end;
    int id;
  };
  std::vector<Range> ranges;
  std::optional<int> dynamic;
  for (const auto& [id, segment] : header_.segments) {
    if (is_backup(segment)) break;
    require(!dynamic, "segment {}: 'dynamic' size, but not the last segment", dynamic.value_or(0));
    if (!segment.size_bytes) dynamic = id;
    const std::uint64_t size = segment.size_bytes.value_or(0);
    require(size <= UINT64_MAX - segment.offset_bytes, "segment {}: ends beyond 2^64", id);
    ranges.push_back({.begin = segment.offset_bytes,
                      .end = dynamic ? UINT64_MAX : segment.offset_bytes + size,
                      .id = id});
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  for (std::size_t i = 1; i < ranges.size(); ++i) {
    require(ranges[i - 1].end <= ranges[i].begin, "segments {} and {} overlap",
            std::min(ranges[i - 1].id, ranges[i].id), std::max(ranges[i - 1].id, ranges[i].id));
  }
}

void Rules::check_segments() const {
  check_segment_order();
  check_segment_ranges();
  std::set<int> with_digest;
  for (const auto& [id, digest] : header_.digests) {
    with_digest.insert(digest.segments.begin(), digest.segments.end());
  }
  for (const auto& [id, segment] : header_.segments) {
    require(segment.type != Segment::Type::kCrypt || with_digest.contains(id),
            "segment {}: no digest is for it", id);
  }
}

void Rules::check_config() const {
  const Config& config = header_.config;
  const std::uint64_t json_size = header_.metadata_size_bytes - kLuks2BinaryHeaderBytes;
  require(config.json_size_bytes == json_size, "config: json_size is {}, not {}",
          config.json_size_bytes, json_size);
  require(config.keyslots_size_bytes <= limits::kKeyslotsAreaBytesMax,
          "config: keyslots_size of {} bytes is more than {}", config.keyslots_size_bytes,
          limits::kKeyslotsAreaBytesMax);
  require(config.keyslots_size_bytes % kAlignment == 0,
          "config: keyslots_size of {} bytes is not a multiple of {}", config.keyslots_size_bytes,
          kAlignment);
  // An offset of 0 belongs to a detached header.
  std::uint64_t payload = UINT64_MAX;
  for (const auto& [id, segment] : header_.segments) {
    if (!is_backup(segment)) payload = std::min(payload, segment.offset_bytes);
  }
  const std::uint64_t end = 2 * header_.metadata_size_bytes + config.keyslots_size_bytes;
  require(payload == 0 || end <= payload,
          "config: the keyslots area ends at byte {}, behind the start of the payload at {}", end,
          payload);
}

// LUKS2 §2.3: keyslot areas lie in the keyslots area, aligned and apart.
void Rules::check_areas() const {
  const std::uint64_t begin = 2 * header_.metadata_size_bytes;
  const std::uint64_t end = begin + header_.config.keyslots_size_bytes;
  std::map<std::uint64_t, int> starts;
  for (const auto& [id, keyslot] : header_.keyslots) {
    const KeyslotArea& area = keyslot.area;
    require(area.size_bytes != 0, "keyslot {}: area has no bytes", id);
    require(area.offset_bytes % kAlignment == 0 && area.size_bytes % kAlignment == 0,
            "keyslot {}: area of {} bytes at {} is not aligned to {}", id, area.size_bytes,
            area.offset_bytes, kAlignment);
    require(area.offset_bytes >= begin && area.offset_bytes <= end &&
                area.size_bytes <= end - area.offset_bytes,
            "keyslot {}: area of {} bytes at {} is not in the keyslots area, {} to {}", id,
            area.size_bytes, area.offset_bytes, begin, end);
    const std::uint64_t material = keyslot.type == Keyslot::Type::kLuks2
                                       ? std::uint64_t{keyslot.key_size_bytes} * keyslot.af.stripes
                                       : 0;
    require(area.size_bytes >= material, "keyslot {}: area of {} bytes is too small for {}", id,
            area.size_bytes, material);
    const auto [at, fresh] = starts.emplace(area.offset_bytes, id);
    require(fresh, "keyslots {} and {}: areas overlap", at->second, id);
  }
  for (auto at = starts.begin(); at != starts.end() && std::next(at) != starts.end(); ++at) {
    const std::uint64_t size = header_.keyslots.at(at->second).area.size_bytes;
    const int next = std::next(at)->second;
    require(at->first + size <= std::next(at)->first, "keyslots {} and {}: areas overlap",
            std::min(at->second, next), std::max(at->second, next));
  }
}

// The keyslot and the requirement of a running re-encryption come together (LUKS2 §4.9).
void Rules::check_reencryption() const {
  const auto& keyslots = header_.keyslots;
  const auto count = std::count_if(keyslots.begin(), keyslots.end(), [](const auto& entry) {
    return entry.second.type == Keyslot::Type::kReencrypt;
  });
  const auto& requirements = header_.config.requirements;
  require(count <= 1, "there are {} keyslots of type 'reencrypt'", count);
  require(count == 0 || std::any_of(requirements.begin(), requirements.end(), is_online_reencrypt),
          "a keyslot of type 'reencrypt' without the requirement 'online-reencrypt'");
  if (std::none_of(requirements.begin(), requirements.end(), is_known_online_reencrypt)) return;
  require(count == 1, "the requirement 'online-reencrypt' without a keyslot of type 'reencrypt'");
  check_reencryption_segments();
}

// The backup segments, which the digest of a re-encryption covers (LUKS2 §4.9.2), say what the
// others can be: else a forged one could have plaintext written, or read, as what it is not.
void Rules::check_reencryption_segments() const {
  const auto backup = [&](const std::string& flag) {
    const auto found =
        std::find_if(header_.segments.begin(), header_.segments.end(),
                     [&](const auto& entry) { return entry.second.flags.contains(flag); });
    require(found != header_.segments.end(),
            "the requirement 'online-reencrypt' without a segment of flag '{}'", flag);
    return found->second;
  };
  const Segment previous = backup("backup-previous");
  const Segment final = backup("backup-final");
  for (const auto& [id, segment] : header_.segments) {
    if (is_backup(segment)) break;
    const bool running = segment.flags.contains("in-reencryption");
    require(is_like(segment, final) || (!running && is_like(segment, previous)),
            "segment {}: unlike the backup segments of the re-encryption", id);
  }
}

}  // namespace

void check_luks2_rules(const Header& header, std::string_view what) { Rules(header, what).check(); }

std::set<std::string> unsupported_requirements(const Header& header) {
  // None of those that cryptsetup knows (offline-reencrypt, online-reencrypt and its versions,
  // inline-hw-tags, opal and its versions) can be honoured here, nor one that nobody knows yet.
  return header.config.requirements;
}

}  // namespace lukskeep::luks
