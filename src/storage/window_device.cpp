#include "storage/window_device.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/bytes.h"
#include "storage/request.h"

namespace lukskeep::storage {
namespace {

class WindowDevice final : public Device {
 public:
  WindowDevice(std::shared_ptr<Device> below, const WindowBounds& bounds)
      : below_(std::move(below)), bounds_(bounds) {}

  std::string name() const override {
    return fmt::format("window on '{}' at {}", below_->name(), bounds_.offset_bytes);
  }

  std::uint64_t size_bytes() const override {
    const std::uint64_t below_bytes = below_->size_bytes();
    // `below` may have shrunk since the window was made.
    const std::uint64_t rest =
        below_bytes < bounds_.offset_bytes ? 0 : below_bytes - bounds_.offset_bytes;
    return bounds_.size_bytes ? std::min(*bounds_.size_bytes, rest) : rest;
  }

  bool writable() const override { return below_->writable(); }

  // A window that starts inside a block of `below` is aligned to what its start is aligned to.
  std::uint32_t block_size_bytes() const override {
    std::uint32_t block_bytes = below_->block_size_bytes();
    while (block_bytes > 512 && bounds_.offset_bytes % block_bytes != 0) block_bytes /= 2;
    return block_bytes;
  }

  void read(std::uint64_t offset_bytes, MutableBytes out) const override {
    check_range(*this, "read", {offset_bytes, out.size()});
    below_->read(bounds_.offset_bytes + offset_bytes, out);
  }

  void write(std::uint64_t offset_bytes, ByteView data) override {
    check_change(*this, "write", {offset_bytes, data.size()});
    below_->write(bounds_.offset_bytes + offset_bytes, data);
  }

  void write_in_place(std::uint64_t offset_bytes, MutableBytes data) override {
    check_change(*this, "write", {offset_bytes, data.size()});
    below_->write_in_place(bounds_.offset_bytes + offset_bytes, data);
  }

  void write_zeroes(std::uint64_t offset_bytes, std::uint64_t length_bytes,
                    ZeroMode mode) override {
    check_change(*this, "zero", {offset_bytes, length_bytes});
    below_->write_zeroes(bounds_.offset_bytes + offset_bytes, length_bytes, mode);
  }

  void discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) override {
    check_change(*this, "discard", {offset_bytes, length_bytes});
    below_->discard(bounds_.offset_bytes + offset_bytes, length_bytes);
  }

  void flush() override { below_->flush(); }

  std::unique_ptr<DeviceLock> lock_metadata() override { return below_->lock_metadata(); }

  // Only a window that reaches to the end of `below` can move that end.
  void resize(std::uint64_t size_bytes) override {
    if (bounds_.size_bytes) return Device::resize(size_bytes);
    if (size_bytes > UINT64_MAX - bounds_.offset_bytes) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("cannot resize '{}' to {} bytes", name(), size_bytes));
    }
    below_->resize(bounds_.offset_bytes + size_bytes);
  }

  std::vector<Extent> extents(std::uint64_t offset_bytes,
                              std::uint64_t length_bytes) const override {
    check_range(*this, "map", {offset_bytes, length_bytes});
    std::vector<Extent> found = below_->extents(bounds_.offset_bytes + offset_bytes, length_bytes);
    for (Extent& extent : found) extent.offset_bytes -= bounds_.offset_bytes;
    return found;
  }

 private:
  std::shared_ptr<Device> below_;
  WindowBounds bounds_;
};

}  // namespace

std::unique_ptr<Device> make_window(std::shared_ptr<Device> below, const WindowBounds& bounds) {
  check_range(*below, "open a window of", {bounds.offset_bytes, bounds.size_bytes.value_or(0)});
  return std::make_unique<WindowDevice>(std::move(below), bounds);
}

}  // namespace lukskeep::storage
