#include "storage/nbd_device.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "storage/nbd_pool.h"
#include "storage/request.h"

namespace lukskeep::storage {
namespace {

std::string hint_of_errno(int error) {
  return error == ESHUTDOWN ? "the server is being stopped" : "the server's own log may say why";
}

// What a server says of [offset, offset + length), as the extent callback collects it.
struct ExtentAnswer {
  std::uint64_t at = 0;
  std::uint64_t end = 0;
  std::vector<Extent>* found = nullptr;
  std::size_t seen = 0;
};

void append(std::vector<Extent>& extents, const Extent& next) {
  if (!extents.empty() && extents.back().zero == next.zero) {
    extents.back().length_bytes += next.length_bytes;
  } else {
    extents.push_back(next);
  }
}

// Called by libnbd. Pairs of length and flags; servers may say more or less than was asked.
int on_extents(void* data, const char* context, std::uint64_t offset, std::uint32_t* entries,
               std::size_t entry_count, int*) {
  auto& answer = *static_cast<ExtentAnswer*>(data);
  if (std::strcmp(context, "base:allocation") != 0 || offset != answer.at) return 0;
  for (std::size_t i = 0; i + 1 < entry_count && answer.at < answer.end; i += 2) {
    if (++answer.seen > limits::kNbdExtentsMax) return 0;
    const std::uint64_t length = std::min<std::uint64_t>(entries[i], answer.end - answer.at);
    if (length == 0) return 0;
    append(*answer.found, {answer.at, length, (entries[i + 1] & LIBNBD_STATE_ZERO) != 0});
    answer.at += length;
  }
  return 0;
}

class NbdDevice final : public Device {
 public:
  NbdDevice(std::shared_ptr<NbdPool> pool, const OpenOptions& options)
      : pool_(std::move(pool)),
        export_(pool_->exported()),
        name_(pool_->uri().name),
        writable_(options.access == Access::kReadWrite),
        cancel_(options.cancel) {}

  std::string name() const override { return name_; }
  std::uint64_t size_bytes() const override { return export_.size_bytes; }
  bool writable() const override { return writable_; }
  std::uint32_t block_size_bytes() const override {
    return std::max<std::uint32_t>(512, export_.block_bytes_min);
  }

  void read(std::uint64_t offset_bytes, MutableBytes out) const override {
    check_range(*this, "read", {offset_bytes, out.size()});
    const Cut cut = cut_at_blocks({offset_bytes, out.size()});
    if (cut.head != 0) read_part(offset_bytes, out.first(cut.head));
    read_blocks(offset_bytes + cut.head, out.subspan(cut.head, cut.middle));
    if (cut.tail != 0) {
      read_part(offset_bytes + cut.head + cut.middle, out.subspan(cut.head + cut.middle));
    }
  }

  void write(std::uint64_t offset_bytes, ByteView data) override {
    check_change(*this, "write", {offset_bytes, data.size()});
    const Cut cut = cut_at_blocks({offset_bytes, data.size()});
    if (cut.head != 0) write_part(offset_bytes, data.first(cut.head));
    write_blocks(offset_bytes + cut.head, data.subspan(cut.head, cut.middle));
    if (cut.tail != 0) {
      write_part(offset_bytes + cut.head + cut.middle, data.subspan(cut.head + cut.middle));
    }
  }

  void write_zeroes(std::uint64_t offset_bytes, std::uint64_t length_bytes,
                    ZeroMode mode) override {
    check_change(*this, "zero", {offset_bytes, length_bytes});
    if (!export_.can_zero) return Device::write_zeroes(offset_bytes, length_bytes, mode);
    const Cut cut = cut_at_blocks({offset_bytes, length_bytes});
    Device::write_zeroes(offset_bytes, cut.head, mode);
    const std::uint32_t flags = mode == ZeroMode::kAllocate ? LIBNBD_CMD_FLAG_NO_HOLE : 0;
    each_piece("zero", {offset_bytes + cut.head, cut.middle}, limits::kNbdZeroBytes,
               [&](nbd_handle* handle, const Range& piece, nbd_completion_callback done) {
                 return nbd_library().aio_zero(handle, piece.length_bytes, piece.offset_bytes, done,
                                               flags);
               });
    Device::write_zeroes(offset_bytes + cut.head + cut.middle, cut.tail, mode);
  }

