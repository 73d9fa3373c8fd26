// What looks for one format in a stream of bytes. Probes are codecs: bytes in, values out, no I/O.
//
// A stream is shown to all probes at once: first its beginning, then the ranges that they asked
// for, last its end. What they say depends on the bytes alone, not on how these arrived.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "image/finding.h"

namespace lukskeep::image {

struct ByteRange {
  std::uint64_t offset_bytes = 0;
  std::uint64_t size_bytes = 0;
};

struct StreamEnd {
  std::uint64_t size_bytes = 0;
  ByteView tail;  // the last limits::kInspectTailBytes, or all of a shorter stream
};

// What is known of a stream that is (also) this format.
struct Match {
  std::string format;  // empty: it is not
  std::string variant;
  std::optional<std::uint64_t> virtual_size_bytes;  // absent: the format does not say
  std::optional<std::uint64_t> payload_size_bytes;  // what is encrypted, or behind a header
  bool encrypted = false;
  // Only stands beside another format, whose contents it would be otherwise.
  bool is_wrapper = false;
  // Counts only where no other format is found, as whose contents it would be usual.
  bool is_trace = false;
  std::vector<Finding> findings;

  void add(std::string_view name, std::string what);
};

class Probe {
 public:
  struct Want {
    int tag = 0;
    ByteRange range;
  };

  virtual ~Probe() = default;
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  // The first limits::kInspectHeadBytes, or all of a shorter stream. Once, first.
  virtual void head(ByteView head) = 0;
  // What was wanted by `tag`; less of it if the stream ended before, nothing if it had passed.
  virtual void got(int tag, ByteView bytes);
  virtual void finish(const StreamEnd& end);

  const Match& match() const noexcept { return match_; }
  bool matched() const noexcept { return !match_.format.empty(); }
  std::vector<Want> take_wants() { return std::exchange(wants_, {}); }

 protected:
  Probe() = default;

  // At most limits::kInspectRangeBytesMax.
  void want(int tag, ByteRange range) { wants_.push_back({.tag = tag, .range = range}); }
  void add(std::string_view name, std::string what) { match_.add(name, std::move(what)); }

  Match match_;

 private:
  std::vector<Want> wants_;
};

// One of each.
std::vector<std::unique_ptr<Probe>> make_probes();

std::unique_ptr<Probe> make_qcow2_probe();
std::unique_ptr<Probe> make_vmdk_probe();
std::unique_ptr<Probe> make_vhd_probe();
std::unique_ptr<Probe> make_vhdx_probe();
std::unique_ptr<Probe> make_vdi_probe();
std::unique_ptr<Probe> make_ploop_probe();
std::unique_ptr<Probe> make_iso_probe();
std::unique_ptr<Probe> make_partition_probe();
std::unique_ptr<Probe> make_luks_probe();
// Formats known by their mark alone, one probe each.
std::vector<std::unique_ptr<Probe>> make_mark_probes();

// Whether `bytes` has `mark` at `offset`.
bool has_mark(ByteView bytes, std::uint64_t offset, std::string_view mark) noexcept;

// Whether [offset, offset + size) lies within `limit`, without overflow.
constexpr bool fits(ByteRange range, std::uint64_t limit) noexcept {
  return range.offset_bytes <= limit && range.size_bytes <= limit - range.offset_bytes;
}

constexpr bool is_power_of_two(std::uint64_t value) noexcept {
  return value != 0 && (value & (value - 1)) == 0;
}

}  // namespace lukskeep::image
