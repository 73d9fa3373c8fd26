#include "luks/noise.h"

#include <algorithm>
#include <array>
#include <cassert>

#include <fmt/format.h>

namespace lukskeep::luks {
namespace {

// In the table of noise.h; the first value that counts as no noise is one step beyond.
constexpr NoiseBounds kSmall = {.min = 1309, .max = 1889};
constexpr NoiseBounds kLarge = {.min = 67783, .max = 72251};

// Where the magic of an ext superblock stands in it (Linux, fs/ext4/ext4.h: s_magic).
constexpr std::size_t kExtMagicOffset = 0x38;

bool is_text(std::byte byte) {
  const auto value = std::to_integer<unsigned>(byte);
  return (value >= 0x20 && value < 0x7f) || value == '\t' || value == '\n' || value == '\r';
}

}  // namespace

NoiseBounds noise_bounds(std::size_t block_bytes) noexcept {
  return block_bytes == kNoiseBlockBytes ? kSmall : kLarge;
}

std::uint64_t sum_of_squared_counts(ByteView bytes) noexcept {
  std::array<std::uint64_t, 256> counts{};
  for (const std::byte byte : bytes) ++counts[std::to_integer<std::size_t>(byte)];
  std::uint64_t sum = 0;
  for (const std::uint64_t count : counts) sum += count * count;
  return sum;
}

bool has_random_counts(ByteView block) noexcept {
  assert(block.size() == kNoiseBlockBytes || block.size() == kNoiseLargeBlockBytes);
  const NoiseBounds bounds = noise_bounds(block.size());
  const std::uint64_t sum = sum_of_squared_counts(block);
  return sum >= bounds.min && sum <= bounds.max;
}

bool has_long_run(ByteView bytes) noexcept {
  std::size_t run = 1;
  for (std::size_t i = 1; i < bytes.size(); ++i) {
    run = bytes[i] == bytes[i - 1] ? run + 1 : 1;
    if (run == kNoiseRunBytes) return true;
  }
  return false;
}

std::string describe_no_noise(ByteView block) {
  if (all_zero(block)) return "zeroes";
  if (std::all_of(block.begin(), block.end(), [&](std::byte b) { return b == block[0]; })) {
    return fmt::format("bytes 0x{:02x}", std::to_integer<unsigned>(block[0]));
  }
  const auto text = std::count_if(block.begin(), block.end(), is_text);
  if (static_cast<std::size_t>(text) * 20 >= block.size() * 19) return "text";
  if (block.size() >= kExtMagicOffset + 2 &&
      load_le<std::uint16_t>(&block[kExtMagicOffset]) == 0xef53) {
    return "an ext superblock";
  }
  return "data that is not random";
}

}  // namespace lukskeep::luks
