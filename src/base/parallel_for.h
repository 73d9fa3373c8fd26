// Runs independent pieces of work on several threads.
#pragma once

#include <cstddef>
#include <functional>

namespace lukskeep {

// Threads worth using on this machine: its CPUs as the scheduler allows them, at least 1.
unsigned hardware_threads() noexcept;

// Calls `body(i)` once for each i in [0, count), on at most `threads` threads (the caller's is one
// of them), in no order. The first exception thrown stops the handing out of further indices and
// is rethrown when all threads have stopped.
void parallel_for(std::size_t count, unsigned threads,
                  const std::function<void(std::size_t)>& body);

}  // namespace lukskeep
