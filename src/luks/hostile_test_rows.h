// Damaged and hostile headers as tables: what was done to a good one, and what must be said of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/bytes.h"

namespace lukskeep::luks::testing {

struct HostileRow {
  std::string name;
  Bytes bytes;
  std::string message;  // a part of it
  Code code = Code::kDamaged;
  std::uint64_t offset_bytes = 0;  // LUKS2: where the copy stands
};

inline void PrintTo(const HostileRow& row, std::ostream* out) { *out << row.name; }

// What a decoder was given must not be more than was promised to it, so that a sanitizer sees a
// read beyond the end: the bytes are copied to a place of exactly their size.
template <typename Decode>
void expect_refusal(const HostileRow& row, const Decode& decode) {
  SCOPED_TRACE(row.name);
  const Bytes exact(row.bytes.begin(), row.bytes.end());
  try {
    decode(exact);
    ADD_FAILURE() << "decoded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), row.code) << error.message();
    EXPECT_THAT(error.message(), ::testing::StartsWith("disk 'x'"));
    EXPECT_THAT(error.message(), ::testing::HasSubstr(row.message));
    EXPECT_LT(error.message().size(), 400U) << "a message that input can blow up";
  }
}

// A name that Google Test takes.
inline std::string test_name(const ::testing::TestParamInfo<HostileRow>& row) {
  std::string name = std::to_string(row.index) + "_";
  for (const char c : row.param.name) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    name += plain ? c : '_';
  }
  return name;
}

// LUKS2 rows come in groups, each made in a file of its own.
std::vector<HostileRow> luks2_binary_rows();
std::vector<HostileRow> luks2_text_rows();
std::vector<HostileRow> luks2_member_rows();
std::vector<HostileRow> luks2_rule_rows();

}  // namespace lukskeep::luks::testing
