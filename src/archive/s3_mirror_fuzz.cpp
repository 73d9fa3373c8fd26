// Any bytes are a page of a bucket's list, or throw Error{kRemote}.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include <lukskeep/error.h>

#include "archive/s3_mirror.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lukskeep;
  try {
    const archive::ListedObjects page =
        archive::parse_object_list(std::as_bytes(std::span(data, size)), "fuzz");
    // "<Key/>" is the shortest way to say a key; none is made of nothing.
    if (page.keys.size() > size / 6) std::abort();
    for (const std::string& key : page.keys) {
      if (key.size() > 4096) std::abort();
      static_cast<void>(archive::is_snapshot_name(key));
    }
  } catch (const Error& error) {
    if (error.code() != Code::kRemote) std::abort();
  }
  return 0;
}
