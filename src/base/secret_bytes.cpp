#include <lukskeep/secret_bytes.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include <sys/mman.h>
#include <unistd.h>

#include <lukskeep/error.h>

namespace lukskeep {
namespace {

std::size_t round_to_pages(std::size_t size_bytes) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  if (size_bytes > SIZE_MAX - page) return 0;
  return (size_bytes + page - 1) / page * page;
}

}  // namespace

SecretBytes::SecretBytes(std::size_t size_bytes) {
  if (size_bytes == 0) return;
  const std::size_t mapped = round_to_pages(size_bytes);
  void* memory = mapped == 0 ? MAP_FAILED
                             : mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(Code::kOutOfMemory,
                "cannot get " + std::to_string(size_bytes) + " bytes of memory for a secret");
  }
  // All three are best effort: RLIMIT_MEMLOCK may be small, and old kernels lack the advice.
  static_cast<void>(madvise(memory, mapped, MADV_DONTDUMP));
  static_cast<void>(madvise(memory, mapped, MADV_WIPEONFORK));
  static_cast<void>(mlock(memory, mapped));
  data_ = static_cast<std::byte*>(memory);
  size_ = size_bytes;
  mapped_bytes_ = mapped;
}

SecretBytes::SecretBytes(std::span<const std::byte> bytes) : SecretBytes(bytes.size()) {
  std::ranges::copy(bytes, data_);
}

SecretBytes::SecretBytes(SecretBytes&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_bytes_(std::exchange(other.mapped_bytes_, 0)) {}

SecretBytes& SecretBytes::operator=(SecretBytes&& other) noexcept {
  if (this != &other) {
    release();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    mapped_bytes_ = std::exchange(other.mapped_bytes_, 0);
  }
  return *this;
}

SecretBytes::~SecretBytes() { release(); }

SecretBytes SecretBytes::clone() const { return SecretBytes(span()); }

void SecretBytes::truncate(std::size_t size_bytes) {
  if (size_bytes >= size_) return;
  wipe({data_ + size_bytes, size_ - size_bytes});
  size_ = size_bytes;
}

void SecretBytes::release() noexcept {
  if (data_ == nullptr) return;
  wipe({data_, mapped_bytes_});
  munmap(data_, mapped_bytes_);
  data_ = nullptr;
  size_ = 0;
  mapped_bytes_ = 0;
}

bool equal_constant_time(std::span<const std::byte> a, std::span<const std::byte> b) noexcept {
  if (a.size() != b.size()) return false;
  volatile unsigned char difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference = static_cast<unsigned char>(difference | std::to_integer<unsigned>(a[i] ^ b[i]));
  }
  return difference == 0;
}

void wipe(std::span<std::byte> bytes) noexcept {
  if (!bytes.empty()) explicit_bzero(bytes.data(), bytes.size());
}

}  // namespace lukskeep
