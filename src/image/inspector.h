// The inspector: what a stream of bytes is, and whether it is safe to use.
//
//   Inspector inspector({.expected = "qcow2"});
//   while (...) inspector.feed(chunk);
//   const Report report = inspector.finish();
//   if (!report.safe()) ...
//
// One pass, all formats at once. Memory is bounded by a constant (below 4 MiB), whatever the
// stream says and however long it is; the verdict does not depend on how it is cut into chunks.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "image/finding.h"
#include "image/probe.h"

namespace lukskeep::image {

struct Report {
  std::string format = "raw";        // what it is first of all
  std::string variant;               // e.g. "dynamic" of a vhd; may be empty
  std::vector<std::string> formats;  // all that it is; more than one is a polyglot or an ISO
  std::uint64_t size_bytes = 0;      // of the stream
  std::optional<std::uint64_t> virtual_size_bytes;  // of the disk it stands for; absent: not told
  // Without the header of an encrypted volume; for what is not encrypted, as virtual_size_bytes.
  std::optional<std::uint64_t> payload_size_bytes;
  bool encrypted = false;
  std::vector<Finding> findings;
  std::unique_ptr<Report> inner;  // what was found under the encryption, if that was opened

  // No finding, here or within, is dangerous.
  bool safe() const noexcept;
};

struct InspectorOptions {
  // A format, or "luks" for either version; "raw" is also a disk with partitions. Empty: any.
  std::string expected;
  AllowList allow;
};

// Names that InspectorOptions::expected knows. Throws Error{kUsage} unless `format` is one.
void check_format_name(std::string_view format);

class Inspector {
 public:
  explicit Inspector(InspectorOptions options = {});
  ~Inspector();
  Inspector(Inspector&&) noexcept;
  Inspector& operator=(Inspector&&) noexcept;

  // The next bytes of the stream, any number of them.
  void feed(ByteView chunk);

  // How many of the next bytes nobody wants to see, if `size_bytes` is what the stream has in
  // all: who can seek calls skip() with that, and the verdict is the same.
  std::uint64_t skippable(std::uint64_t size_bytes) const;
  void skip(std::uint64_t bytes);

  // A danger was found already: nothing that follows can make the stream safe. Dangers that stand
  // in the first limits::kInspectHeadBytes are known when these were fed.
  bool dangerous() const;
  // What is known so far.
  Report so_far() const;

  // The stream has ended. Once; nothing else may be called after it.
  Report finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lukskeep::image
