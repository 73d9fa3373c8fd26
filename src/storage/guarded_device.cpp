#include "storage/guarded_device.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "storage/range_lock.h"
#include "storage/request.h"

namespace lukskeep::storage {
namespace {

class GuardedDevice final : public Device {
 public:
  explicit GuardedDevice(std::shared_ptr<Device> below) : below_(std::move(below)) {}

  std::string name() const override { return below_->name(); }
  std::uint64_t size_bytes() const override { return below_->size_bytes(); }
  bool writable() const override { return below_->writable(); }
  std::uint32_t block_size_bytes() const override { return below_->block_size_bytes(); }

  void read(std::uint64_t offset_bytes, MutableBytes out) const override {
    const auto guard = shared(offset_bytes, out.size(), "read");
    below_->read(offset_bytes, out);
  }

  void write(std::uint64_t offset_bytes, ByteView data) override {
    const auto guard = exclusive(offset_bytes, data.size(), "write");
    below_->write(offset_bytes, data);
  }

  void write_in_place(std::uint64_t offset_bytes, MutableBytes data) override {
    const auto guard = exclusive(offset_bytes, data.size(), "write");
    below_->write_in_place(offset_bytes, data);
  }

  void write_zeroes(std::uint64_t offset_bytes, std::uint64_t length_bytes,
                    ZeroMode mode) override {
    const auto guard = exclusive(offset_bytes, length_bytes, "zero");
    below_->write_zeroes(offset_bytes, length_bytes, mode);
  }

  void discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) override {
    const auto guard = exclusive(offset_bytes, length_bytes, "discard");
    below_->discard(offset_bytes, length_bytes);
  }

  void flush() override { below_->flush(); }
  std::unique_ptr<DeviceLock> lock_metadata() override { return below_->lock_metadata(); }

  void resize(std::uint64_t size_bytes) override {
    const RangeLock::Guard guard(lock_, {0, UINT64_MAX}, RangeLock::Mode::kExclusive);
    below_->resize(size_bytes);
  }

  std::vector<Extent> extents(std::uint64_t offset_bytes,
                              std::uint64_t length_bytes) const override {
    const auto guard = shared(offset_bytes, length_bytes, "map");
    return below_->extents(offset_bytes, length_bytes);
  }

 private:
  // Ranges beyond the device could overflow in the lock, and are refused before they wait.
  RangeLock::Guard shared(std::uint64_t offset_bytes, std::uint64_t length_bytes,
                          std::string_view verb) const {
    check_range(*this, verb, {offset_bytes, length_bytes});
    return {lock_, {offset_bytes, length_bytes}, RangeLock::Mode::kShared};
  }

  RangeLock::Guard exclusive(std::uint64_t offset_bytes, std::uint64_t length_bytes,
                             std::string_view verb) const {
    check_change(*this, verb, {offset_bytes, length_bytes});
    return {lock_, {offset_bytes, length_bytes}, RangeLock::Mode::kExclusive};
  }

  std::shared_ptr<Device> below_;
  mutable RangeLock lock_;
};

}  // namespace

std::unique_ptr<Device> make_guarded(std::shared_ptr<Device> below) {
  return std::make_unique<GuardedDevice>(std::move(below));
}

}  // namespace lukskeep::storage
