// Any bytes are a snapshot, or throw Error; a manifest that is read is written as it was.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include <lukskeep/error.h>

#include "archive/snapshot.h"

namespace {

using namespace lukskeep;

void expect_known(const Error& error) {
  if (error.code() != Code::kDamaged && error.code() != Code::kUnsupported) std::abort();
}

// The key that the corpus is sealed to.
const std::vector<archive::AgeIdentity>& identities() {
  static const auto all = archive::parse_age_identities(
      as_byte_view("AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"),
      "fuzz");
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ByteView file = std::as_bytes(std::span(data, size));
  try {
    const archive::SnapshotFile snapshot = archive::read_snapshot(file, "fuzz");
    const std::string line = archive::encode_manifest(snapshot.manifest);
    if (archive::decode_manifest(line, "again") != snapshot.manifest) std::abort();
    archive::open_snapshot(file, identities(), "fuzz");
  } catch (const Error& error) {
    expect_known(error);
  }
  try {
    archive::age_open(file, identities(), "fuzz");
  } catch (const Error& error) {
    expect_known(error);
  }
  return 0;
}
