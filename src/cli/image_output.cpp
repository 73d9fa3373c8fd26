#include "cli/image_output.h"

#include <optional>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "cli/volume_access.h"
#include "luks/create.h"
#include "luks/crypt_device.h"
#include "luks/layout.h"
#include "storage/qcow2_compress.h"

namespace lukskeep::cli {

void ImageOutput::declare(Options& options) {
  options.positional({.name = "DST",
                      .help = "the new image: a file, or with --format raw also a "
                              "device or URI"},
                     path);
  options.add({.name = "--format",
               .value = "FORMAT",
               .help = "raw (default) or qcow2",
               .choices = {"raw", "qcow2"}},
              format);
  options.flag({.name = "--compress", .help = "qcow2 that is not encrypted: compress its clusters"},
               compress);
  copy.declare(options);
}

std::string ImageOutput::location() const { return qcow2() ? "qcow2:" + path : path; }

void ImageOutput::settle(const Session& session, const std::string& source) {
  if (is_pipe(path) || is_pipe(source)) {
    throw Error(Code::kUsage, "images are read and written out of order: a pipe will not do",
                "name a file");
  }
  if (qcow2() && storage::scheme_of(path) != storage::Scheme::kFile) {
    throw Error(Code::kUsage,
                fmt::format("'{}' is no file, and qcow2 is one", printable(path, 256)),
                "--format raw");
  }
  if (compress && !qcow2()) {
    throw Error(Code::kUsage, "--compress: a raw image has no compression",
                "--format qcow2 --compress");
  }
  refuse_same(source, path);
  settled = confirm_overwrite(session, location());
  if (qcow2() && settled == PathKind::kDevice) {
    throw Error(Code::kUsage,
                fmt::format("'{}' is a device, and qcow2 is a file", printable(path, 256)),
                "--format raw");
  }
}

Target ImageOutput::make_target(std::uint64_t header_bytes, std::uint64_t payload_bytes) const {
  if (qcow2()) {
    return {
        location(),
        settled,
        {.size_bytes = payload_bytes, .direct = copy.direct, .crypto_header_bytes = header_bytes}};
  }
  return {path, settled, {.size_bytes = header_bytes + payload_bytes, .direct = copy.direct}};
}

void ImageOutput::copy_into(const Session& session, const Job& job, Device& to, bool fresh) const {
  ProgressDisplay display(copy.progress, session);
  storage::CopyOptions options = copy.copy_options(session, "copy");
  options.progress = display.callback();
  options.destination_is_zero = fresh && options.holes == storage::Holes::kKeep;
  storage::copy(job.disk, to, job.disk.size_bytes(), options);
  session.cancel->check();
  refuse_resized(job.source, job.source_bytes);
}

void ImageOutput::finish(const Job& job, Target& target) const {
  if (job.before_commit) job.before_commit();
  target.commit();
}

void ImageOutput::refuse_compression() const {
  if (!compress) return;
  throw Error(Code::kUsage, "--compress: what is encrypted does not get smaller",
              "leave it out, or decrypt");
}

void ImageOutput::write_compressed(const Session& session, const Job& job) const {
  Target target(path, settled, 0, copy.direct);
  ProgressDisplay display(copy.progress, session);
  storage::CopyOptions options = copy.copy_options(session, "compress");
  options.progress = display.callback();
  storage::write_compressed_qcow2(job.disk, *target.device(), options);
  session.cancel->check();
  refuse_resized(job.source, job.source_bytes);
  finish(job, target);
}

void ImageOutput::write_plain(const Session& session, const Job& job) const {
  if (compress) return write_compressed(session, job);
  Target target = make_target(0, job.disk.size_bytes());
  // Of a plain image nothing is told that its zeroes do not tell: they become holes in any case.
  ImageOutput sparse = *this;
  sparse.copy.holes = target.fresh() ? "keep" : "fill";
  sparse.copy_into(session, job, *target.device(), target.fresh());
  finish(job, target);
}

void ImageOutput::write_new(const Session& session, const Job& job, const NewVolume& volume) const {
  keep_header(session, location());
  const std::uint64_t payload = luks::round_up(job.disk.size_bytes(), volume.sector_size_bytes());
  Target target = make_target(volume.payload_offset_bytes(), payload);
  // A file has no name before it is whole; what is on a block device is there for all to see.
  std::optional<luks::PendingHeader> pending;
  if (target.fresh()) {
    luks::create_volume(target.device(), volume.fresh, volume.passphrase.span(), volume.keyslot,
                        session.cancel);
  } else {
    pending.emplace(target.device(), volume.fresh, volume.passphrase.span(), volume.keyslot,
                    session.cancel);
  }
  fill_volume(session, job, target, volume.fresh.header, volume.fresh.volume_key.span());
  if (pending) {
    // With its header the volume is there, whatever fails from then on.
    if (job.before_commit) job.before_commit();
    pending->write();
  }
  finish(job, target);
}

void ImageOutput::write_known(const Session& session, const Job& job,
                              const KnownVolume& volume) const {
  keep_header(session, location());
  Target target = make_target(luks::payload_offset_bytes(volume.header), job.disk.size_bytes());
  const auto write_header = [&] { target.device()->write(0, volume.header_bytes); };
  if (target.fresh()) write_header();
  fill_volume(session, job, target, volume.header, volume.volume_key);
  if (!target.fresh()) write_header();
  finish(job, target);
}

void ImageOutput::fill_volume(const Session& session, const Job& job, const Target& target,
                              const luks::Header& header, ByteView volume_key) const {
  const auto plain = luks::make_crypt_device(
      header, target.device(), volume_key,
      {.writable = true, .holes_as_zeroes = copy.keep_holes() && target.fresh()});
  // LUKS payloads are whole sectors: what the source lacks is zero.
  const std::uint64_t end = job.disk.size_bytes();
  const std::uint64_t sector = header.segments.at(0).sector_size_bytes;
  if (const std::uint64_t padding = luks::round_up(end, sector) - end; padding != 0) {
    plain->write_zeroes(end, padding, ZeroMode::kAllocate);
  }
  ImageOutput kept = *this;
  // A block device has no holes to leave: they are filled.
  if (!target.fresh()) kept.copy.holes = "fill";
  kept.copy_into(session, job, *plain, target.fresh());
}

}  // namespace lukskeep::cli
