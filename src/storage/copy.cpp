#include "storage/copy.h"

#include <algorithm>
#include <mutex>
#include <vector>

#include "storage/copy_job.h"
#include "storage/request.h"

namespace lukskeep::storage {
namespace {

// Runs of zeroes shorter than this are not worth a request of their own.
constexpr std::uint64_t kZeroRunBytes = 64 * limits::kKiB;

// Hands out the source piece by piece, in order.
class Pieces {
 public:
  Pieces(const Device& source, std::uint64_t length_bytes, std::size_t chunk_bytes, Holes holes)
      : source_(source), length_bytes_(length_bytes), chunk_bytes_(chunk_bytes), holes_(holes) {}

  // A hole of any length or at most a chunk of data; length 0 at the end.
  Extent next() {
    const std::lock_guard lock(mutex_);
    if (at_ == length_bytes_) return {};
    if (extent_ == extents_.size()) map();
    const Extent& extent = extents_[extent_];
    const std::uint64_t end = extent.offset_bytes + extent.length_bytes;
    Extent piece{.offset_bytes = at_, .length_bytes = end - at_, .zero = extent.zero};
    if (!extent.zero) {
      // Chunks stay on multiples of their size wherever the data starts.
      const std::uint64_t chunk_end = at_ / chunk_bytes_ * chunk_bytes_ + chunk_bytes_;
      piece.length_bytes = std::min(end, chunk_end) - at_;
    }
    at_ += piece.length_bytes;
    if (at_ == end) ++extent_;
    return piece;
  }

 private:
  void map() {
    const std::uint64_t length = std::min(length_bytes_ - at_, limits::kMapBytes);
    extents_ = holes_ == Holes::kKeep ? source_.extents(at_, length)
                                      : std::vector{Extent{at_, length, false}};
    extent_ = 0;
  }

  const Device& source_;
  const std::uint64_t length_bytes_;
  const std::size_t chunk_bytes_;
  const Holes holes_;
  std::mutex mutex_;
  std::uint64_t at_ = 0;
  std::vector<Extent> extents_;
  std::size_t extent_ = 0;  // the one that holds `at_`
};

void write_hole(Device& destination, const Range& range, const CopyOptions& options) {
  if (options.destination_is_zero) return;
  destination.write_zeroes(range.offset_bytes, range.length_bytes, ZeroMode::kPunch);
}

// How far the bytes from the start of `data` are all zero or all not, in steps that end on
// multiples of kZeroRunBytes.
std::size_t run_length(std::uint64_t offset_bytes, ByteView data, bool& zero) {
  std::size_t length = 0;
  while (length < data.size()) {
    const std::uint64_t to_boundary = kZeroRunBytes - (offset_bytes + length) % kZeroRunBytes;
    const std::size_t step = std::min<std::uint64_t>(to_boundary, data.size() - length);
    const bool step_zero = all_zero(data.subspan(length, step));
    if (length == 0) zero = step_zero;
    if (step_zero != zero) break;
    length += step;
  }
  return length;
}

}  // namespace

void write_chunk(Device& destination, std::uint64_t offset_bytes, MutableBytes data,
                 const CopyOptions& options) {
  if (options.holes == Holes::kFill) return destination.write_in_place(offset_bytes, data);
  while (!data.empty()) {
    bool zero = false;
    const std::size_t length = run_length(offset_bytes, data, zero);
    if (zero) {
      write_hole(destination, {offset_bytes, length}, options);
    } else {
      destination.write_in_place(offset_bytes, data.first(length));
    }
    data = data.subspan(length);
    offset_bytes += length;
  }
}

void copy(const Device& source, Device& destination, std::uint64_t length_bytes,
          const CopyOptions& options) {
  check_range(source, "copy", {0, length_bytes});
  check_change(destination, "write", {0, length_bytes});
  CopyJob job(options, length_bytes);
  Pieces pieces(source, length_bytes, job.chunk_bytes(), options.holes);
  job.run([&](MutableBytes buffer) {
    for (Extent piece = pieces.next(); piece.length_bytes > 0; piece = pieces.next()) {
      if (!job.admit(piece.zero ? 0 : piece.length_bytes)) return;
      if (piece.zero) {
        write_hole(destination, {piece.offset_bytes, piece.length_bytes}, options);
      } else {
        const MutableBytes data = buffer.first(piece.length_bytes);
        source.read(piece.offset_bytes, data);
        write_chunk(destination, piece.offset_bytes, data, options);
      }
      job.add_done(piece.length_bytes);
    }
  });
}

}  // namespace lukskeep::storage
