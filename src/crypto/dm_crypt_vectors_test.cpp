// What a Linux kernel's dm-crypt made of the same bytes: tests/vectors/dm_crypt.txt.
#include <fstream>
#include <sstream>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "crypto/hash.h"
#include "crypto/sector_cipher.h"

namespace lukskeep::crypto {
namespace {

// As make_dm_crypt.py, which made the file.
Bytes plain_bytes() {
  Bytes plain(8192);
  for (std::size_t i = 0; i < plain.size(); ++i) {
    plain[i] = static_cast<std::byte>(i * 7 + i / 256);
  }
  return plain;
}

Bytes key_bytes(std::size_t size) {
  Bytes key(size);
  for (std::size_t i = 0; i < size; ++i) key[i] = static_cast<std::byte>(i * 37 + 11);
  return key;
}

TEST(DmCryptVectors, AllAgree) {
  std::ifstream file(LUKSKEEP_SOURCE_DIR "/tests/vectors/dm_crypt.txt");
  ASSERT_TRUE(file) << "the vectors are missing";
  unsigned checked = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string cipher;
    std::size_t key_bits = 0;
    std::uint32_t sector_bytes = 0;
    std::uint64_t first_sector = 0;
    std::string digest;
    ASSERT_TRUE(fields >> cipher >> key_bits >> sector_bytes >> first_sector >> digest) << line;
    const auto made =
        make_sector_cipher(parse_cipher_spec(cipher), key_bytes(key_bits / 8), sector_bytes);
    Bytes data = plain_bytes();
    made->encrypt(first_sector, data);
    EXPECT_EQ(to_hex(hash("sha256", data)), digest) << line;
    made->decrypt(first_sector, data);
    EXPECT_EQ(data, plain_bytes()) << line;
    ++checked;
  }
  EXPECT_GE(checked, 500U);
}

}  // namespace
}  // namespace lukskeep::crypto
