#include "storage/faulty_device.h"

#include <algorithm>
#include <mutex>
#include <random>
#include <utility>

#include <fmt/format.h>

#include "storage/request.h"

namespace lukskeep::storage {
namespace {

constexpr std::uint64_t kSectorBytes = 512;

// One request that has changed what reads see, but perhaps not the medium.
struct Change {
  std::uint64_t offset_bytes = 0;
  Bytes data;
  std::optional<std::uint64_t> resize_to;  // then there is no data
  bool torn = false;
};

// Distributions of <random> differ between libraries: a seed must mean the same everywhere.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : engine_(seed) {}
  std::uint64_t below(std::uint64_t bound) { return engine_() % bound; }
  bool coin() { return (engine_() >> 63) != 0; }

  template <typename T>
  void shuffle(std::vector<T>& items) {
    for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }

 private:
  std::mt19937_64 engine_;
};

// What of [offset, offset + length) lies below `size_bytes`.
std::uint64_t clipped_length(const Range& range, std::uint64_t size_bytes) {
  if (range.offset_bytes >= size_bytes) return 0;
  return std::min(range.length_bytes, size_bytes - range.offset_bytes);
}

void apply_piece(Bytes& medium, std::uint64_t offset_bytes, ByteView data) {
  const std::uint64_t length = clipped_length({offset_bytes, data.size()}, medium.size());
  std::copy_n(data.begin(), length, medium.begin() + static_cast<std::ptrdiff_t>(offset_bytes));
}

void apply_whole(Bytes& medium, const Change& change) {
  if (change.resize_to) {
    medium.resize(*change.resize_to);
  } else if (change.offset_bytes < medium.size()) {
    apply_piece(medium, change.offset_bytes, change.data);
  }
}

// Each sector of the medium that the write touches takes its part of it, or stays as it was.
void apply_torn(Bytes& medium, const Change& change, Dice& dice) {
  ByteView rest = change.data;
  std::uint64_t offset_bytes = change.offset_bytes;
  while (!rest.empty() && offset_bytes < medium.size()) {
    const std::uint64_t piece =
        std::min<std::uint64_t>(rest.size(), kSectorBytes - offset_bytes % kSectorBytes);
    if (dice.coin()) apply_piece(medium, offset_bytes, rest.first(piece));
    rest = rest.subspan(piece);
    offset_bytes += piece;
  }
}

}  // namespace

struct FaultyDevice::State {
  FaultPlan plan;
  mutable std::mutex mutex;
  Bytes medium;                   // what is durable
  Bytes seen;                     // what reads see
  std::vector<Change> unflushed;  // between the two
  std::uint64_t operations = 0;
  bool crashed = false;

  void require_power(const std::string& what) const {
    if (crashed) throw Error(Code::kIo, what + ": the power failed");
  }

  // Counts a request; true if the power fails now.
  bool begin(const std::string& what) {
    require_power(what);
    crashed = plan.crash_at_operation == operations;
    ++operations;
    return crashed;
  }

  void change(Change next, const std::string& what) {
    const bool power_fails = begin(what);
    const Range range{next.offset_bytes, next.data.size()};
    if (power_fails) {
      next.torn = plan.torn_writes && !next.resize_to;
      if (next.torn) unflushed.push_back(std::move(next));
      return require_power(what);
    }
    if (touches(plan.eio_write_offset, range)) throw Error(Code::kIo, what + ": medium error");
    const std::uint64_t end =
        next.resize_to ? *next.resize_to : range.offset_bytes + range.length_bytes;
    if (plan.no_space_at_bytes && end > *plan.no_space_at_bytes) {
      throw Error(Code::kNoSpace, what + ": no space left");
    }
    apply_whole(seen, next);
    unflushed.push_back(std::move(next));
  }

  static bool touches(const std::optional<std::uint64_t>& place, const Range& range) {
    return place && *place >= range.offset_bytes &&
           *place - range.offset_bytes < range.length_bytes;
  }

  Bytes crash_image() const;
};

