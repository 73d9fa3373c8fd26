// Turning into nbdkit with our plugin.
#pragma once

#include <string>
#include <vector>

#include <lukskeep/secret_bytes.h>

namespace lukskeep::cli {

// Where they are: nbdkit in PATH; the plugin beside this program, or where `make install` puts it.
// Throw Error{kNotFound} with what to install.
std::string find_nbdkit();
std::string find_nbdkit_plugin();

// A descriptor that survives exec and gives `key` once, from memory. `key` has at most
// limits::kVolumeKeyBytesMax bytes.
int pass_by_descriptor(const SecretBytes& key);

// Whether a service manager hands this process its listening sockets; whether one of them is TCP.
struct Activation {
  int sockets = 0;
  bool tcp = false;
};
Activation socket_activation();
// What follows listens by itself.
void forget_socket_activation();

// A folder that only this user enters, for a socket.
std::string make_private_folder();

// Makes room for a socket at `path`: removes one that nobody listens on any more. Throws
// Error{kBusy} if somebody does, {kExists} if it is something else, {kUsage} if `path` is too long.
void clear_socket(const std::string& path);

// Replaces this program; returns only by throwing Error{kIo}. Signals are as they were given to us,
// and as many descriptors as allowed may be opened.
[[noreturn]] void become(const std::string& program, std::vector<std::string> arguments);

}  // namespace lukskeep::cli
