// The device behind open_file, create_file and PendingFile; not for others.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include <lukskeep/device.h>

#include "base/bytes.h"
#include "storage/file_device.h"
#include "storage/request.h"
#include "storage/unique_fd.h"

namespace lukskeep::storage {

// `path` as messages show it.
std::string path_text(const std::string& path);

// openat with O_CLOEXEC, not cut short by signals; files are created with mode 0600.
UniqueFd open_retrying(int directory, const std::string& path, int flags);

// Makes the entries of `directory` durable; `name` is the file that the message names.
void flush_directory(int directory, const std::string& name);

class FileDevice final : public Device {
 public:
  // `fd` is open on a regular file or a block device; anything else throws kUnsupported.
  FileDevice(UniqueFd fd, const std::string& path, Access access);

  int fd() const noexcept { return fd_.get(); }
  bool is_block_device() const noexcept { return is_block_device_; }
  // Regular files only: an open file description lock, exclusive if writable; a length of 0 goes
  // on without end. Throws kBusy.
  void lock(const Range& range = {});
  // As FileOptions::direct. Before other threads use the device.
  void use_direct_io();

  std::string name() const override { return name_; }
  std::uint64_t size_bytes() const override { return size_bytes_.load(std::memory_order_relaxed); }
  bool writable() const override { return writable_; }
  std::uint32_t block_size_bytes() const override { return block_size_bytes_; }
  void read(std::uint64_t offset_bytes, MutableBytes out) const override;
  void write(std::uint64_t offset_bytes, ByteView data) override;
  void write_zeroes(std::uint64_t offset_bytes, std::uint64_t length_bytes, ZeroMode mode) override;
  void discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) override;
  void flush() override;
  std::unique_ptr<DeviceLock> lock_metadata() override;
  void resize(std::uint64_t size_bytes) override;
  std::vector<Extent> extents(std::uint64_t offset_bytes,
                              std::uint64_t length_bytes) const override;

 private:
  void inspect_block_device();
  void require_length(std::uint64_t end_bytes) const;
  void zero_aligned(const Range& range, ZeroMode mode);
  bool try_zero_below(const Range& range, ZeroMode mode);

  // One pread or pwrite of `length` bytes at most, past the page cache where that is possible.
  template <typename Byte, typename Call>
  ssize_t transfer(const Call& call, Byte* data, std::size_t length, std::uint64_t offset) const;

  UniqueFd fd_;
  UniqueFd direct_fd_;  // the same file once more, with O_DIRECT; may be invalid
  std::string name_;
  bool writable_;
  bool is_block_device_ = false;
  std::uint32_t block_size_bytes_ = 4096;
  std::atomic<std::uint64_t> size_bytes_{0};
  std::atomic<bool> size_changed_{false};
  // A failed flush may have dropped dirty pages: a later one that succeeds would be a lie.
  std::mutex flush_mutex_;
  int flush_error_ = 0;
};

}  // namespace lukskeep::storage
