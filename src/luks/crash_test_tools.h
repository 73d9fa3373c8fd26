// Power cuts at every write and every flush of a change, for tests.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <gtest/gtest.h>

#include <lukskeep/device.h>
#include <lukskeep/error.h>

#include "base/bytes.h"
#include "storage/faulty_device.h"

namespace lukskeep::luks::testing {

// What is tried: it opens the device, changes it, and may let what the power cut throws pass.
using Change = std::function<void(const std::shared_ptr<Device>& device)>;
// Looks at what the medium holds after a power cut, with the expectations of Google Test.
using Judge = std::function<void(const Bytes& medium)>;

struct CrashRun {
  Bytes medium;                  // after the change, with nothing in its way
  std::uint64_t operations = 0;  // the writes, zeroings and flushes at which power can be cut
};

// The change as it goes when the power stays.
inline CrashRun run_undisturbed(const Bytes& start, const Change& change) {
  const auto device = std::make_shared<storage::FaultyDevice>(start, storage::FaultPlan{});
  change(device);
  device->flush();
  return {.medium = device->after_crash(), .operations = device->operations() - 1};
}

// The medium after power failed at `operation` (from 0). Any part of what was not flushed is on it,
// in any order and torn at sectors, as `seed` says.
inline Bytes run_until_cut(const Bytes& start, const Change& change, std::uint64_t operation,
                           std::uint64_t seed) {
  const auto device = std::make_shared<storage::FaultyDevice>(
      start, storage::FaultPlan{.seed = seed,
                                .crash_at_operation = operation,
                                .torn_writes = true,
                                .reorder_unflushed = true});
  try {
    change(device);
  } catch (const Error& error) {
    EXPECT_TRUE(device->crashed()) << error.message();
  }
  EXPECT_TRUE(device->crashed()) << "the change makes fewer writes than it did before";
  return device->after_crash();
}

struct PowerCuts {
  std::uint64_t operations = 0;  // see CrashRun
  std::uint64_t rounds = 1;
  std::uint64_t salt = 0;  // changes all seeds
};

// Cuts the power at each operation, in each round with another part of the writes lost. Returns the
// number of points tried: operations by rounds.
inline std::uint64_t cut_power_everywhere(const Bytes& start, const Change& change,
                                          const PowerCuts& cuts, const Judge& judge) {
  std::uint64_t points = 0;
  for (std::uint64_t round = 0; round < cuts.rounds; ++round) {
    for (std::uint64_t at = 0; at < cuts.operations; ++at) {
      const std::uint64_t seed = cuts.salt + round * cuts.operations + at;
      SCOPED_TRACE("power cut at operation " + std::to_string(at) + ", seed " +
                   std::to_string(seed));
      judge(run_until_cut(start, change, at, seed));
      ++points;
    }
  }
  return points;
}

}  // namespace lukskeep::luks::testing
