#include "cli/copy_args.h"

#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "keys/key_source.h"
#include "luks/crypt_device.h"
#include "storage/extents.h"

namespace lukskeep::cli {

void CopyArgs::declare(Options& options) {
  options.add(
      {.name = "--holes",
       .value = "MODE",
       .help = "fill: write every byte (default); keep: holes stay holes, which shows which "
               "blocks are in use",
       .choices = {"fill", "keep"}},
      holes);
  options.add_size(
      {.name = "--limit-rate", .value = "SIZE", .help = "copy no more than SIZE a second"},
      rate_limit_bytes);
  options.flag({.name = "--direct",
                .help = "read and write past the page cache (O_DIRECT) where that is possible"},
               direct);
  progress.declare(options);
}

storage::CopyOptions CopyArgs::copy_options(const Session& session, std::string_view phase) const {
  storage::CopyOptions options;
  options.phase = phase;
  options.holes = keep_holes() ? storage::Holes::kKeep : storage::Holes::kFill;
  options.rate_limit_bytes = rate_limit_bytes.value_or(0);
  options.cancel = session.cancel;
  return options;
}

void check_stdout_is_free(const Session& session) {
  if (session.json) {
    throw Error(Code::kUsage, "--json and '-' both want standard output");
  }
  if (isatty(STDOUT_FILENO) == 1) {
    throw Error(Code::kUsage, "refusing to write a disk image to the terminal",
                "name a file, or send standard output into one");
  }
}

void warn_of_holes(const luks::Header& header, const Device& payload) {
  const std::uint64_t start = luks::payload_offset_bytes(header);
  if (start >= payload.size_bytes()) return;
  const auto is_hole = [](const Extent& extent) { return extent.zero; };
  if (!storage::any_extent(payload, start, payload.size_bytes() - start, is_hole)) return;
  warn(
      fmt::format("the payload of '{}' has holes: they decrypt to noise, as with dm-crypt "
                  "(--holes keep makes zeroes of them)",
                  payload.name()));
}

void check_stdin_is_free(const std::string& key_source) {
  const keys::KeySource source = keys::parse_key_source(key_source);
  const bool file = source.kind == keys::KeySource::Kind::kFile ||
                    source.kind == keys::KeySource::Kind::kVolumeKey;
  if ((file && source.path == "-") ||
      (source.kind == keys::KeySource::Kind::kFd && source.fd == STDIN_FILENO)) {
    throw Error(Code::kUsage, "the image and the key cannot both come from standard input");
  }
}

}  // namespace lukskeep::cli
