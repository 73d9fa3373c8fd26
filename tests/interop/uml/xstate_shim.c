/*
 * Preloaded into the User-Mode Linux kernel, so that it runs on processors with a large XSAVE area.
 *
 * UML 6.1 keeps the floating-point state of each of its processes in a field of fixed size, made
 * for AVX-512. It reads and writes that state with ptrace(PTRACE_GETREGSET / PTRACE_SETREGSET,
 * NT_X86_XSTATE). A host whose processor has AMX hands out more bytes than fit and refuses to take
 * fewer, upon which UML panics at boot. Here the calls go to the host with a buffer that is large
 * enough, UML sees the front part of it, and the tile state, which nothing inside UML can have
 * used, is marked as unused.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define XSTATE_BV_OFFSET 512
#define XFEATURES_AMX (UINT64_C(3) << 17)

static long host_ptrace(long request, long pid, void* addr, void* data) {
  return syscall(SYS_ptrace, request, pid, addr, data);
}

/* How many bytes of state this host has for `pid`, which are left in `area`. */
static long fetch(long pid, unsigned char* area, size_t size) {
  struct iovec io = {area, size};
  long status = host_ptrace(PTRACE_GETREGSET, pid, (void*)NT_X86_XSTATE, &io);
  return status < 0 ? status : (long)io.iov_len;
}

static long get_state(long pid, struct iovec* wanted) {
  static unsigned char area[1 << 16] __attribute__((aligned(64)));
  long have = fetch(pid, area, sizeof area);
  if (have < 0) return have;
  if (wanted->iov_len > (size_t)have) wanted->iov_len = (size_t)have;
  memcpy(wanted->iov_base, area, wanted->iov_len);
  return 0;
}

static long set_state(long pid, const struct iovec* given) {
  static unsigned char area[1 << 16] __attribute__((aligned(64)));
  long have = fetch(pid, area, sizeof area);
  if (have < 0) return have;
  size_t length = given->iov_len < (size_t)have ? given->iov_len : (size_t)have;
  memset(area, 0, (size_t)have);
  memcpy(area, given->iov_base, length);
  uint64_t present;
  memcpy(&present, area + XSTATE_BV_OFFSET, sizeof present);
  present &= ~XFEATURES_AMX;
  memcpy(area + XSTATE_BV_OFFSET, &present, sizeof present);
  struct iovec io = {area, (size_t)have};
  return host_ptrace(PTRACE_SETREGSET, pid, (void*)NT_X86_XSTATE, &io);
}

long ptrace(enum __ptrace_request request, ...) {
  va_list arguments;
  va_start(arguments, request);
  long pid = va_arg(arguments, int);
  void* addr = va_arg(arguments, void*);
  void* data = va_arg(arguments, void*);
  va_end(arguments);

  if ((long)addr == NT_X86_XSTATE && request == PTRACE_GETREGSET) return get_state(pid, data);
  if ((long)addr == NT_X86_XSTATE && request == PTRACE_SETREGSET) return set_state(pid, data);
  if (request < PTRACE_PEEKTEXT || request > PTRACE_PEEKUSER)
    return host_ptrace(request, pid, addr, data);

  /* The C library returns what a peek reads, the system call stores it. */
  long word = 0;
  if (host_ptrace(request, pid, addr, &word) < 0) return -1;
  errno = 0;
  return word;
}
