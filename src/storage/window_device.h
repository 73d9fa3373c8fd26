// A part of another device as a device of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include <lukskeep/device.h>

namespace lukskeep::storage {

// The window keeps `below` alive. Without a size it reaches to the end of `below` as that is at
// each moment. Throws kTooSmall if it does not fit.
struct WindowBounds {
  std::uint64_t offset_bytes = 0;
  std::optional<std::uint64_t> size_bytes;
};
std::unique_ptr<Device> make_window(std::shared_ptr<Device> below, const WindowBounds& bounds);

}  // namespace lukskeep::storage
