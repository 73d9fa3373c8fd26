#include "storage/rbd_device.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/uuid.h"
#include "storage/rbd_library.h"
#include "storage/request.h"

namespace lukskeep::storage {
namespace {

constexpr std::string_view kPrefix = "rbd:";

[[noreturn]] void refuse_name(const std::string& name, std::string_view why) {
  throw Error(Code::kUsage, fmt::format("'{}' is no image in Ceph: {}", name, why),
              "images are named rbd:POOL/IMAGE[@SNAPSHOT][?id=USER&conf=FILE]; a file of that name "
              "is named './rbd:…'");
}

// `result` is a negative errno, as Ceph's functions return it.
[[noreturn]] void fail(int result, const std::string& what) {
  const int error = -result;
  Code code = code_of_errno(error);
  std::string hint;
  if (error == ETIMEDOUT) {
    code = Code::kTimeout;
    hint = "see whether the cluster is up and its monitors can be reached from here";
  } else if (error == ESHUTDOWN) {
    code = Code::kRemote;
    hint = "another client took the image over, and this one is on the cluster's blocklist";
  } else if (code == Code::kPermissionDenied) {
    hint = "see whether the user (id=…) may use this pool, and whether its keyring can be read";
  }
  throw Error(code, fmt::format("{}: {}", what, errno_text(error)), std::move(hint));
}

void check(int result, const std::string& what) {
  if (result < 0) fail(result, what);
}

void apply_option(RbdName& parsed, std::string_view option) {
  const std::string_view key = option.substr(0, option.find('='));
  const std::string_view value =
      key.size() == option.size() ? std::string_view() : option.substr(key.size() + 1);
  if (key == "conf" && !value.empty()) {
    parsed.conf = value;
  } else if (key == "id" && !value.empty()) {
    parsed.id = value;
  } else if (key == "timeout") {
    const auto [end, error] =
        std::from_chars(value.data(), value.data() + value.size(), parsed.timeout_seconds);
    if (error != std::errc() || end != value.data() + value.size() || parsed.timeout_seconds == 0 ||
        parsed.timeout_seconds > limits::kNbdTimeoutSecondsMax) {
      refuse_name(parsed.name, "the timeout is a number of seconds");
    }
  } else {
    refuse_name(parsed.name, "it has an option other than id=, conf= and timeout=");
  }
}

// A connection to a cluster and a pool of it.
class Pool {
 public:
  explicit Pool(const RbdName& name) : rbd_(rbd_library()) {
    const std::string what = fmt::format("cannot open '{}'", name.name);
    check(rbd_.rados_create(&cluster_, name.id.empty() ? nullptr : name.id.c_str()), what);
    try {
      connect(name, what);
    } catch (...) {
      rbd_.rados_shutdown(cluster_);
      throw;
    }
  }
  ~Pool() {
    rbd_.rados_ioctx_destroy(io_);
    rbd_.rados_shutdown(cluster_);
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  rados_ioctx_t io() const noexcept { return io_; }

 private:
  void connect(const RbdName& name, const std::string& what) {
    const int read =
        rbd_.rados_conf_read_file(cluster_, name.conf.empty() ? nullptr : name.conf.c_str());
    if (read < 0) {
      throw Error(
          Code::kUsage,
          fmt::format("{}: the configuration of Ceph cannot be read: {}", what, errno_text(-read)),
          "name the file with ?conf=FILE");
    }
    const std::string timeout = std::to_string(name.timeout_seconds);
    for (const char* option :
         {"client_mount_timeout", "rados_mon_op_timeout", "rados_osd_op_timeout"}) {
      check(rbd_.rados_conf_set(cluster_, option, timeout.c_str()), what);
    }
    // Nothing of what goes wrong is told beside our own messages.
    for (const char* option : {"log_to_stderr", "err_to_stderr", "log_to_file"}) {
      static_cast<void>(rbd_.rados_conf_set(cluster_, option, "false"));
    }
    const int connected = rbd_.rados_connect(cluster_);
    if (connected == -ENOENT) {
      throw Error(Code::kPermissionDenied,
                  fmt::format("{}: there is no keyring for client.{}", what,
                              name.id.empty() ? "admin" : printable(name.id)),
                  "name the user with ?id=USER, or the configuration with ?conf=FILE");
    }
    check(connected, what);
    const int opened = rbd_.rados_ioctx_create(cluster_, name.pool.c_str(), &io_);
    if (opened == -ENOENT) {
      throw Error(Code::kNotFound,
                  fmt::format("{}: there is no pool '{}'", what, printable(name.pool)));
    }
    check(opened, what);
    rbd_.rados_ioctx_set_namespace(io_, name.name_space.c_str());
  }

  const RbdLibrary& rbd_;
  rados_t cluster_ = nullptr;
  rados_ioctx_t io_ = nullptr;
};

class RbdDevice final : public Device {
 public:
  RbdDevice(const RbdName& name, Access access, bool lock)
      : rbd_(rbd_library()),
        name_(name.name),
        writable_(access == Access::kReadWrite),
        pool_(std::make_unique<Pool>(name)) {
    const std::string what = fmt::format("cannot open '{}'", name_);
    const char* snapshot = name.snapshot.empty() ? nullptr : name.snapshot.c_str();
    check(writable_ ? rbd_.rbd_open(pool_->io(), name.image.c_str(), &image_, snapshot)
                    : rbd_.rbd_open_read_only(pool_->io(), name.image.c_str(), &image_, snapshot),
          what);
    try {
      check(rbd_.rbd_get_size(image_, &size_bytes_), what);
      if (writable_ && lock) take_lock(what);
    } catch (...) {
      close();
      throw;
    }
  }
  // Locks are given back with the image.
  ~RbdDevice() override { close(); }