  void flush() override {
    if (!writable_ || !export_.can_flush) return;
    const std::lock_guard lock(flush_mutex_);
    if (!flush_error_) {
      try {
        // The range only stands for "once".
        each_piece("flush", {0, export_.size_bytes}, std::max<std::uint64_t>(export_.size_bytes, 1),
                   [](nbd_handle* handle, const Range&, nbd_completion_callback done) {
                     return nbd_library().aio_flush(handle, done, 0);
                   });
      } catch (const Error& error) {
        flush_error_ = error;
      }
    }
    // What a failed flush lost is lost, whatever a later one says.
    if (flush_error_) throw Error(*flush_error_);
  }

  std::vector<Extent> extents(std::uint64_t offset_bytes,
                              std::uint64_t length_bytes) const override {
    check_range(*this, "map", {offset_bytes, length_bytes});
    if (!export_.has_extents) return Device::extents(offset_bytes, length_bytes);
    std::vector<Extent> found;
    ExtentAnswer answer{.at = offset_bytes, .end = offset_bytes + length_bytes, .found = &found};
    while (answer.at < answer.end) {
      const std::uint64_t before = answer.at;
      ask_extents(answer);
      if (answer.at != before) continue;
      // It does not know, or talks nonsense: then all of it counts as data.
      append(found, {answer.at, answer.end - answer.at, false});
      break;
    }
    return found;
  }

 private:
  // A range is a piece of one block, whole blocks, and a piece of another.
  struct Cut {
    std::uint64_t head = 0;
    std::uint64_t middle = 0;
    std::uint64_t tail = 0;
  };

  using IssuePiece =
      std::function<std::int64_t(nbd_handle*, const Range&, nbd_completion_callback)>;

  Cut cut_at_blocks(const Range& range) const {
    const std::uint64_t block = export_.block_bytes_min;
    const std::uint64_t to_block = (block - range.offset_bytes % block) % block;
    Cut cut;
    // A range inside one block is all head.
    cut.head = std::min(to_block, range.length_bytes);
    cut.tail = (range.length_bytes - cut.head) % block;
    cut.middle = range.length_bytes - cut.head - cut.tail;
    return cut;
  }

  void read_blocks(std::uint64_t offset_bytes, MutableBytes out) const {
    each_piece("read", {offset_bytes, out.size()}, export_.request_bytes_max,
               [&](nbd_handle* handle, const Range& piece, nbd_completion_callback done) {
                 return nbd_library().aio_pread(handle,
                                                out.data() + (piece.offset_bytes - offset_bytes),
                                                piece.length_bytes, piece.offset_bytes, done, 0);
               });
  }

  void write_blocks(std::uint64_t offset_bytes, ByteView data) {
    each_piece("write", {offset_bytes, data.size()}, export_.request_bytes_max,
               [&](nbd_handle* handle, const Range& piece, nbd_completion_callback done) {
                 return nbd_library().aio_pwrite(handle,
                                                 data.data() + (piece.offset_bytes - offset_bytes),
                                                 piece.length_bytes, piece.offset_bytes, done, 0);
               });
  }

  void read_part(std::uint64_t offset_bytes, MutableBytes out) const {
    const std::uint64_t start = offset_bytes % export_.block_bytes_min;
    Bytes block(export_.block_bytes_min);
    read_blocks(offset_bytes - start, block);
    std::ranges::copy(ByteView(block).subspan(start, out.size()), out.begin());
  }

  // Others may write other bytes of the block at the same time.
  void write_part(std::uint64_t offset_bytes, ByteView data) {
    const std::lock_guard lock(part_mutex_);
    const std::uint64_t start = offset_bytes % export_.block_bytes_min;
    Bytes block(export_.block_bytes_min);
    read_blocks(offset_bytes - start, block);
    std::ranges::copy(data, MutableBytes(block).subspan(start).begin());
    write_blocks(offset_bytes - start, block);
  }

  struct Piece {
    Range range;
    std::shared_ptr<NbdConnection> connection;
    NbdConnection::Request request;
  };

  // Cuts `range` into requests of up to `piece_bytes` and has several of them under way. Returns or
  // throws when all of them have ended.
  void each_piece(const char* verb, Range range, std::uint64_t piece_bytes,
                  const IssuePiece& issue) const {
    std::deque<Piece> under_way;
    std::exception_ptr failure;
    while (range.length_bytes > 0 || !under_way.empty()) {
      const bool more = range.length_bytes > 0 && !failure;
      if (more && under_way.size() < limits::kNbdRequestsMax) {
        const Range part{range.offset_bytes, std::min(range.length_bytes, piece_bytes)};
        range.offset_bytes += part.length_bytes;
        range.length_bytes -= part.length_bytes;
        start_piece(under_way.emplace_back(), part, issue, failure);
        continue;
      }
      if (failure && under_way.empty()) break;
      end_piece(verb, under_way.front(), failure);
      under_way.pop_front();
    }
    if (failure) std::rethrow_exception(failure);
  }

