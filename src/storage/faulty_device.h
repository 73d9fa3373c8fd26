// A device that fails as storage fails, on purpose and repeatably: for tests.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include <lukskeep/device.h>

#include "base/bytes.h"

namespace lukskeep::storage {

struct FaultPlan {
  std::uint64_t seed = 1;
  // Power fails at the n-th write, zeroing, resize or flush (counted from 0): that request and all
  // later ones throw kIo, and after_crash() gives what the medium holds.
  std::optional<std::uint64_t> crash_at_operation;
  // The write at the crash reaches the medium in part: a seeded set of its 512-byte sectors. With
  // reorder_unflushed the same goes for every other unflushed write.
  bool torn_writes = false;
  // Of the writes since the last flush a seeded set reaches the medium, in seeded order; otherwise
  // all of them do, in theirs. Resizes keep their order (file systems log them): the first few
  // survive, and no write passes one.
  bool reorder_unflushed = false;
  bool lose_flush = false;                       // flush() does nothing
  std::optional<std::uint64_t> eio_read_offset;  // reads that touch this byte throw kIo
  std::optional<std::uint64_t> eio_write_offset;
  std::optional<std::uint64_t> no_space_at_bytes;  // writes beyond throw kNoSpace
};

class FaultyDevice final : public Device {
 public:
  FaultyDevice(Bytes contents, FaultPlan plan);
  ~FaultyDevice() override;

  std::uint64_t operations() const noexcept;  // writes, zeroings, resizes and flushes so far
  bool crashed() const noexcept;
  // The medium as it is found after the power cut (or now, if none happened).
  Bytes after_crash() const;

  std::string name() const override;
  std::uint64_t size_bytes() const override;
  bool writable() const override;
  std::uint32_t block_size_bytes() const override;
  void read(std::uint64_t offset_bytes, MutableBytes out) const override;
  void write(std::uint64_t offset_bytes, ByteView data) override;
  void write_zeroes(std::uint64_t offset_bytes, std::uint64_t length_bytes, ZeroMode mode) override;
  void flush() override;
  void resize(std::uint64_t size_bytes) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lukskeep::storage