  // Nothing may be asked afterwards.
  void close() noexcept {
    if (image_ != nullptr) rbd_.rbd_close(image_);
    image_ = nullptr;
  }
  const Pool& pool() const noexcept { return *pool_; }

  std::string name() const override { return name_; }
  std::uint64_t size_bytes() const override { return size_bytes_; }
  bool writable() const override { return writable_; }
  std::uint32_t block_size_bytes() const override { return 4096; }

  void read(std::uint64_t offset_bytes, MutableBytes out) const override {
    check_range(*this, "read", {offset_bytes, out.size()});
    each_piece(
        "read", {offset_bytes, out.size()}, limits::kRbdRequestBytes,
        [&](const Range& piece, rbd_completion_t done) {
          auto* data = reinterpret_cast<char*>(out.data() + (piece.offset_bytes - offset_bytes));
          return rbd_.rbd_aio_read(image_, piece.offset_bytes, piece.length_bytes, data, done);
        });
  }

  void write(std::uint64_t offset_bytes, ByteView bytes) override {
    check_change(*this, "write", {offset_bytes, bytes.size()});
    each_piece(
        "write", {offset_bytes, bytes.size()}, limits::kRbdRequestBytes,
        [&](const Range& piece, rbd_completion_t done) {
          const auto* data =
              reinterpret_cast<const char*>(bytes.data() + (piece.offset_bytes - offset_bytes));
          return rbd_.rbd_aio_write(image_, piece.offset_bytes, piece.length_bytes, data, done);
        });
  }

  void write_zeroes(std::uint64_t offset_bytes, std::uint64_t length_bytes,
                    ZeroMode mode) override {
    check_change(*this, "zero", {offset_bytes, length_bytes});
    const int flags = mode == ZeroMode::kAllocate ? int{RBD_WRITE_ZEROES_FLAG_THICK_PROVISION} : 0;
    each_piece("zero", {offset_bytes, length_bytes}, 16 * limits::kRbdRequestBytes,
               [&](const Range& piece, rbd_completion_t done) {
                 return rbd_.rbd_aio_write_zeroes(image_, piece.offset_bytes, piece.length_bytes,
                                                  done, flags, 0);
               });
  }

  void flush() override {
    if (!writable_) return;
    const std::lock_guard lock(flush_mutex_);
    if (flush_error_ == 0) flush_error_ = std::min(rbd_.rbd_flush(image_), 0);
    // What a failed flush lost is lost, whatever a later one says.
    check(flush_error_, fmt::format("cannot flush '{}'", name_));
  }

  std::vector<Extent> extents(std::uint64_t offset_bytes,
                              std::uint64_t length_bytes) const override {
    check_range(*this, "map", {offset_bytes, length_bytes});
    // What is only in librbd's cache is not in the objects yet.
    if (writable_) {
      check(rbd_.rbd_flush(image_), failed_request(*this, "map", {offset_bytes, length_bytes}));
    }
    Map map{.at = offset_bytes, .end = offset_bytes + length_bytes, .found = {}};
    if (length_bytes == 0) return {};
    check(
        rbd_.rbd_diff_iterate2(image_, nullptr, offset_bytes, length_bytes, 1, 1, &on_extent, &map),
        failed_request(*this, "map", {offset_bytes, length_bytes}));
    map.add(map.end, true);
    return std::move(map.found);
  }

