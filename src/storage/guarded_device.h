// A device for clients that do not know of each other.
#pragma once

#include <memory>

#include <lukskeep/device.h>

namespace lukskeep::storage {

// Everything goes to `below`, whose rule for threads is kept for the callers: requests may touch
// the same bytes at the same time, in any mixture. Those that do, with one of them writing, are
// carried out one after the other in the order they came, so a read sees each write whole or not at
// all. Requests apart from each other run side by side.
std::unique_ptr<Device> make_guarded(std::shared_ptr<Device> below);

}  // namespace lukskeep::storage
