// Headers for tests: samples with something of everything, random ones, and real ones.
#pragma once

#include <random>
#include <string>
#include <string_view>

#include <lukskeep/header.h>

#include "base/bytes.h"

namespace lukskeep::luks::testing {

// Two active keyslots (0 and 2), 32-byte key, areas as cryptsetup places them.
Header sample_luks1();

// Three keyslots (pbkdf2, argon2id, and argon2i with an unbound key), two tokens, two digests, one
// segment with all optional members, flags, and unknown members wherever they can be; 16 KiB.
Header sample_luks2();

// A re-encryption at work: keyslot 2 of its type, three segments and two backups, requirements.
Header sample_reencryption();

// Valid headers that vary in every field the model has.
Header random_luks1(std::mt19937_64& random);
Header random_luks2(std::mt19937_64& random);

// tests/images/headers/NAME, a LUKS2 copy padded to its size. Fails the test if it is not there.
Bytes read_header_image(const std::string& name);

// `copy` with the JSON area replaced by `json` and zeros, the checksum being right.
Bytes luks2_copy_with_json(Bytes copy, std::string_view json);
// Puts a right checksum (sha256) into a copy of at least 4096 bytes.
void fix_luks2_checksum(Bytes& copy);

}  // namespace lukskeep::luks::testing
