#include "storage/mapping_key.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"

namespace lukskeep::storage {
namespace {

constexpr const char* kControlPath = "/dev/mapper/control";
// The reply to a table of one segment: its parameters are a key in hex and some names.
constexpr std::size_t kReplyBytes = 16 * limits::kKiB;
constexpr std::string_view kCrypt = "crypt";
constexpr std::string_view kKeyringHint =
    "cryptsetup open --disable-keyring makes mappings whose key can be read";

std::string quoted(const std::string& name) {
  return fmt::format("the mapping '{}'", printable(name, 256));
}

// The value of a hex digit, -1 if it is none. Reads every digit in the same way.
int digit_value(std::byte digit) {
  const auto c = std::to_integer<unsigned>(digit);
  if (c >= '0' && c <= '9') return static_cast<int>(c - '0');
  const unsigned lower = c | 0x20U;
  return lower >= 'a' && lower <= 'f' ? static_cast<int>(lower - 'a' + 10) : -1;
}

class Control {
 public:
  explicit Control(const std::string& name) : fd_(open(kControlPath, O_RDWR | O_CLOEXEC)) {
    if (fd_ < 0) fail(name, errno);
  }
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;
  ~Control() { close(fd_); }

  // `reply` is zeroes, and gets the table with its keys.
  void read_table(const std::string& name, SecretBytes& reply) const {
    struct dm_ioctl request{};
    request.version[0] = DM_VERSION_MAJOR;
    request.data_size = static_cast<std::uint32_t>(reply.size());
    request.data_start = sizeof(request);
    request.flags = DM_STATUS_TABLE_FLAG | DM_SECURE_DATA_FLAG;
    std::ranges::copy(name, std::begin(request.name));
    std::memcpy(reply.data(), &request, sizeof(request));
    if (ioctl(fd_, DM_TABLE_STATUS, reply.data()) != 0) fail(name, errno);
  }

 private:
  [[noreturn]] static void fail(const std::string& name, int error_number) {
    const bool denied = error_number == EACCES || error_number == EPERM;
    const bool absent = error_number == ENXIO || error_number == ENOENT || error_number == ENODEV;
    throw Error(denied   ? Code::kPermissionDenied
                : absent ? Code::kNotFound
                         : Code::kIo,
                fmt::format("cannot read the table of {}: {}", quoted(name),
                            std::generic_category().message(error_number)),
                denied ? "root may" : "");
  }

  int fd_;
};

// The parameters of the only target, which is a crypt target.
ByteView crypt_parameters(const SecretBytes& reply, const std::string& name) {
  struct dm_ioctl answer{};
  struct dm_target_spec target{};
  std::memcpy(&answer, reply.data(), sizeof(answer));
  const bool fits = (answer.flags & DM_BUFFER_FULL_FLAG) == 0 && answer.target_count == 1 &&
                    answer.data_start <= reply.size() - sizeof(target);
  if (fits) std::memcpy(&target, reply.data() + answer.data_start, sizeof(target));
  const char* type = std::begin(target.target_type);
  if (!fits || std::string_view(type, strnlen(type, sizeof(target.target_type))) != kCrypt) {
    throw Error(Code::kUnsupported,
                fmt::format("{} is no dm-crypt mapping of one segment", quoted(name)));
  }
  const ByteView rest = reply.span().subspan(answer.data_start + sizeof(target));
  return rest.first(static_cast<std::size_t>(std::ranges::find(rest, std::byte{0}) - rest.begin()));
}

}  // namespace

SecretBytes parse_mapping_key(ByteView parameters, const std::string& name) {
  const std::byte space{' '};
  const auto start = std::ranges::find(parameters, space);
  const auto from = start == parameters.end() ? start : start + 1;
  const ByteView key(from, std::find(from, parameters.end(), space));
  if (!key.empty() && key.front() == std::byte{':'}) {
    throw Error(Code::kUnsupported,
                fmt::format("the kernel keeps the key of {} in a keyring, where nobody can read it",
                            quoted(name)),
                std::string(kKeyringHint));
  }
  const bool sane = !key.empty() && key.size() % 2 == 0 &&
                    key.size() / 2 <= limits::kVolumeKeyBytesMax &&
                    std::ranges::all_of(key, [](std::byte c) { return digit_value(c) >= 0; });
  if (!sane) {
    throw Error(Code::kDamaged, fmt::format("the table of {} has no key", quoted(name)));
  }
  SecretBytes bytes(key.size() / 2);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes.data()[i] =
        static_cast<std::byte>(digit_value(key[2 * i]) * 16 + digit_value(key[2 * i + 1]));
  }
  return bytes;
}

SecretBytes read_mapping_key(const std::string& name) {
  if (name.empty() || name.size() >= DM_NAME_LEN || name.find('/') != std::string::npos) {
    throw Error(Code::kInvalidArgument,
                fmt::format("'{}' is no name of a mapping", printable(name, 256)),
                "the name is what stands in /dev/mapper");
  }
  SecretBytes reply(kReplyBytes);
  Control(name).read_table(name, reply);
  return parse_mapping_key(crypt_parameters(reply, name), name);
}

}  // namespace lukskeep::storage
