// The image that a command makes: raw or qcow2, plain or encrypted; there as a whole or not at all.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <lukskeep/device.h>

#include "base/bytes.h"
#include "cli/copy_args.h"
#include "cli/new_volume.h"
#include "cli/options.h"
#include "cli/session.h"
#include "cli/target.h"

namespace lukskeep::cli {

struct ImageOutput {
  std::string path;
  std::string format = "raw";
  bool compress = false;
  CopyArgs copy;
  PathKind settled = PathKind::kAbsent;  // what may be overwritten there

  // DST, --format and the options of the copy.
  void declare(Options& options);
  bool qcow2() const { return format == "qcow2"; }
  // As the storage knows it.
  std::string location() const;
  // Asks before it overwrites: to be called once, before any work. Throws Error{kUsage} if it is
  // the source, and what confirm_overwrite throws.
  void settle(const Session& session, const std::string& source);

  // Copies `disk`, which `source` has held all the time; nothing is at `path` unless it returns.
  // `before_commit` is called when only the name is missing, or on a device the header; perhaps
  // again.
  struct Job {
    const Device& disk;
    const std::string& source;
    std::uint64_t source_bytes = 0;  // of the file, which must not change meanwhile
    std::function<void()> before_commit;
  };
  void write_plain(const Session& session, const Job& job) const;
  // For what becomes encrypted: throws Error{kUsage} for --compress.
  void refuse_compression() const;
  // A new volume with `volume`'s header.
  void write_new(const Session& session, const Job& job, const NewVolume& volume) const;
  // A volume with a header that is there already (LUKS1 for qcow2), and its key.
  struct KnownVolume {
    const luks::Header& header;
    ByteView header_bytes;
    ByteView volume_key;
  };
  void write_known(const Session& session, const Job& job, const KnownVolume& volume) const;

 private:
  Target make_target(std::uint64_t header_bytes, std::uint64_t payload_bytes) const;
  void copy_into(const Session& session, const Job& job, Device& to, bool fresh) const;
  void fill_volume(const Session& session, const Job& job, const Target& target,
                   const luks::Header& header, ByteView volume_key) const;
  void finish(const Job& job, Target& target) const;
  void write_compressed(const Session& session, const Job& job) const;
};

}  // namespace lukskeep::cli
