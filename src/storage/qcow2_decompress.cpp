#include "storage/qcow2_decompress.h"

#include <memory>

#include <zlib.h>
#include <zstd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"

namespace lukskeep::storage::qcow2 {
namespace {

// Raw deflate. QEMU makes it with a window of 2^12, others with up to 2^15.
constexpr int kDeflateWindowBits = -15;

bool inflate_cluster(ByteView data, MutableBytes out) {
  z_stream stream{};
  if (inflateInit2(&stream, kDeflateWindowBits) != Z_OK) {
    throw Error(Code::kOutOfMemory, "no memory to decompress with");
  }
  // zlib does not write to its input.
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int result = inflate(&stream, Z_FINISH);
  const bool full = stream.avail_out == 0;
  inflateEnd(&stream);
  // Z_BUF_ERROR: the cluster is full before the stream has ended, as QEMU accepts it.
  return full && (result == Z_STREAM_END || result == Z_BUF_ERROR);
}

bool zstd_cluster(ByteView data, MutableBytes out) {
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(),
                                                                   &ZSTD_freeDCtx);
  if (context == nullptr) throw Error(Code::kOutOfMemory, "no memory to decompress with");
  ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, limits::kQcow2ZstdWindowLogMax);
  ZSTD_inBuffer input{.src = data.data(), .size = data.size(), .pos = 0};
  ZSTD_outBuffer output{.dst = out.data(), .size = out.size(), .pos = 0};
  // More than one frame is possible. Each turn must bring something.
  while (output.pos < output.size) {
    const std::size_t read = input.pos;
    const std::size_t wrote = output.pos;
    const std::size_t result = ZSTD_decompressStream(context.get(), &output, &input);
    if (ZSTD_isError(result) != 0) return false;
    if (input.pos == read && output.pos == wrote) return false;
  }
  return true;
}

}  // namespace

void decompress(Compression kind, ByteView data, MutableBytes out, std::string_view what) {
  const bool whole =
      kind == Compression::kZstd ? zstd_cluster(data, out) : inflate_cluster(data, out);
  if (whole) return;
  throw Error(Code::kDamaged,
              fmt::format("{}: its compressed data is no cluster of {} bytes", what, out.size()));
}

}  // namespace lukskeep::storage::qcow2