 private:
  using Issue = std::function<int(const Range&, rbd_completion_t)>;

  // The extents that exist come in order; what is between them is zero.
  struct Map {
    std::uint64_t at = 0;
    std::uint64_t end = 0;
    std::vector<Extent> found;

    void add(std::uint64_t until, bool zero) {
      until = std::min(until, end);
      if (until <= at) return;
      if (!found.empty() && found.back().zero == zero) {
        found.back().length_bytes += until - at;
      } else {
        found.push_back({at, until - at, zero});
      }
      at = until;
    }
  };

  static int on_extent(std::uint64_t offset, std::size_t length, int exists, void* data) {
    auto& map = *static_cast<Map*>(data);
    if (exists == 0) return 0;
    map.add(offset, true);
    map.add(offset + length, false);
    return 0;
  }

  void take_lock(const std::string& what) {
    std::uint64_t features = 0;
    check(rbd_.rbd_get_features(image_, &features), what);
    if ((features & RBD_FEATURE_EXCLUSIVE_LOCK) == 0) return;
    const int locked = rbd_.rbd_lock_acquire(image_, RBD_LOCK_MODE_EXCLUSIVE);
    if (locked == -EBUSY || locked == -EROFS || locked == -EAGAIN) {
      throw Error(Code::kBusy, fmt::format("cannot lock '{}': another client is writing it", name_),
                  "wait until that client is done with it, or stop it ('rbd lock list' names it)");
    }
    check(locked, what);
  }

  struct Piece {
    Range range;
    rbd_completion_t done = nullptr;
  };

