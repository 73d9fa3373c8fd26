#include "server/nbd/key_pipe.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>

#include <fcntl.h>
#include <unistd.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "storage/request.h"

namespace lukskeep::server {
namespace {

using Length = std::uint16_t;
static_assert(limits::kVolumeKeyBytesMax <= UINT16_MAX);
// What pipe(7) promises to hold before a write blocks: 16 pages of 4096 bytes.
constexpr std::size_t kPipeBytes = 65'536;
static_assert(limits::kQcow2ChainMax * (sizeof(Length) + limits::kVolumeKeyBytesMax) <= kPipeBytes);
// Then each write is whole or fails.
static_assert(sizeof(Length) + limits::kVolumeKeyBytesMax <= PIPE_BUF);

void check(ssize_t done, std::size_t wanted) {
  if (done < 0) storage::throw_errno(errno, "cannot hand over a volume key");
  if (static_cast<std::size_t>(done) != wanted) {
    throw Error(Code::kInternal, "a volume key was lost on its way");
  }
}

}  // namespace

KeyPipe::KeyPipe() {
  int ends[2] = {-1, -1};
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) storage::throw_errno(errno, "cannot make a pipe");
  read_end_ = storage::UniqueFd(ends[0]);
  write_end_ = storage::UniqueFd(ends[1]);
}

void KeyPipe::put(const std::vector<SecretBytes>& keys) {
  for (const SecretBytes& key : keys) {
    SecretBytes framed(sizeof(Length) + key.size());
    store_le(framed.data(), static_cast<Length>(key.size()));
    std::copy_n(key.data(), key.size(), framed.data() + sizeof(Length));
    check(write(write_end_.get(), framed.data(), framed.size()), framed.size());
  }
  keys_ = keys.size();
}

std::vector<SecretBytes> KeyPipe::take() {
  std::vector<SecretBytes> keys;
  while (keys.size() < keys_) {
    std::byte length[sizeof(Length)];
    check(read(read_end_.get(), length, sizeof length), sizeof length);
    SecretBytes& key = keys.emplace_back(load_le<Length>(length));
    check(read(read_end_.get(), key.data(), key.size()), key.size());
  }
  return keys;
}

}  // namespace lukskeep::server
