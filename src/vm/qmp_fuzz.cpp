// What a monitor says, from its greeting on, to a client that attaches, lists and detaches a disk:
// taken as far as it makes sense, then refused with an Error. Bounded by the lines being bounded.
//
// The first byte of an input chooses what the client does; the rest is all that the other side ever
// says. It says it at once, whatever it is asked: answers need the numbers 1, 2, 3 ... as "id".
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/socket.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "vm/disk.h"
#include "vm/qmp.h"

namespace {

using namespace lukskeep;

constexpr std::size_t kInputBytesMax =
    std::size_t{64} * 1024;  // what a socket holds before anybody reads
// Each is followed by a pause when a node is to go.
constexpr std::size_t kErrorsMax = 10;
constexpr unsigned kTimeoutMs = 1000;

enum class Act : std::uint8_t { kList, kAttach, kExport, kDetach, kWait };
constexpr std::uint8_t kActs = 5;

vm::DiskRequest request_for(Act act) {
  vm::DiskRequest request{
      .id = "d", .payload = "/p", .header = "/h", .passphrase = as_byte_view("words")};
  if (act == Act::kExport) {
    request.device = "nbd";
    request.export_socket = "/s";
  }
  return request;
}

std::size_t count_of(std::string_view text, std::string_view word) {
  std::size_t count = 0;
  for (std::size_t at = text.find(word); at != std::string_view::npos;
       at = text.find(word, at + 1)) {
    ++count;
  }
  return count;
}

void check_disks(const std::vector<vm::AttachedDisk>& disks) {
  std::string last;
  for (const vm::AttachedDisk& disk : disks) {
    vm::check_disk_id(disk.id);
    if (!last.empty() && disk.id <= last) std::abort();
    last = disk.id;
  }
}

void talk(storage::UniqueFd socket, Act act) {
  vm::Qmp qmp = vm::Qmp::over(std::move(socket), "monitor", {.timeout_ms = kTimeoutMs});
  const auto is_control = [](char c) { return (c >= 0 && c < ' ') || c == '\x7f'; };
  if (std::ranges::any_of(qmp.version().package, is_control)) std::abort();
  switch (act) {
    case Act::kList:
      check_disks(vm::list_disks(qmp));
      vm::check_disk_id(vm::free_disk_id(qmp));
      break;
    case Act::kAttach:
    case Act::kExport:
      vm::attach_disk(qmp, request_for(act));
      break;
    case Act::kDetach:
      vm::detach_disk(qmp, "d", 0);
      break;
    case Act::kWait:
      qmp.wait_for_event([](const vm::QmpEvent& event) { return event.subject == "d"; },
                         kTimeoutMs);
      break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0 || size > kInputBytesMax) return 0;
  const std::string_view said = as_string_view(std::as_bytes(std::span(data, size))).substr(1);
  if (count_of(said, "error") > kErrorsMax) return 0;
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) != 0) {
    std::abort();
  }
  storage::UniqueFd ours(ends[0]);
  const storage::UniqueFd theirs(ends[1]);
  if (send(theirs.get(), said.data(), said.size(), MSG_NOSIGNAL) !=
          static_cast<ssize_t>(said.size()) ||
      shutdown(theirs.get(), SHUT_WR) != 0) {
    std::abort();
  }
  try {
    talk(std::move(ours), static_cast<Act>(data[0] % kActs));
  } catch (const Error& error) {
    if (error.code() == Code::kInternal || error.message().empty()) std::abort();
  }
  return 0;
}