  void start_piece(Piece& piece, const Range& range, const IssuePiece& issue,
                   std::exception_ptr& failure) const {
    piece.range = range;
    try {
      piece.connection = pool_->pick(cancel_);
      piece.connection->start(piece.request, [&](nbd_handle* handle, nbd_completion_callback done) {
        return issue(handle, piece.range, done);
      });
    } catch (...) {
      piece.connection = nullptr;
      failure = std::current_exception();
    }
  }

  void end_piece(const char* verb, Piece& piece, std::exception_ptr& failure) const {
    if (!piece.connection) return;
    try {
      const int error = piece.connection->wait(piece.request, cancel_);
      if (error == 0) return;
      throw Error(code_of_errno(error),
                  fmt::format("{}: the server says: {}", failed_request(*this, verb, piece.range),
                              errno_text(error)),
                  hint_of_errno(error));
    } catch (const Error& error) {
      if (failure) return;
      const bool ours = error.code() == Code::kInterrupted || !error.hint().empty();
      failure = ours ? std::make_exception_ptr(error)
                     : std::make_exception_ptr(
                           Error(error.code(),
                                 fmt::format("{}: {}", failed_request(*this, verb, piece.range),
                                             error.message()),
                                 "see whether the server still runs"));
    }
  }

  void ask_extents(ExtentAnswer& answer) const {
    const std::uint64_t block = export_.block_bytes_min;
    const std::uint64_t start = answer.at - answer.at % block;
    const std::uint64_t end =
        std::min((answer.end + block - 1) / block * block, start + limits::kNbdMapBytes);
    // Asked for from the start of the block, but noted from where it is wanted.
    ExtentAnswer whole = answer;
    std::vector<Extent> found;
    whole.at = start;
    whole.end = end;
    whole.found = &found;
    const nbd_extent_callback callback{
        .callback = &on_extents, .user_data = &whole, .free = nullptr};
    try {
      each_piece("map", {start, end - start}, end - start,
                 [&](nbd_handle* handle, const Range& piece, nbd_completion_callback done) {
                   return nbd_library().aio_block_status(handle, piece.length_bytes,
                                                         piece.offset_bytes, callback, done, 0);
                 });
    } catch (const Error& error) {
      // Only a hint is lost with an answer that says no; a broken connection is another matter.
      if (error.code() == Code::kRemote || error.code() == Code::kTimeout ||
          error.code() == Code::kInterrupted) {
        throw;
      }
    }
    answer.seen = whole.seen;
    for (const Extent& extent : found) {
      const std::uint64_t extent_end =
          std::min(extent.offset_bytes + extent.length_bytes, answer.end);
      if (extent_end <= answer.at) continue;
      append(*answer.found, {answer.at, extent_end - answer.at, extent.zero});
      answer.at = extent_end;
    }
  }

  std::shared_ptr<NbdPool> pool_;
  NbdExport export_;
  std::string name_;
  bool writable_;
  const CancelToken* cancel_;
  std::mutex part_mutex_;
  std::mutex flush_mutex_;
  std::optional<Error> flush_error_;
};

// Much is done by size before anything is read: only one that can be believed may come that far.
void prove_size(const Device& device) {
  const std::uint64_t size_bytes = device.size_bytes();
  if (size_bytes <= limits::kNbdSizeTrusted) return;
  Bytes last(512);
  try {
    device.read(size_bytes - last.size(), last);
  } catch (const Error& error) {
    if (ends_everything(error)) throw;
    throw Error(Code::kRemote,
                fmt::format("the server of '{}' says that it has {} bytes, which it has not: {}",
                            device.name(), size_bytes, error.message()));
  }
}

}  // namespace

std::unique_ptr<Device> open_nbd(const std::string& location, const OpenOptions& options) {
  const NbdUri uri = parse_nbd_uri(location);
  auto pool = nbd_pool(uri, options.cancel);
  if (options.access == Access::kReadWrite && pool->exported().read_only) {
    throw Error(
        Code::kReadOnly,
        fmt::format("cannot open '{}' for writing: the server exports it read-only", uri.name));
  }
  auto device = std::make_unique<NbdDevice>(std::move(pool), options);
  prove_size(*device);
  return device;
}

}  // namespace lukskeep::storage
