// LUKS1 and LUKS2: both copies of the header, held to the policy for headers from strangers.
#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "crypto/cipher_spec.h"
#include "image/luks_judgement.h"
#include "luks/crypt_device.h"
#include "luks/layout.h"
#include "luks/luks1_codec.h"
#include "luks/luks2_codec.h"
#include "luks/policy.h"

namespace lukskeep::image {
namespace {

using namespace std::string_view_literals;

constexpr std::string_view kMark = "LUKS\xba\xbe"sv;
constexpr std::string_view kSecondMark = "SKUL\xba\xbe"sv;
constexpr std::string_view kWhat = "header";
constexpr std::uint32_t kSlotActive = 0x00ac71f3;

const luks::Policy& policy() {
  static const luks::Policy kPolicy = luks::load_policy("untrusted");
  return kPolicy;
}

bool is_null_cipher(const std::string& encryption) {
  try {
    return crypto::is_insecure(crypto::parse_cipher_spec(encryption));
  } catch (const Error&) {
    return encryption.starts_with("cipher_null");
  }
}

std::string_view finding_of(const luks::Violation& violation) {
  const std::string& rule = violation.rule;
  if (rule == "ciphers" || rule == "keyslot_ciphers") {
    return is_null_cipher(violation.found.substr(0, violation.found.find('/'))) ? "luks-null-cipher"
                                                                                : "luks-cipher";
  }
  if (rule == "segment_types" && violation.found == "linear") return "luks-null-cipher";
  if (rule.starts_with("kdf.") || rule == "digest.iterations") return "luks-kdf-cost";
  if (rule == "af.stripes") return "luks-stripes";
  return "luks-policy";
}

// The stripes of LUKS1 are named for what they are; the codec finds any other number damaged.
bool find_absurd_stripes(ByteView bytes, Match& match) {
  constexpr std::size_t kSlots = 208;
  constexpr std::size_t kSlotBytes = 48;
  bool found = false;
  for (std::size_t i = 0; i < 8; ++i) {
    const std::byte* slot = &bytes[kSlots + i * kSlotBytes];
    const auto stripes = load_be<std::uint32_t>(slot + 44);
    if (load_be<std::uint32_t>(slot) != kSlotActive || stripes == luks::kNewStripes) continue;
    match.add("luks-stripes",
              fmt::format("keyslot {} has {} stripes, not {}", i, stripes, luks::kNewStripes));
    found = true;
  }
  return found;
}

class LuksProbe final : public Probe {
 public:
  void head(ByteView head) override;
  void got(int tag, ByteView bytes) override;
  void finish(const StreamEnd& end) override;

 private:
  void read_luks1(ByteView head);
  void read_luks2(ByteView head);
  std::optional<luks::Header> read_copy(ByteView head, std::uint64_t offset);
  bool find_second_copy(ByteView head);
  void take(luks::Header header);