  // Cuts `range` at multiples of `piece_bytes` and has several requests under way. Returns or
  // throws when all of them have ended.
  void each_piece(const char* verb, Range range, std::uint64_t piece_bytes,
                  const Issue& issue) const {
    std::deque<Piece> under_way;
    std::exception_ptr failure;
    while (range.length_bytes > 0 || !under_way.empty()) {
      const bool more = range.length_bytes > 0 && !failure;
      try {
        if (more && under_way.size() < limits::kRbdRequestsMax) {
          const std::uint64_t rest = piece_bytes - range.offset_bytes % piece_bytes;
          const Range part{range.offset_bytes, std::min(range.length_bytes, rest)};
          range.offset_bytes += part.length_bytes;
          range.length_bytes -= part.length_bytes;
          start_piece(verb, part, issue, under_way);
          continue;
        }
        if (under_way.empty()) break;
        const Piece piece = under_way.front();
        under_way.pop_front();
        end_piece(verb, piece);
      } catch (...) {
        if (!failure) failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
  }

  void start_piece(const char* verb, const Range& range, const Issue& issue,
                   std::deque<Piece>& under_way) const {
    Piece& piece = under_way.emplace_back(Piece{.range = range});
    int result = rbd_.rbd_aio_create_completion(nullptr, nullptr, &piece.done);
    if (result >= 0) {
      result = issue(range, piece.done);
      if (result < 0) rbd_.rbd_aio_release(piece.done);
    }
    if (result >= 0) return;
    under_way.pop_back();
    fail(result, failed_request(*this, verb, range));
  }

  void end_piece(const char* verb, const Piece& piece) const {
    rbd_.rbd_aio_wait_for_complete(piece.done);
    const ssize_t result = rbd_.rbd_aio_get_return_value(piece.done);
    rbd_.rbd_aio_release(piece.done);
    check(static_cast<int>(std::min<ssize_t>(result, 0)), failed_request(*this, verb, piece.range));
    if (std::string_view(verb) == "read" && std::cmp_not_equal(result, piece.range.length_bytes)) {
      throw Error(Code::kTooSmall, fmt::format("{}: the image has become shorter",
                                               failed_request(*this, verb, piece.range)));
    }
  }

  const RbdLibrary& rbd_;
  std::string name_;
  bool writable_;
  std::unique_ptr<Pool> pool_;  // outlives the image
  rbd_image_t image_ = nullptr;
  std::uint64_t size_bytes_ = 0;
  std::mutex flush_mutex_;
  int flush_error_ = 0;
};

class PendingImage final : public PendingDevice {
 public:
  PendingImage(RbdName name, std::uint64_t size_bytes)
      : rbd_(rbd_library()), name_(std::move(name)), temporary_(name_) {
    temporary_.image = fmt::format("{}.{}.part", name_.image, random_uuid());
    const Pool pool(name_);
    int order = 0;
    check(rbd_.rbd_create(pool.io(), temporary_.image.c_str(), size_bytes, &order),
          fmt::format("cannot create '{}'", name_.name));
    try {
      device_ = std::make_unique<RbdDevice>(temporary_, Access::kReadWrite, true);
    } catch (...) {
      rbd_.rbd_remove(pool.io(), temporary_.image.c_str());
      throw;
    }
  }
  ~PendingImage() override {
    device_->close();
    if (!committed_) rbd_.rbd_remove(device_->pool().io(), temporary_.image.c_str());
  }

  Device& device() noexcept override { return *device_; }

  void commit() override {
    device_->flush();
    device_->close();
    check(rbd_.rbd_rename(device_->pool().io(), temporary_.image.c_str(), name_.image.c_str()),
          fmt::format("cannot create '{}'", name_.name));
    committed_ = true;
  }

 private:
  const RbdLibrary& rbd_;
  RbdName name_;
  RbdName temporary_;  // the same with the image's own name; for messages the same too
  std::unique_ptr<RbdDevice> device_;
  bool committed_ = false;
};

}  // namespace

RbdName parse_rbd_name(const std::string& location) {
  RbdName parsed{.name = printable(location, 256), .timeout_seconds = limits::kRbdTimeoutSeconds};
  if (location.size() > limits::kUriBytesMax) refuse_name(parsed.name, "it is too long");
  std::string_view rest = std::string_view(location).substr(kPrefix.size());
  std::string_view options;
  if (const auto query = rest.find('?'); query != rest.npos) {
    options = rest.substr(query + 1);
    rest = rest.substr(0, query);
  }
  if (const auto at = rest.find('@'); at != rest.npos) {
    parsed.snapshot = rest.substr(at + 1);
    rest = rest.substr(0, at);
    if (parsed.snapshot.empty()) refuse_name(parsed.name, "the snapshot has no name");
  }
  const auto first = rest.find('/');
  const auto last = rest.rfind('/');
  if (first == rest.npos) refuse_name(parsed.name, "it names no pool");
  parsed.pool = rest.substr(0, first);
  parsed.image = rest.substr(last + 1);
  if (last > first) parsed.name_space = rest.substr(first + 1, last - first - 1);
  for (const std::string* part :
       {&parsed.pool, &parsed.image, &parsed.snapshot, &parsed.name_space}) {
    if (part->size() > limits::kRbdNameBytesMax || part->find('/') != part->npos) {
      refuse_name(parsed.name, "a part of its name is too long, or there are too many");
    }
  }
  if (parsed.pool.empty() || parsed.image.empty()) {
    refuse_name(parsed.name, "pool or image is missing");
  }
  while (!options.empty()) {
    const std::string_view option = options.substr(0, options.find('&'));
    options.remove_prefix(std::min(options.size(), option.size() + 1));
    apply_option(parsed, option);
  }
  return parsed;
}

std::unique_ptr<Device> open_rbd(const std::string& location, const OpenOptions& options) {
  const RbdName name = parse_rbd_name(location);
  if (options.access == Access::kReadWrite && !name.snapshot.empty()) {
    throw Error(Code::kReadOnly,
                fmt::format("cannot open '{}' for writing: it is a snapshot", name.name));
  }
  return std::make_unique<RbdDevice>(name, options.access, options.lock);
}

bool rbd_exists(const std::string& location) {
  try {
    const RbdDevice device(parse_rbd_name(location), Access::kRead, false);
    return true;
  } catch (const Error& error) {
    // A pool that is not there is no place to make an image in: that is found out then.
    if (error.code() == Code::kNotFound) return false;
    throw;
  }
}

std::unique_ptr<PendingDevice> create_rbd(const std::string& location,
                                          const CreateOptions& options) {
  RbdName name = parse_rbd_name(location);
  if (!name.snapshot.empty()) {
    throw Error(Code::kUsage, fmt::format("cannot create '{}': it is a snapshot", name.name));
  }
  return std::make_unique<PendingImage>(std::move(name), options.size_bytes);
}

}  // namespace lukskeep::storage
