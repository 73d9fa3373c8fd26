// nbdkit-lukskeep-plugin: between nbdkit's C interface (nbdkit-plugin(3)) and Exports. No exception
// leaves a callback; each becomes a message and an errno by the one table of errors.
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fmt/format.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "net/service_notify.h"
#include "server/nbd/client_end.h"
#include "server/nbd/export.h"
#include "server/nbd/key_pipe.h"
#include "server/nbd/settings.h"
#include "server/nbd/system_log.h"
#include "storage/unique_fd.h"

namespace lukskeep::server {
namespace {

constexpr std::uint32_t kPreferredBlockBytes = 4096;
constexpr std::uint32_t kRequestBytesMax = 32 * limits::kMiB;  // what clients assume anyway

struct Plugin {
  SettingsParser parser;
  PluginSettings settings;
  std::vector<std::unique_ptr<Export>> exports;
  std::vector<std::unique_ptr<KeyPipe>> keys;  // of the exports
  std::unique_ptr<ClientEnd> client_end;
  std::atomic<std::size_t> connections = 0;
  bool serving = false;  // in this process
};

// From load to unload.
Plugin* g_plugin = nullptr;

int fail(const Error& error) {
  if (error.hint().empty()) {
    nbdkit_error("%s", error.message().c_str());
  } else {
    nbdkit_error("%s (%s)", error.message().c_str(), error.hint().c_str());
  }
  nbdkit_set_error(nbd_errno(error.code()));
  return -1;
}

// Runs `body`; 0, or -1 with what it threw reported.
template <typename Body>
int guarded(const Body& body) noexcept {
  try {
    body();
    return 0;
  } catch (const Error& error) {
    return fail(error);
  } catch (const std::bad_alloc&) {
    nbdkit_error("out of memory");
    nbdkit_set_error(ENOMEM);
  } catch (const std::exception& error) {
    nbdkit_error("internal error: %s", error.what());
    nbdkit_set_error(EIO);
  }
  return -1;
}

const Export& export_of(void* handle) { return *static_cast<const Export*>(handle); }
Device& device_of(void* handle) { return export_of(handle).device(); }

// Keys are about to come into this process: it leaves no core dump and cannot be traced.
void forbid_core_dumps() {
  const rlimit none{.rlim_cur = 0, .rlim_max = 0};
  setrlimit(RLIMIT_CORE, &none);
#ifndef __SANITIZE_ADDRESS__
  // The leak checker of AddressSanitizer has to trace the process.
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
}

// nbdkit asks on the terminal itself.
SecretBytes ask_password(const keys::PromptRequest& request) {
  nbdkit_debug("%s", request.text.c_str());
  char* password = nullptr;
  if (nbdkit_read_password("-", &password) != 0) {
    throw Error(Code::kUsage, fmt::format("cannot ask for the {}", request.text),
                "name a key source, e.g. key=file:PATH");
  }
  const auto bytes = std::as_writable_bytes(std::span(password, std::strlen(password)));
  SecretBytes key(bytes);
  wipe(bytes);
  std::free(password);  // NOLINT(cppcoreguidelines-no-malloc): of nbdkit
  return key;
}

// ---- from start to end
// ---------------------------------------------------------------------------

void load() { g_plugin = new Plugin; }  // NOLINT(cppcoreguidelines-owning-memory): until unload

void unload() {
  // Who sees the socket gone finds the volumes unlocked.
  g_plugin->exports.clear();
  if (g_plugin->serving && !g_plugin->settings.socket.empty()) {
    ::unlink(g_plugin->settings.socket.c_str());
    // The folder that was made for it alone; any other has something else in it, or a name that
    // somebody chose.
    const std::string folder =
        g_plugin->settings.socket.substr(0, g_plugin->settings.socket.rfind('/'));
    if (folder.find("/lukskeep-serve-") != std::string::npos) ::rmdir(folder.c_str());
  }
  delete g_plugin;  // NOLINT(cppcoreguidelines-owning-memory)
  g_plugin = nullptr;
}

int config(const char* key, const char* value) {
  return guarded([&] { g_plugin->parser.take(key, value); });
}

int config_complete() {
  return guarded([] { g_plugin->settings = g_plugin->parser.finish(); });
}

// Before nbdkit goes into the background, so that whoever started it sees what is wrong.
int get_ready() {
  return guarded([] {
    forbid_core_dumps();
    for (ExportSettings& settings : g_plugin->settings.exports) {
      // Before the key's descriptor is closed, whose number is free then.
      g_plugin->keys.push_back(std::make_unique<KeyPipe>());
      g_plugin->exports.push_back(std::make_unique<Export>(std::move(settings), ask_password));
      g_plugin->keys.back()->put(g_plugin->exports.back()->take_volume_keys());
    }
    g_plugin->settings.exports.clear();
  });
}

void announce() {
  const storage::UniqueFd fd(g_plugin->settings.announcement_fd);
  if (!fd.valid()) return;
  const std::string line = g_plugin->settings.announcement + "\n";
  if (::write(fd.get(), line.data(), line.size()) < 0) {
    nbdkit_debug("nobody reads that this is ready: %s", std::strerror(errno));
  }
}

int after_fork() {
  return guarded([] {
    // Not inherited by the process of --run, which is the parent.
    forbid_core_dumps();
    for (std::size_t i = 0; i < g_plugin->exports.size(); ++i) {
      g_plugin->exports[i]->activate(g_plugin->keys[i]->take());
    }
    g_plugin->keys.clear();
    if (g_plugin->settings.system_log) copy_errors_to_system_log();
    g_plugin->client_end = std::make_unique<ClientEnd>();
    g_plugin->serving = true;
    announce();
    net::notify_service_manager("READY=1");
  });
}

// All clients are gone.
void cleanup() {
  if (!g_plugin->serving) return;
  g_plugin->client_end.reset();
  net::notify_service_manager("STOPPING=1");
  for (const auto& exported : g_plugin->exports) {
    static_cast<void>(guarded([&] { exported->device().flush(); }));
  }
}

// ---- connections
// ---------------------------------------------------------------------------------

const Export* find_export(std::string_view name) {
  for (const auto& exported : g_plugin->exports) {
    if (exported->settings().name == name) return exported.get();
  }
  return nullptr;
}

int list_exports(int, int, nbdkit_exports* exports) {
  for (const auto& exported : g_plugin->exports) {
    if (nbdkit_add_export(exports, exported->settings().name.c_str(), nullptr) != 0) return -1;
  }
  return 0;
}

// Who names none gets the only or first one.
const char* default_export(int, int) {
  return find_export("") != nullptr ? "" : g_plugin->exports.front()->settings().name.c_str();
}

void* open(int) {
  const Export* found = nullptr;
  static_cast<void>(guarded([&] {
    const std::string_view name = nbdkit_export_name();
    const Export* wanted = find_export(name);
    if (wanted == nullptr) {
      throw Error(Code::kNotFound, fmt::format("there is no export '{}'", printable(name)));
    }
    const std::size_t max = g_plugin->settings.connections_max != 0
                                ? g_plugin->settings.connections_max
                                : limits::kServeConnectionsDefault;
    if (g_plugin->connections.fetch_add(1) >= max) {
      --g_plugin->connections;
      throw Error(Code::kBusy, fmt::format("{} connections are open already", max));
    }
    found = wanted;
  }));
  return const_cast<Export*>(found);
}

void close(void*) { --g_plugin->connections; }

// ---- what a volume can do
// ------------------------------------------------------------------------

std::int64_t get_size(void* handle) {
  return static_cast<std::int64_t>(device_of(handle).size_bytes());
}

int block_size(void* handle, std::uint32_t* minimum, std::uint32_t* preferred,
               std::uint32_t* maximum) {
  *minimum = 1;
  *preferred = std::max(kPreferredBlockBytes, device_of(handle).block_size_bytes());
  *maximum = kRequestBytesMax;
  return 0;
}

int can_write(void* handle) { return device_of(handle).writable() ? 1 : 0; }
// One device for all connections: what one flushes is durable for all.
int can_multi_conn(void*) { return 1; }
int can_trim(void* handle) { return export_of(handle).settings().discard == Discard::kOff ? 0 : 1; }
int can_zero(void*) { return 1; }
int can_zeroes_mode(void* handle) {
  return export_of(handle).settings().discard == Discard::kZeroes ? 1 : 0;
}

// ---- requests
// ------------------------------------------------------------------------------------

int pread(void* handle, void* buffer, std::uint32_t count, std::uint64_t offset, std::uint32_t) {
  return guarded([&] { device_of(handle).read(offset, {static_cast<std::byte*>(buffer), count}); });
}

int pwrite(void* handle, const void* buffer, std::uint32_t count, std::uint64_t offset,
           std::uint32_t) {
  return guarded(
      [&] { device_of(handle).write(offset, {static_cast<const std::byte*>(buffer), count}); });
}

int flush(void* handle, std::uint32_t) {
  return guarded([&] { device_of(handle).flush(); });
}

int trim(void* handle, std::uint32_t count, std::uint64_t offset, std::uint32_t) {
  return guarded([&] { device_of(handle).discard(offset, count); });
}

int zero(void* handle, std::uint32_t count, std::uint64_t offset, std::uint32_t flags) {
  // Only sectors that may become holes are quicker to zero than to write.
  const bool punch = can_zeroes_mode(handle) != 0 && (flags & NBDKIT_FLAG_MAY_TRIM) != 0;
  if ((flags & NBDKIT_FLAG_FAST_ZERO) != 0 && !punch) {
    nbdkit_set_error(EOPNOTSUPP);
    return -1;
  }
  return guarded([&] {
    device_of(handle).write_zeroes(offset, count, punch ? ZeroMode::kPunch : ZeroMode::kAllocate);
  });
}

int extents(void* handle, std::uint32_t count, std::uint64_t offset, std::uint32_t flags,
            nbdkit_extents* answer) {
  return guarded([&] {
    // A part of what was asked for is an answer too, and bounds the memory.
    const std::uint64_t length = std::min<std::uint64_t>(count, limits::kMapBytes);
    for (const Extent& extent : device_of(handle).extents(offset, length)) {
      const std::uint32_t type = extent.zero ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO : 0;
      if (nbdkit_add_extent(answer, extent.offset_bytes, extent.length_bytes, type) != 0) {
        throw Error(Code::kInternal, "nbdkit refuses the map of the volume");
      }
      if ((flags & NBDKIT_FLAG_REQ_ONE) != 0) break;
    }
  });
}

constexpr const char* kConfigHelp =
    "[file=]PATH               the volume, or its payload (required)\n"
    "key=SOURCE                file:PATH, fd:N, prompt:, volume-key:PATH (required)\n"
    "header=PATH               a detached header\n"
    "readonly=true             clients cannot write\n"
    "discard=off|on|zeroes     what becomes of requests to trim\n"
    "allow-insecure=true       accept volumes that are not encrypted\n"
    "allow-backing=true        qcow2: read the backing files that an image names\n"
    "backing-key=SOURCE        of an encrypted backing file, from the top; may be repeated\n"
    "allow-data-file=true      qcow2: read the data file that an image names\n"
    "export=NAME               begins one more volume, with parameters of its own\n"
    "connections=N             at a time; more are refused\n"
    "system-log=true           messages go to the system log too";

nbdkit_plugin make_plugin() {
  nbdkit_plugin plugin{};
  plugin.name = "lukskeep";
  plugin.longname = "LUKS volumes";
  plugin.version = LUKSKEEP_VERSION;
  plugin.description = "serves the plain contents of LUKS1 and LUKS2 volumes";
  plugin.magic_config_key = "file";
  plugin.config_help = kConfigHelp;
  plugin.load = load;
  plugin.unload = unload;
  plugin.config = config;
  plugin.config_complete = config_complete;
  plugin.get_ready = get_ready;
  plugin.after_fork = after_fork;
  plugin.cleanup = cleanup;
  plugin.list_exports = list_exports;
  plugin.default_export = default_export;
  plugin.open = open;
  plugin.close = close;
  plugin.get_size = get_size;
  plugin.block_size = block_size;
  plugin.can_write = can_write;
  plugin.can_multi_conn = can_multi_conn;
  plugin.can_trim = can_trim;
  plugin.can_zero = can_zero;
  plugin.can_fast_zero = can_zeroes_mode;
  plugin.can_extents = can_zeroes_mode;
  plugin.pread = pread;
  plugin.pwrite = pwrite;
  plugin.flush = flush;
  plugin.trim = trim;
  plugin.zero = zero;
  plugin.extents = extents;
  return plugin;
}

nbdkit_plugin g_callbacks = make_plugin();

}  // namespace
}  // namespace lukskeep::server

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
NBDKIT_REGISTER_PLUGIN(lukskeep::server::g_callbacks)
