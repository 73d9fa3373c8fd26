#include "luks/key_material_check.h"

#include <algorithm>
#include <utility>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "luks/noise.h"

namespace lukskeep::luks {
namespace {

static_assert(limits::kCheckPieceBytes % kNoiseLargeBlockBytes == 0);

constexpr std::uint64_t kPageBytes = 4096;

// The material of one keyslot, piece by piece.
class MaterialReader {
 public:
  MaterialReader(const Device& device, const CancelToken* cancel)
      : device_(device), cancel_(cancel) {}

  // `size_bytes` from `offset_bytes` on, which the device has.
  void test(std::uint64_t offset_bytes, std::uint64_t size_bytes) {
    Bytes piece;
    for (std::uint64_t done = 0; done < size_bytes; done += piece.size()) {
      if (cancel_ != nullptr) cancel_->check();
      piece.resize(std::min<std::uint64_t>(limits::kCheckPieceBytes, size_bytes - done));
      if (read(offset_bytes + done, piece)) {
        test_piece(offset_bytes + done, piece);
      } else {
        test_in_pages(offset_bytes + done, piece.size());
      }
    }
  }

  MaterialCheck take() { return std::move(result_); }

 private:
  bool read(std::uint64_t offset_bytes, MutableBytes out) {
    try {
      device_.read(offset_bytes, out);
      return true;
    } catch (const Error& error) {
      if (error.code() != Code::kIo && error.code() != Code::kTooSmall) throw;
      why_ = error.message();
      return false;
    }
  }

  // Some of it cannot be read: which part is worth knowing.
  void test_in_pages(std::uint64_t offset_bytes, std::uint64_t size_bytes) {
    Bytes page;
    for (std::uint64_t done = 0; done < size_bytes; done += page.size()) {
      page.resize(std::min<std::uint64_t>(kPageBytes, size_bytes - done));
      if (read(offset_bytes + done, page)) {
        test_piece(offset_bytes + done, page);
      } else {
        note(offset_bytes + done, page.size(), why_, true);
        result_.blocks += page.size() / kNoiseBlockBytes;
        result_.bad_blocks += page.size() / kNoiseBlockBytes;
      }
    }
  }

  void test_piece(std::uint64_t offset_bytes, ByteView piece) {
    for (std::size_t at = 0; at < piece.size(); at += kNoiseLargeBlockBytes) {
      const ByteView large = piece.subspan(at, std::min(kNoiseLargeBlockBytes, piece.size() - at));
      const std::uint64_t bad_before = result_.bad_blocks;
      test_small_blocks(offset_bytes + at, large);
      if (result_.bad_blocks == bad_before && large.size() == kNoiseLargeBlockBytes &&
          !has_random_counts(large)) {
        note(offset_bytes + at, large.size(), describe_no_noise(large), false);
        result_.bad_blocks += large.size() / kNoiseBlockBytes;
      }
    }
  }

  void test_small_blocks(std::uint64_t offset_bytes, ByteView bytes) {
    for (std::size_t at = 0; at < bytes.size(); at += kNoiseBlockBytes) {
      const ByteView block = bytes.subspan(at, std::min(kNoiseBlockBytes, bytes.size() - at));
      ++result_.blocks;
      // A last one that is no whole block has no bounds for its counts.
      const bool whole = block.size() == kNoiseBlockBytes;
      if (!has_long_run(block) && (!whole || has_random_counts(block))) continue;
      ++result_.bad_blocks;
      note(offset_bytes + at, block.size(), describe_no_noise(block), false);
    }
  }

  // Neighbours become one range.
  void note(std::uint64_t offset_bytes, std::uint64_t size_bytes, std::string is, bool unreadable) {
    if (!result_.ranges.empty()) {
      BadRange& last = result_.ranges.back();
      if (last.unreadable == unreadable && last.offset_bytes + last.size_bytes == offset_bytes) {
        last.size_bytes += size_bytes;
        if (!unreadable) add_kind(last, is);
        return;
      }
    }
    result_.ranges.push_back({.offset_bytes = offset_bytes,
                              .size_bytes = size_bytes,
                              .unreadable = unreadable,
                              .is = std::move(is)});
  }

  // "zeroes, an ext superblock", for as long as that is short.
  static void add_kind(BadRange& range, const std::string& is) {
    constexpr std::size_t kTextBytesMax = 80;
    if (range.is.find(is) != std::string::npos || range.is.size() > kTextBytesMax) return;
    range.is += ", " + is;
  }

  const Device& device_;
  const CancelToken* cancel_;
  std::string why_;
  MaterialCheck result_;
};

}  // namespace

MaterialCheck check_material(const Device& device, const AreaRange& range,
                             const CancelToken* cancel) {
  MaterialReader reader(device, cancel);
  reader.test(range.offset_bytes, range.size_bytes);
  return reader.take();
}

}  // namespace lukskeep::luks
