// A block of bytes that can be read and perhaps written: the shape that everything in LuksKeep
// stands on. A file, a window on it, memory, and a decrypted volume are all Devices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <lukskeep/export.h>

namespace lukskeep {

// A run of bytes. `zero` means: known to read as zeroes without reading (a hole, or unmapped).
struct Extent {
  std::uint64_t offset_bytes = 0;
  std::uint64_t length_bytes = 0;
  bool zero = false;

  bool operator==(const Extent&) const = default;
};

enum class Access : std::uint8_t { kRead, kReadWrite };

// What write_zeroes may do to the storage below.
enum class ZeroMode : std::uint8_t {
  kAllocate,  // the bytes read as zeroes and stay allocated
  kPunch,     // the bytes read as zeroes; storage may be given back
};

// Held while other programs that honour the lock must not change the device.
class LUKSKEEP_API DeviceLock {
 public:
  virtual ~DeviceLock() = default;
  DeviceLock(const DeviceLock&) = delete;
  DeviceLock& operator=(const DeviceLock&) = delete;

 protected:
  DeviceLock() = default;
};

// Device is the interface of all storage.
//
// Offsets and sizes are bytes; any alignment is accepted. A request that leaves [0, size_bytes())
// throws Error{kTooSmall} and does nothing. Reads and writes are whole or throw: kIo, kNoSpace,
// kReadOnly, kTooSmall, or kInterrupted; every message names the device and the offset.
//
// Threads: read, write, write_in_place, write_zeroes, discard and extents may be called
// concurrently as long as no two touch the same bytes with one of them writing. resize and flush
// exclude nothing but themselves. Data is durable only after flush() returned.
class LUKSKEEP_API Device {
 public:
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  // For messages: a path, or e.g. "window on 'x' at 4096".
  virtual std::string name() const = 0;
  virtual std::uint64_t size_bytes() const = 0;
  virtual bool writable() const = 0;
  // Requests aligned to this avoid read-modify-write; a power of two, at least 512.
  virtual std::uint32_t block_size_bytes() const = 0;

  virtual void read(std::uint64_t offset_bytes, std::span<std::byte> out) const = 0;
  virtual void write(std::uint64_t offset_bytes, std::span<const std::byte> data) = 0;
  // As write, but may use `data` as scratch space: what it holds afterwards is unspecified. A
  // decrypted volume encrypts in place here instead of copying first.
  virtual void write_in_place(std::uint64_t offset_bytes, std::span<std::byte> data);
  virtual void write_zeroes(std::uint64_t offset_bytes, std::uint64_t length_bytes, ZeroMode mode);
  // The contents of the range are no longer wanted: until it is written again it may read as
  // anything. Storage may be given back; whole blocks that cannot be are left as they are.
  virtual void discard(std::uint64_t offset_bytes, std::uint64_t length_bytes);
  virtual void flush() = 0;

  // Takes the lock that cryptsetup takes for a change of metadata, for as long as the result lives;
  // null where there is no such lock (memory). Waits a few seconds for who holds it, then throws
  // kBusy. Opening a file for writing excludes other programs of this library already.
  virtual std::unique_ptr<DeviceLock> lock_metadata();

  // Grows (with zeroes) or shrinks. Throws kUnsupported unless the device is a file or memory.
  virtual void resize(std::uint64_t size_bytes);

  // Covers [offset, offset + length) in order, without gaps, neighbours differing in `zero`.
  // The default knows of no holes.
  virtual std::vector<Extent> extents(std::uint64_t offset_bytes, std::uint64_t length_bytes) const;

 protected:
  Device() = default;
};

}  // namespace lukskeep
