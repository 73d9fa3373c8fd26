#include "storage/mapping_key.h"

#include <gtest/gtest.h>

#include <lukskeep/error.h>

namespace lukskeep::storage {
namespace {

Code code_of(std::string_view parameters) {
  try {
    static_cast<void>(parse_mapping_key(as_byte_view(parameters), "m"));
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return Code::kInternal;
}

TEST(MappingKey, ParsesHex) {
  const SecretBytes key =
      parse_mapping_key(as_byte_view("aes-xts-plain64 00ff1aB2 0 254:0 4096"), "m");
  EXPECT_EQ(to_hex(key.span()), "00ff1ab2");
  EXPECT_EQ(to_hex(parse_mapping_key(as_byte_view("c 0123"), "m").span()), "0123");
}

TEST(MappingKey, RefusesWhatIsNoKey) {
  EXPECT_EQ(code_of(""), Code::kDamaged);
  EXPECT_EQ(code_of("aes"), Code::kDamaged);
  EXPECT_EQ(code_of("aes "), Code::kDamaged);
  EXPECT_EQ(code_of("aes  0"), Code::kDamaged);
  EXPECT_EQ(code_of("aes 012 0 254:0 0"), Code::kDamaged);
  EXPECT_EQ(code_of("aes 0g 0 254:0 0"), Code::kDamaged);
  EXPECT_EQ(code_of("cipher_null-ecb - 0 254:0 0"), Code::kDamaged);
  EXPECT_EQ(code_of("aes " + std::string(2 * 513, '0') + " 0"), Code::kDamaged);
  EXPECT_EQ(code_of("aes-xts-plain64 :64:logon:cryptsetup:x 0 254:0 0"), Code::kUnsupported);
}

TEST(MappingKey, RefusesWhatIsNoName) {
  for (const std::string& name : {std::string(), std::string("a/b"), std::string(128, 'x')}) {
    try {
      static_cast<void>(read_mapping_key(name));
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kInvalidArgument) << name;
    }
  }
}

}  // namespace
}  // namespace lukskeep::storage
