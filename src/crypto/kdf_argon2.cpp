#include "crypto/kdf_argon2.h"

#include <algorithm>

#include <argon2.h>
#include <fmt/format.h>
#include <sys/mman.h>

#include <lukskeep/error.h>

#include "crypto/kdf_memory.h"

namespace lukskeep::crypto {
namespace {

// libargon2 asks for its whole memory once and hands it back once, with the same size.
int map_memory(std::uint8_t** memory, std::size_t size_bytes) {
  void* const mapped =
      mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return ARGON2_MEMORY_ALLOCATION_ERROR;
  // Best effort both: huge pages save most page faults and TLB misses.
  static_cast<void>(madvise(mapped, size_bytes, MADV_HUGEPAGE));
  static_cast<void>(madvise(mapped, size_bytes, MADV_DONTDUMP));
  *memory = static_cast<std::uint8_t*>(mapped);
  return ARGON2_OK;
}

// libargon2 has wiped the memory before it calls this.
void unmap_memory(std::uint8_t* memory, std::size_t size_bytes) { munmap(memory, size_bytes); }

[[noreturn]] void throw_out_of_memory(const KdfCost& cost, const std::string& there_is) {
  throw Error(Code::kOutOfMemory,
              fmt::format("{} needs {} MiB of memory{}", kdf_name(cost.type),
                          (std::uint64_t{cost.memory_kib} + 1023) / 1024, there_is),
              "free some memory or add swap; or, on a machine with more memory, give the keyslot "
              "a smaller memory cost");
}

// The kernel promises memory that it does not have, and then kills the process that uses it.
void check_memory(const KdfCost& cost) {
  const std::uint64_t available_kib = available_memory_kib();
  if (cost.memory_kib > available_kib) {
    throw_out_of_memory(cost, fmt::format(", {} MiB are available", available_kib / 1024));
  }
}

// libargon2 takes mutable pointers; it writes through them only if flags tell it to wipe.
std::uint8_t* as_input(ByteView bytes) {
  return reinterpret_cast<std::uint8_t*>(const_cast<std::byte*>(bytes.data()));
}

}  // namespace

void argon2(const KdfCost& cost, ByteView passphrase, ByteView salt, MutableBytes out,
            unsigned threads) {
  check_memory(cost);
  argon2_context context{};
  context.out = reinterpret_cast<std::uint8_t*>(out.data());
  context.outlen = static_cast<std::uint32_t>(out.size());
  context.pwd = as_input(passphrase);
  context.pwdlen = static_cast<std::uint32_t>(passphrase.size());
  context.salt = as_input(salt);
  context.saltlen = static_cast<std::uint32_t>(salt.size());
  context.t_cost = cost.iterations;
  context.m_cost = cost.memory_kib;
  context.lanes = cost.parallel;
  context.threads = std::clamp(threads, 1U, cost.parallel);
  context.version = ARGON2_VERSION_13;
  context.allocate_cbk = map_memory;
  context.free_cbk = unmap_memory;
  context.flags = ARGON2_DEFAULT_FLAGS;
  const int result = argon2_ctx(&context, cost.type == KdfType::kArgon2i ? Argon2_i : Argon2_id);
  if (result == ARGON2_MEMORY_ALLOCATION_ERROR) throw_out_of_memory(cost, ", which is refused");
  if (result == ARGON2_THREAD_FAIL) {
    throw Error(Code::kOutOfMemory, "the system refuses the threads that argon2 needs");
  }
  if (result != ARGON2_OK) {
    throw Error(Code::kInternal,
                fmt::format("{} failed: {}", kdf_name(cost.type), argon2_error_message(result)));
  }
}

}  // namespace lukskeep::crypto
