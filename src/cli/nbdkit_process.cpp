#include "cli/nbdkit_process.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "storage/request.h"
#include "storage/unique_fd.h"

namespace lukskeep::cli {
namespace {

constexpr const char* kPluginFile = "nbdkit-lukskeep-plugin.so";
constexpr int kFirstActivatedFd = 3;  // sd_listen_fds(3)
constexpr int kActivatedFdsMax = 64;

int environment_number(const char* name) {
  const char* text = std::getenv(name);
  int number = -1;
  if (text != nullptr) std::from_chars(text, text + std::strlen(text), number);
  return number;
}

sockaddr_un socket_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    throw Error(Code::kUsage, fmt::format("'{}' is too long for a socket: {} bytes are the most",
                                          printable(path, 256), sizeof address.sun_path - 1));
  }
  std::memcpy(address.sun_path, path.c_str(), path.size());
  return address;
}

}  // namespace

std::string find_nbdkit() {
  const char* path = std::getenv("PATH");
  std::string_view rest = path != nullptr ? path : "/usr/bin:/bin";
  while (!rest.empty()) {
    const std::string_view folder = rest.substr(0, rest.find(':'));
    rest.remove_prefix(std::min(rest.size(), folder.size() + 1));
    const std::string program = fmt::format("{}/nbdkit", folder);
    if (!folder.empty() && access(program.c_str(), X_OK) == 0) return program;
  }
  throw Error(Code::kNotFound, "nbdkit is not installed, and it is what serves",
              "apt-get install nbdkit");
}

std::string find_nbdkit_plugin() {
  std::error_code ignored;
  const std::filesystem::path here =
      std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path();
  for (const std::filesystem::path& folder :
       {here, here.parent_path() / LUKSKEEP_LIBDIR / "nbdkit" / "plugins",
        std::filesystem::path(LUKSKEEP_NBDKIT_PLUGIN_DIR)}) {
    const std::filesystem::path plugin = folder / kPluginFile;
    if (std::filesystem::exists(plugin, ignored)) return plugin.string();
  }
  throw Error(Code::kNotFound,
              fmt::format("'{}' is not where this program or nbdkit's plugins are", kPluginFile),
              "install lukskeep whole");
}

int pass_by_descriptor(const SecretBytes& key) {
  std::array<int, 2> ends{};
  // A pipe holds 4096 bytes at least before anybody reads.
  if (pipe2(ends.data(), O_CLOEXEC) != 0) storage::throw_errno(errno, "cannot make a pipe");
  const storage::UniqueFd write_end(ends[1]);
  if (write(write_end.get(), key.data(), key.size()) != static_cast<ssize_t>(key.size()) ||
      fcntl(ends[0], F_SETFD, 0) != 0) {
    storage::throw_errno(errno, "cannot hand over the volume key");
  }
  return ends[0];
}

Activation socket_activation() {
  if (environment_number("LISTEN_PID") != getpid()) return {};
  Activation found{.sockets = std::clamp(environment_number("LISTEN_FDS"), 0, kActivatedFdsMax)};
  for (int fd = kFirstActivatedFd; fd < kFirstActivatedFd + found.sockets; ++fd) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
      storage::throw_errno(errno,
                           fmt::format("descriptor {}, as LISTEN_FDS says, is no socket", fd));
    }
    found.tcp = found.tcp || address.ss_family != AF_UNIX;
  }
  return found;
}

void forget_socket_activation() {
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) unsetenv(name);
}

std::string make_private_folder() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  // Not TMPDIR: a socket's path must be short.
  std::string folder = fmt::format(
      "{}/lukskeep-serve-XXXXXX",
      runtime != nullptr && *runtime == '/' && access(runtime, W_OK) == 0 ? runtime : "/tmp");
  if (mkdtemp(folder.data()) == nullptr) {
    storage::throw_errno(errno, fmt::format("cannot make the folder '{}'", printable(folder, 256)));
  }
  return folder;
}

void clear_socket(const std::string& path) {
  const sockaddr_un address = socket_address(path);
  struct stat status{};
  if (lstat(path.c_str(), &status) != 0) return;  // nothing there; anything else nbdkit reports
  if (!S_ISSOCK(status.st_mode)) {
    throw Error(Code::kExists, fmt::format("'{}' exists and is no socket", printable(path, 256)));
  }
  const storage::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // Refused: who listened is gone. Anything else (a full queue too) means that somebody does.
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ||
      errno != ECONNREFUSED) {
    throw Error(Code::kBusy, fmt::format("another program serves '{}'", printable(path, 256)),
                "stop it, or name another socket");
  }
  unlink(path.c_str());
}

void become(const std::string& program, std::vector<std::string> arguments) {
  signal(SIGPIPE, SIG_DFL);  // not ignored in what --run starts
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  std::vector<char*> words = {const_cast<char*>("nbdkit")};
  for (std::string& argument : arguments) words.push_back(argument.data());
  words.push_back(nullptr);
  execv(program.c_str(), words.data());
  storage::throw_errno(errno, fmt::format("cannot run '{}'", printable(program, 256)));
}

}  // namespace lukskeep::cli
