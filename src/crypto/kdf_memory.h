// How much memory a KDF may use on this machine. Private to this folder.
#pragma once

#include <cstdint>

namespace lukskeep::crypto {

// Memory of the machine, or of the cgroup (v2) that holds this process if that is less.
std::uint64_t total_memory_kib();

// What can be had now without killing anybody: memory that is free or easily freed, and swap, but
// not more than the cgroup's limit. UINT64_MAX if the system does not say.
std::uint64_t available_memory_kib();

// The lowest memory.max of the cgroup at `path` and those above it, with `mount` as the root of
// the hierarchy; UINT64_MAX if there is none. Declared here for its test.
std::uint64_t cgroup_limit_kib(const char* mount, const char* path);

}  // namespace lukskeep::crypto
