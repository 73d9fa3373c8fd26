// Sizes, memory and limits as people write them, and the way back.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "crypto/kdf.h"

namespace lukskeep::cli {

// Bytes: a whole number with an optional unit. K, M, G, T, P, E and KiB … EiB count in 1024, KB …
// EB in 1000; upper and lower case are equal. Throws Error{kUsage}.
std::uint64_t parse_size(std::string_view text);

// KiB: a number without unit is KiB already (as cryptsetup's --pbkdf-memory), else as parse_size.
std::uint32_t parse_memory_kib(std::string_view text);

// A whole number that fits 32 bits. Throws Error{kUsage}.
std::uint32_t parse_number(std::string_view text);

// "300s,4GiB": seconds, memory, or both in any order; what is not named keeps its default.
crypto::KdfLimit parse_kdf_limit(std::string_view text);

// "10 GiB", "1.5 MiB", "512 bytes": at most one decimal.
std::string human_size(std::uint64_t size_bytes);

// "10 GiB (10737418240 bytes)", or just the bytes below 1 KiB.
std::string exact_size(std::uint64_t size_bytes);

// "0:07", "12:34", "1:02:03".
std::string human_duration(std::uint64_t seconds);

}  // namespace lukskeep::cli
