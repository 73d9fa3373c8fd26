#include "cli/named_device.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace lukskeep::cli {
namespace {

class NamedDevice final : public Device {
 public:
  NamedDevice(std::shared_ptr<Device> below, std::string name)
      : below_(std::move(below)), name_(std::move(name)) {}

  std::string name() const override { return name_; }
  std::uint64_t size_bytes() const override { return below_->size_bytes(); }
  bool writable() const override { return below_->writable(); }
  std::uint32_t block_size_bytes() const override { return below_->block_size_bytes(); }
  void read(std::uint64_t offset_bytes, std::span<std::byte> out) const override {
    below_->read(offset_bytes, out);
  }
  void write(std::uint64_t offset_bytes, std::span<const std::byte> data) override {
    below_->write(offset_bytes, data);
  }
  void write_in_place(std::uint64_t offset_bytes, std::span<std::byte> data) override {
    below_->write_in_place(offset_bytes, data);
  }
  void write_zeroes(std::uint64_t offset_bytes, std::uint64_t length_bytes,
                    ZeroMode mode) override {
    below_->write_zeroes(offset_bytes, length_bytes, mode);
  }
  void discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) override {
    below_->discard(offset_bytes, length_bytes);
  }
  void flush() override { below_->flush(); }
  std::unique_ptr<DeviceLock> lock_metadata() override { return below_->lock_metadata(); }
  void resize(std::uint64_t size_bytes) override { below_->resize(size_bytes); }
  std::vector<Extent> extents(std::uint64_t offset_bytes,
                              std::uint64_t length_bytes) const override {
    return below_->extents(offset_bytes, length_bytes);
  }

 private:
  std::shared_ptr<Device> below_;
  std::string name_;
};

}  // namespace

std::shared_ptr<Device> with_name(std::shared_ptr<Device> below, std::string name) {
  return std::make_shared<NamedDevice>(std::move(below), std::move(name));
}

}  // namespace lukskeep::cli