// One run of writes between two resizes after the other.
Bytes FaultyDevice::State::crash_image() const {
  Bytes image = medium;
  Dice dice(plan.seed);
  const auto resizes = static_cast<std::uint64_t>(std::ranges::count_if(
      unflushed, [](const Change& change) { return change.resize_to.has_value(); }));
  std::uint64_t resizes_left = plan.reorder_unflushed ? dice.below(resizes + 1) : resizes;
  std::vector<const Change*> run;
  const auto apply_run = [&] {
    if (plan.reorder_unflushed) dice.shuffle(run);
    for (const Change* change : run) {
      if (plan.reorder_unflushed && !change->torn && dice.coin()) continue;  // lost
      if (change->torn || (plan.reorder_unflushed && plan.torn_writes && dice.coin())) {
        apply_torn(image, *change, dice);
      } else {
        apply_whole(image, *change);
      }
    }
    run.clear();
  };
  for (const Change& change : unflushed) {
    if (!change.resize_to) {
      run.push_back(&change);
      continue;
    }
    apply_run();
    if (resizes_left > 0) {
      apply_whole(image, change);
      --resizes_left;
    }
  }
  apply_run();
  return image;
}

FaultyDevice::FaultyDevice(Bytes contents, FaultPlan plan) : state_(std::make_unique<State>()) {
  state_->plan = plan;
  state_->medium = contents;
  state_->seen = std::move(contents);
}

FaultyDevice::~FaultyDevice() = default;

std::uint64_t FaultyDevice::operations() const noexcept {
  const std::lock_guard lock(state_->mutex);
  return state_->operations;
}

bool FaultyDevice::crashed() const noexcept {
  const std::lock_guard lock(state_->mutex);
  return state_->crashed;
}

Bytes FaultyDevice::after_crash() const {
  const std::lock_guard lock(state_->mutex);
  return state_->crash_image();
}

std::string FaultyDevice::name() const { return "faulty device"; }
bool FaultyDevice::writable() const { return true; }
std::uint32_t FaultyDevice::block_size_bytes() const { return kSectorBytes; }

std::uint64_t FaultyDevice::size_bytes() const {
  const std::lock_guard lock(state_->mutex);
  return state_->seen.size();
}

void FaultyDevice::read(std::uint64_t offset_bytes, MutableBytes out) const {
  const Range range{offset_bytes, out.size()};
  check_range(*this, "read", range);
  const std::string what = failed_request(*this, "read", range);
  const std::lock_guard lock(state_->mutex);
  state_->require_power(what);
  if (State::touches(state_->plan.eio_read_offset, range)) {
    throw Error(Code::kIo, what + ": medium error");
  }
  std::copy_n(state_->seen.begin() + static_cast<std::ptrdiff_t>(offset_bytes), out.size(),
              out.begin());
}

void FaultyDevice::write(std::uint64_t offset_bytes, ByteView data) {
  const Range range{offset_bytes, data.size()};
  check_change(*this, "write", range);
  const std::string what = failed_request(*this, "write", range);
  const std::lock_guard lock(state_->mutex);
  state_->change({.offset_bytes = offset_bytes, .data = Bytes(data.begin(), data.end())}, what);
}

void FaultyDevice::write_zeroes(std::uint64_t offset_bytes, std::uint64_t length_bytes, ZeroMode) {
  const Range range{offset_bytes, length_bytes};
  check_change(*this, "zero", range);
  const std::string what = failed_request(*this, "zero", range);
  const std::lock_guard lock(state_->mutex);
  state_->change({.offset_bytes = offset_bytes, .data = Bytes(length_bytes)}, what);
}

void FaultyDevice::flush() {
  const std::lock_guard lock(state_->mutex);
  const std::string what = fmt::format("cannot flush '{}'", name());
  if (state_->begin(what)) state_->require_power(what);
  if (state_->plan.lose_flush) return;
  for (const Change& change : state_->unflushed) apply_whole(state_->medium, change);
  state_->unflushed.clear();
}

void FaultyDevice::resize(std::uint64_t size_bytes) {
  const std::lock_guard lock(state_->mutex);
  state_->change({.resize_to = size_bytes},
                 fmt::format("cannot resize '{}' to {} bytes", name(), size_bytes));
}

}  // namespace lukskeep::storage
