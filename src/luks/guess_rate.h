// What a keyslot's KDF costs who has the header and guesses passphrases. Estimates for messages:
// nothing is measured, the same header gives the same figures everywhere.
//
// The attacker assumed is one graphics card of 2022, a GeForce RTX 4090:
// - hashes a second, from the benchmark of hashcat 6.2.6 on that card which Chick3nman published
//   in October 2022 (modes 100, 1400, 1700): SHA-1 50.6e9, SHA-256 22.0e9, SHA-512 7.5e9; any other
//   hash is taken for as fast as SHA-256.
//   PBKDF2 takes two compressions for an iteration of HMAC, for each block of the hash's size that
//   the key of the keyslot area has (RFC 8018 §5.2, RFC 2104).
// - 1.008e12 bytes a second from and to memory (NVIDIA's data sheet). Each of the `time` passes of
//   Argon2 reads and writes all of its memory at least once (RFC 9106 §3.4), which no attacker gets
//   around; up to 128 KiB fit the cache for as many guesses at a time as keep the card busy, and
//   then five times that bandwidth.
// So the figures are upper bounds for one card; who has a hundred of them is a hundred times as
// fast.
#pragma once

#include <cstdint>
#include <optional>

#include <lukskeep/header.h>

namespace lukskeep::luks {

// Passphrases a second, or absent if the KDF or its hash is unknown.
std::optional<double> guesses_per_second(const Kdf& kdf, std::uint32_t area_key_size_bytes);

// More than this is weak. The least that OWASP's Password Storage Cheat Sheet (2023) asks for,
// 600 000 iterations of PBKDF2-HMAC-SHA256 or Argon2id with 19 MiB and 2 passes, allows 18 000 and
// 13 000.
inline constexpr double kWeakGuessesPerSecond = 20'000;

// Seconds until a passphrase of `length` letters and digits chosen at random (62 of them) is found,
// on average: after half of all guesses.
double seconds_to_find(int length, double guesses_per_second);

}  // namespace lukskeep::luks