  std::optional<luks::Header> header_;
};

void LuksProbe::head(ByteView head) {
  if (!has_mark(head, 0, kMark)) {
    if (find_second_copy(head)) return;
    for (const std::uint64_t offset : luks::kLuks2MetadataSizes) {
      if (fits({offset, kSecondMark.size()}, head.size())) continue;
      want(static_cast<int>(offset / limits::kKiB), {offset, kSecondMark.size()});
    }
    return;
  }
  match_.encrypted = true;
  const auto version = head.size() < 8 ? 0 : load_be<std::uint16_t>(&head[6]);
  match_.format = version == 2 ? "luks2" : "luks1";
  if (head.size() < luks::kLuks1HeaderBytes) {
    return add("luks-header", "the file ends within the header");
  }
  if (version == 1) return read_luks1(head);
  if (version == 2) return read_luks2(head);
  add("luks-header", fmt::format("LUKS version {} is neither 1 nor 2", version));
}

// Farther away than what every stream is kept of: that it is there is enough.
void LuksProbe::got(int tag, ByteView bytes) {
  if (matched() || !has_mark(bytes, 0, kSecondMark)) return;
  match_.format = "luks2";
  match_.encrypted = true;
  add("luks-copies", fmt::format("only the second copy of a header is there, at {} KiB", tag));
}

// Where the first copy is gone, others still open the volume by the second.
bool LuksProbe::find_second_copy(ByteView head) {
  for (const std::uint64_t offset : luks::kLuks2MetadataSizes) {
    if (!has_mark(head, offset, kSecondMark)) continue;
    match_.format = "luks2";
    match_.encrypted = true;
    add("luks-copies",
        fmt::format("only the second copy of a header is there, at byte {}", offset));
    if (auto second = read_copy(head, offset)) take(std::move(*second));
    return true;
  }
  return false;
}

void LuksProbe::read_luks1(ByteView head) {
  if (auto header = judge_luks1(head, match_)) take(std::move(*header));
}

std::optional<luks::Header> LuksProbe::read_copy(ByteView head, std::uint64_t offset) {
  const std::string_view which = offset == 0 ? "first copy" : "second copy";
  try {
    if (!fits({offset, luks::kLuks2BinaryHeaderBytes}, head.size())) {
      add("luks-header", fmt::format("the file ends before the {}", which));
      return std::nullopt;
    }
    const auto prefix = luks::decode_luks2_prefix(
        head.subspan(offset, luks::kLuks2BinaryHeaderBytes), offset, which);
    if (!prefix) {
      add("luks-copies", fmt::format("there is no {}", which));
      return std::nullopt;
    }
    if (prefix->metadata_size_bytes > limits::kInspectLuks2CopyBytesMax ||
        !fits({offset, prefix->metadata_size_bytes}, head.size())) {
      add("luks-header",
          prefix->metadata_size_bytes > limits::kInspectLuks2CopyBytesMax
              ? fmt::format("metadata of {} bytes is above {}", prefix->metadata_size_bytes,
                            limits::kInspectLuks2CopyBytesMax)
              : fmt::format("the file ends within the {}", which));
      return std::nullopt;
    }
    return luks::decode_luks2(head.subspan(offset, prefix->metadata_size_bytes), offset, which);
  } catch (const Error& error) {
    add("luks-header", error.message());
    return std::nullopt;
  }
}

void LuksProbe::read_luks2(ByteView head) {
  auto first = read_copy(head, 0);
  if (!first) return;
  auto second = read_copy(head, first->metadata_size_bytes);
  if (second) {
    // The copies differ in where they stand and in nothing else that the model has.
    if (!(*second == *first)) {
      add("luks-copies", fmt::format("the two copies differ (sequence ids {} and {})",
                                     first->sequence_id, second->sequence_id));
      judge_luks(*second, match_);
    }
  }
  judge_luks(*first, match_);
  take(std::move(*first));
}

void LuksProbe::take(luks::Header header) {
  if (!header.segments.empty()) {
    const luks::Segment& segment = header.segments.begin()->second;
    match_.variant = segment.encryption;
  }
  header_ = std::move(header);
}

void LuksProbe::finish(const StreamEnd& end) {
  if (!header_) return;
  const std::uint64_t start = luks::payload_offset_bytes(*header_);
  const std::uint64_t header_end = luks::header_end_bytes(*header_);
  if (end.size_bytes < header_end) {
    add("luks-truncated",
        fmt::format("the header ends at byte {}, the file at {}", header_end, end.size_bytes));
  }
  if (start == 0 || (end.size_bytes <= start && end.size_bytes >= header_end)) {
    match_.payload_size_bytes = 0;
    return add("luks-no-payload", "the payload is not in this file");
  }
  for (const auto& [id, segment] : header_->segments) {
    if (segment.size_bytes && !fits({segment.offset_bytes, *segment.size_bytes}, end.size_bytes)) {
      add("luks-truncated", fmt::format("segment {} of {} bytes is not in the file of {}", id,
                                        *segment.size_bytes, end.size_bytes));
    }
  }
  match_.payload_size_bytes = luks::payload_size_bytes(*header_, end.size_bytes);
  match_.virtual_size_bytes = match_.payload_size_bytes;
  add("luks-unseen", "what it holds is encrypted");
}

}  // namespace

void judge_luks(const luks::Header& header, Match& match) {
  for (const luks::Violation& violation : luks::judge(policy(), header, std::nullopt)) {
    match.add(finding_of(violation), violation.message);
  }
}

std::optional<luks::Header> judge_luks1(ByteView bytes, Match& match) {
  const bool absurd = find_absurd_stripes(bytes, match);
  try {
    luks::Header header = luks::decode_luks1(bytes, kWhat);
    judge_luks(header, match);
    return header;
  } catch (const Error& error) {
    if (!absurd) match.add("luks-header", error.message());
    return std::nullopt;
  }
}

std::unique_ptr<Probe> make_luks_probe() { return std::make_unique<LuksProbe>(); }

}  // namespace lukskeep::image
