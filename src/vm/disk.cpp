#include "vm/disk.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "keys/secret_text.h"
#include "storage/memory_file.h"
#include "storage/request.h"
#include "storage/unique_fd.h"
#include "vm/json_member.h"
#include "vm/qemu_key.h"

namespace lukskeep::vm {
namespace {

constexpr std::size_t kIdBytesMax = 20;  // of a node's 31 there are 11 left for lk. and .payload
constexpr std::string_view kPrefix = "lk.";
constexpr std::int64_t kDetachedSince = 9;
constexpr int kDiskIdsMax = 10'000;
// A node is let go a moment after its device is reported gone.
constexpr std::chrono::milliseconds kLetGoTime{3000};
constexpr std::chrono::milliseconds kLetGoPause{50};
constexpr std::chrono::milliseconds kUnplugAgainPause{1000};
// Above this, QEMU looks for the node in use.
constexpr std::array<std::string_view, 6> kNodes = {"luks",   "nbd",     "raw",
                                                    "header", "payload", "server"};
constexpr const char* kPeripherals = "/machine/peripheral";
// A node that gives nothing: it says that the daemon's NBD server was started for this disk.
constexpr const char* kServerMark = "server";
constexpr std::int64_t kServerMarkBytes = 512;

std::string name_of(std::string_view id, std::string_view part) {
  return fmt::format("{}{}.{}", kPrefix, id, part);
}

bool is_storage_daemon(const Qmp& qmp) { return !qmp.has("device_add"); }

// What has been done, to be undone from the end.
class Steps {
 public:
  explicit Steps(Qmp& qmp) : qmp_(&qmp) {}

  Json perform(const std::string& command, const Json& arguments, const std::string& undo,
               const Json& undo_arguments, int fd = -1) {
    return perform([&] { return qmp_->execute(command, arguments, fd); }, undo, undo_arguments);
  }
  Json perform(const std::function<Json()>& step, const std::string& undo,
               const Json& undo_arguments) {
    try {
      Json result = step();
      undo_.push_back({undo, undo_arguments});
      return result;
    } catch (const Error& error) {
      if (unanswered(error)) undo_.push_back({undo, undo_arguments, true});
      throw;
    }
  }
  std::size_t size() const { return undo_.size(); }
  // What was done for the steps in between only, the last first.
  void undo_now(std::size_t first, std::size_t count) {
    while (count-- > 0) {
      Undo& step = undo_[first + count];
      try {
        qmp_->execute(step.command, step.arguments);
      } catch (const Error& error) {
        step.perhaps = unanswered(error);
        throw;
      }
      undo_.erase(undo_.begin() + static_cast<std::ptrdiff_t>(first + count));
    }
  }

  [[noreturn]] void roll_back(const Error& error) {
    qmp_->ignore_cancel();
    std::string left;
    for (; !undo_.empty(); undo_.pop_back()) {
      const Undo& step = undo_.back();
      try {
        if (qmp_->usable()) qmp_->execute(step.command, step.arguments);
        if (qmp_->usable()) continue;
        left += fmt::format("; {} of {} could not be tried", step.command, subject(step));
      } catch (const Error& failure) {
        if (step.perhaps) continue;
        left += fmt::format("; undoing that failed: {} of {}: {}", step.command, subject(step),
                            failure.message());
      }
    }
    throw Error(error.code(), error.message() + left, error.hint());
  }

 private:
  struct Undo {
    std::string command;
    Json arguments;
    bool perhaps = false;  // it is not known whether there is anything to undo
  };
  // Without an answer nobody knows whether it was done.
  bool unanswered(const Error& error) const {
    return error.code() == Code::kTimeout || error.code() == Code::kInterrupted || !qmp_->usable();
  }
  static std::string subject(const Undo& step) {
    const auto first = step.arguments.begin();
    return first == step.arguments.end() ? "it" : fmt::format("'{}'", printable(first->dump()));
  }

  Qmp* qmp_;
  std::vector<Undo> undo_;
};

Json secret_object(const std::string& name) { return {{"qom-type", "secret"}, {"id", name}}; }

// The master key goes over as a descriptor, which QEMU reads as one of its own files.
void give_master_key(Qmp& qmp, Steps& steps, const std::string& name, const SecretBytes& key) {
  const storage::UniqueFd file = storage::memory_file(key.span());
  const Json added = qmp.execute("add-fd", Json::object(), file.get());
  const Json set = {{"fdset-id", number_member(added, "fdset-id")}};
  const std::size_t first = steps.size();
  steps.perform([&added] { return Json(added); }, "remove-fd", set);
  Json object = secret_object(name);
  object["file"] = fmt::format("/proc/self/fd/{}", number_member(added, "fd"));
  steps.perform("object-add", object, "object-del", {{"id", name}});
  steps.undo_now(first, 1);
  if (ftruncate(file.get(), 0) != 0) {
    storage::throw_errno(errno, "cannot take the key of the secret back");
  }
}

// Leaves the secret lk.ID.key in QEMU; `steps` has what takes it away.
KeyTransfer give_key(Qmp& qmp, Steps& steps, const DiskRequest& request) {
  const std::string name = name_of(request.id, "key");
  if (qmp.has("add-fd")) {
    const std::string master = name_of(request.id, "master");
    const SealedPassphrase sealed = seal_passphrase(request.passphrase);
    give_master_key(qmp, steps, master, sealed.master_key);
    Json object = secret_object(name);
    object.update(
        {{"keyid", master}, {"iv", sealed.iv}, {"data", sealed.data}, {"format", "base64"}});
    steps.perform("object-add", object, "object-del", {{"id", name}});
    return KeyTransfer::kSealed;
  }
  // A storage daemon takes no descriptors: the kernel carries the key between two processes.
  keys::SecretText text;
  text.add(fmt::format(R"({{"qom-type":"secret","id":"{}","format":"base64","data":")", name));
  text.add_base64(request.passphrase).add("\"}");
  const SecretBytes object = text.take();
  steps.perform([&] { return qmp.execute_secret("object-add", object); }, "object-del",
                {{"id", name}});
  return KeyTransfer::kPlain;
}

void add_node(Steps& steps, const Json& node) {
  steps.perform("blockdev-add", node, "blockdev-del", {{"node-name", node["node-name"]}});
}

Json file_node(const DiskRequest& request, std::string_view part, const std::string& path) {
  struct stat status{};
  const bool device = stat(path.c_str(), &status) == 0 && S_ISBLK(status.st_mode);
  return {{"node-name", name_of(request.id, part)},
          {"driver", device ? "host_device" : "file"},
          {"filename", path},
          {"read-only", request.read_only}};
}

// The node that gives the decrypted contents.
std::string add_nodes(Qmp& qmp, Steps& steps, const DiskRequest& request, KeyTransfer& transfer) {
  const auto name = [&](std::string_view part) { return name_of(request.id, part); };
  if (!request.nbd_socket.empty()) {
    add_node(steps, {{"node-name", name("nbd")},
                     {"driver", "nbd"},
                     {"server", {{"type", "unix"}, {"path", request.nbd_socket}}},
                     {"export", request.nbd_export},
                     {"read-only", request.read_only}});
    return name("nbd");
  }
  Json luks = {{"node-name", name("luks")},
               {"driver", "luks"},
               {"file", name("payload")},
               {"key-secret", name("key")},
               {"read-only", request.read_only}};
  add_node(steps, file_node(request, "payload", request.payload));
  if (!request.header.empty()) {
    add_node(steps, file_node(request, "header", request.header));
    add_node(steps, {{"node-name", name("raw")},
                     {"driver", "raw"},
                     {"file", name("payload")},
                     {"read-only", request.read_only}});
    luks["file"] = name("raw");
    luks["header"] = name("header");
  }
  const std::size_t first = steps.size();
  transfer = give_key(qmp, steps, request);
  const std::size_t count = steps.size() - first;
  add_node(steps, luks);
  steps.undo_now(first, count);
  return name("luks");
}

// No disk of ours can be called so: their names have no '.'.
std::string controller_of(const std::string& id) { return id + ".bus"; }

void plug(Steps& steps, const DiskRequest& request, const std::string& node) {
  std::string driver = request.device.empty() ? "virtio-blk-pci" : request.device;
  std::string bus = request.bus;
  if (driver == "virtio-scsi") {
    const std::string controller = controller_of(request.id);
    Json device = {{"driver", "virtio-scsi-pci"}, {"id", controller}};
    if (!bus.empty()) device["bus"] = bus;
    steps.perform("device_add", device, "device_del", {{"id", controller}});
    driver = "scsi-hd";
    bus = controller + ".0";
  }
  Json device = {{"driver", driver}, {"id", request.id}, {"drive", node}};
  // What drives one guest's disk has a serial number, which the guest finds it by.
  if (driver.starts_with("virtio-blk") || driver.starts_with("scsi-")) {
    device["serial"] = request.id;
  }
  if (!bus.empty()) device["bus"] = bus;
  steps.perform("device_add", device, "device_del", {{"id", request.id}});
}

bool starts_server(const DiskRequest& request) {
  return request.device == "nbd" && !request.export_socket.empty();
}

void export_it(Steps& steps, const DiskRequest& request, const std::string& node) {
  const std::string kind = request.device.empty() ? "vhost-user-blk" : request.device;
  const bool nbd = kind == "nbd";
  if (starts_server(request)) {
    steps.perform("nbd-server-start",
                  {{"addr", {{"type", "unix"}, {"data", {{"path", request.export_socket}}}}}},
                  "nbd-server-stop", Json::object());
    add_node(steps, {{"node-name", name_of(request.id, kServerMark)},
                     {"driver", "null-co"},
                     {"size", kServerMarkBytes},
                     {"read-only", true}});
  }
  Json arguments = {
      {"type", kind}, {"id", request.id}, {"node-name", node}, {"writable", !request.read_only}};
  if (nbd) {
    arguments["name"] = request.id;
  } else {
    arguments["addr"] = {{"type", "unix"}, {"path", request.export_socket}};
  }
  steps.perform("block-export-add", arguments, "block-export-del", {{"id", request.id}});
}

void check_request(const Qmp& qmp, const DiskRequest& request) {
  check_disk_id(request.id);
  if (!request.header.empty() && qmp.version().major < kDetachedSince) {
    throw Error(Code::kUnsupported,
                fmt::format("QEMU {}.{} behind '{}' knows no detached headers, {} and later do",
                            qmp.version().major, qmp.version().minor, qmp.name(), kDetachedSince),
                "--via nbd gives it the decrypted contents instead");
  }
  if (!is_storage_daemon(qmp)) {
    if (request.export_socket.empty()) return;
    throw Error(Code::kUsage, "--export-socket is for a storage daemon, and this is a machine");
  }
  if (!request.device.empty() && request.device != "nbd" && request.device != "vhost-user-blk") {
    throw Error(Code::kUsage,
                fmt::format("'{}' is a storage daemon, which has no device '{}'", qmp.name(),
                            printable(request.device)),
                "it exports: --device vhost-user-blk or nbd, with --export-socket PATH");
  }
  if (request.export_socket.empty() && request.device != "nbd") {
    throw Error(
        Code::kUsage,
        fmt::format("'{}' is a storage daemon, which needs to know where to export", qmp.name()),
        "add --export-socket PATH");
  }
}

// ID and part of a node of ours.
struct OwnNode {
  std::string id;
  std::string part;
};
std::optional<OwnNode> own_node(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  const std::size_t dot = name.find('.');
  if (dot == std::string_view::npos) return std::nullopt;
  OwnNode node{.id = std::string(name.substr(0, dot)), .part = std::string(name.substr(dot + 1))};
  if (std::ranges::find(kNodes, node.part) == kNodes.end()) return std::nullopt;
  try {
    check_disk_id(node.id);
  } catch (const Error&) {
    return std::nullopt;
  }
  return node;
}

Json all_nodes(Qmp& qmp) { return qmp.execute("query-named-block-nodes", {{"flat", true}}); }

// What guests and clients see: name -> kind.
std::map<std::string, std::string> all_devices(Qmp& qmp) {
  std::map<std::string, std::string> devices;
  if (is_storage_daemon(qmp)) {
    for (const Json& one : qmp.execute("query-block-exports")) {
      devices[text_member(one, "id")] = text_member(one, "type");
    }
    return devices;
  }
  for (const Json& one : qmp.execute("qom-list", {{"path", kPeripherals}})) {
    const std::string type = text_member(one, "type");
    if (!type.starts_with("child<") || !type.ends_with('>')) continue;
    devices[text_member(one, "name")] = type.substr(6, type.size() - 7);
  }
  return devices;
}

// Asked for beforehand, since a server that runs already refuses a second start: if that answer is
// late, undoing the start would end the exports of whoever has the server.
void check_server_stands_still(Qmp& qmp) {
  std::string user;
  for (const auto& [id, kind] : all_devices(qmp)) {
    if (kind == "nbd") user = id;
  }
  for (const Json& one : all_nodes(qmp)) {
    const std::optional<OwnNode> node = own_node(text_member(one, "node-name"));
    if (node && node->part == kServerMark) user = node->id;
  }
  if (user.empty()) return;
  throw Error(Code::kBusy,
              fmt::format("the NBD server of '{}' runs for '{}'", qmp.name(), printable(user)),
              fmt::format("leave --export-socket out to export there too, or detach '{}' first",
                          printable(user)));
}

std::set<std::string> parts_of(Qmp& qmp, const std::string& id) {
  std::set<std::string> parts;
  for (const Json& one : all_nodes(qmp)) {
    const std::optional<OwnNode> node = own_node(text_member(one, "node-name"));
    if (node && node->id == id) parts.insert(node->part);
  }
  return parts;
}

// What QEMU says against it, if it does: while the guest is at it already, for one.
std::optional<Error> ask_to_unplug(Qmp& qmp, const std::string& device) {
  try {
    qmp.execute("device_del", {{"id", device}});
  } catch (const Error& error) {
    if (error.code() == Code::kNotFound) return std::nullopt;  // gone just now
    if (error.code() != Code::kRemote || !qmp.usable()) throw;
    return error;
  }
  return std::nullopt;
}

// True when it is gone.
bool wait_until_unplugged(Qmp& qmp, const std::string& device, std::chrono::milliseconds time) {
  bool kept = false;
  const bool told = qmp.wait_for_event(
      [&](const QmpEvent& event) {
        if (event.subject != device) return false;
        kept = event.name == "DEVICE_UNPLUG_GUEST_ERROR";
        return kept || event.name == "DEVICE_DELETED";
      },
      static_cast<std::uint32_t>(time.count()));
  if (kept) {
    throw Error(Code::kBusy, fmt::format("the guest does not give up '{}'", device),
                "unmount it there");
  }
  return told || !all_devices(qmp).contains(device);
}

void unplug(Qmp& qmp, const std::string& device, std::uint32_t timeout_ms) {
  using std::chrono::steady_clock;
  const auto end = steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  for (;;) {
    const std::optional<Error> refusal = ask_to_unplug(qmp, device);
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - steady_clock::now());
    left = std::max(left, std::chrono::milliseconds(0));
    // What was not refused is not asked for again: two presses of a slot's button are none.
    if (wait_until_unplugged(qmp, device, refusal ? std::min(left, kUnplugAgainPause) : left)) {
      return;
    }
    if (refusal && left > kUnplugAgainPause) continue;
    if (refusal) throw Error(*refusal);
    throw Error(Code::kTimeout,
                fmt::format("the guest has not given up '{}' within {:g} s", device,
                            static_cast<double>(timeout_ms) / 1000),
                "a guest that is not up, or is paused, answers later: run 'vm detach' again then");
  }
}

// Anybody may call an export `id` once ours has gone; it is ours as long as it gives a node of
// ours.
bool is_export_of(const Json& one, const std::string& id) {
  if (text_member(one, "id") != id) return false;
  const std::optional<OwnNode> node = own_node(text_member(one, "node-name"));
  return node && node->id == id;
}

// The daemon has one NBD server for all exports: they would end with it.
void check_server_unused(Qmp& qmp, const std::string& id) {
  for (const Json& one : qmp.execute("query-block-exports")) {
    if (text_member(one, "type") != "nbd" || is_export_of(one, id)) continue;
    const std::string other = printable(text_member(one, "id"));
    throw Error(Code::kBusy, fmt::format("the export '{}' uses the NBD server of '{}'", other, id),
                fmt::format("detach '{}' first", other));
  }
}

enum class ExportState : std::uint8_t { kGone, kThere, kEnding };

ExportState state_of_export(Qmp& qmp, const std::string& id) {
  for (const Json& one : qmp.execute("query-block-exports")) {
    if (!is_export_of(one, id)) continue;
    return true_member(one, "shutting-down") ? ExportState::kEnding : ExportState::kThere;
  }
  return ExportState::kGone;
}

void remove_export(Qmp& qmp, const std::string& id, std::uint32_t timeout_ms) {
  const ExportState state = state_of_export(qmp, id);
  if (state == ExportState::kGone) return;
  // One that ends since an earlier detach takes no second order.
  if (state == ExportState::kThere) qmp.execute("block-export-del", {{"id", id}});
  const bool gone = qmp.wait_for_event(
      [&](const QmpEvent& event) {
        return event.name == "BLOCK_EXPORT_DELETED" && event.subject == id;
      },
      timeout_ms);
  if (!gone && state_of_export(qmp, id) != ExportState::kGone) {
    throw Error(Code::kTimeout, fmt::format("a client still uses the export '{}'", id),
                "run 'vm detach' again when it has gone");
  }
}

void remove_node(Qmp& qmp, const std::string& name) {
  const auto end = std::chrono::steady_clock::now() + kLetGoTime;
  for (;;) {
    try {
      qmp.execute("blockdev-del", {{"node-name", name}});
      return;
    } catch (const Error& error) {
      const bool refused = error.code() == Code::kRemote && qmp.usable();
      if (!refused || std::chrono::steady_clock::now() > end) throw;
    }
    std::this_thread::sleep_for(kLetGoPause);
  }
}

// Where QEMU may refuse because there is nothing to remove, which is as it should be.
void remove_if_there(Qmp& qmp, const std::string& command, const Json& arguments) {
  try {
    qmp.execute(command, arguments);
  } catch (const Error& error) {
    if (error.code() != Code::kRemote || !qmp.usable()) throw;
  }
}

// What an attach left whose process was killed: it would stand in the way of the next one, too.
void remove_secrets(Qmp& qmp, const std::string& id) {
  for (const std::string_view part : {"key", "master"}) {
    remove_if_there(qmp, "object-del", {{"id", name_of(id, part)}});
  }
}

// The export, and the NBD server if it was started for it: also when an earlier detach came no
// further than the export.
void remove_from_daemon(Qmp& qmp, const std::string& id, bool own_server,
                        std::uint32_t timeout_ms) {
  if (own_server) check_server_unused(qmp, id);
  remove_export(qmp, id, timeout_ms);
  if (!own_server) return;
  remove_if_there(qmp, "nbd-server-stop", Json::object());
  remove_node(qmp, name_of(id, kServerMark));
}

constexpr std::string_view kUriStart = "nbd+unix:///";
constexpr std::string_view kUriSocket = "?socket=";
constexpr std::string_view kServerFolder = "/lukskeep-serve-";  // what `serve` makes for itself

// "nbd+unix:///EXPORT?socket=PATH", as QEMU writes it.
std::string export_in(const std::string& uri) {
  const std::size_t query = uri.rfind(kUriSocket);
  if (!uri.starts_with(kUriStart) || query == std::string::npos) return uri;
  return uri.substr(kUriStart.size(), query - kUriStart.size());
}

// Of the server of ours that decrypts for the disk; empty if QEMU does so itself.
std::string server_socket(Qmp& qmp, const std::string& id) {
  for (const Json& one : all_nodes(qmp)) {
    if (text_member(one, "node-name") != name_of(id, "nbd")) continue;
    const std::string uri = text_member(one, "file");
    const std::size_t query = uri.rfind(kUriSocket);
    if (query == std::string::npos || uri.find(kServerFolder, query) == std::string::npos) continue;
    return uri.substr(query + kUriSocket.size());
  }
  return {};
}

// It ends by itself when QEMU has gone, and holds a lock on the volume until then. False if it has
// not within that time.
bool wait_for_server_end(const Qmp& qmp, const std::string& socket,
                         std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (access(socket.c_str(), F_OK) == 0) {
    if (qmp.cancelled() || std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(kLetGoPause);
  }
  return true;
}

}  // namespace

void check_disk_id(std::string_view id) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const auto other = [](char c) { return (c >= '0' && c <= '9') || c == '-' || c == '_'; };
  if (!id.empty() && id.size() <= kIdBytesMax && letter(id.front()) &&
      std::ranges::all_of(id, [&](char c) { return letter(c) || other(c); })) {
    return;
  }
  throw Error(Code::kUsage, fmt::format("'{}' is no name for a disk", printable(id)),
              fmt::format("a letter, then letters, digits, '-' and '_': {} characters at most",
                          kIdBytesMax));
}

std::string free_disk_id(Qmp& qmp) {
  std::set<std::string> taken;
  for (const Json& one : all_nodes(qmp)) {
    const std::optional<OwnNode> node = own_node(text_member(one, "node-name"));
    if (node) taken.insert(node->id);
  }
  const auto devices = all_devices(qmp);
  for (int i = 0; i < kDiskIdsMax; ++i) {
    std::string id = fmt::format("lukskeep{}", i);
    if (!taken.contains(id) && !devices.contains(id)) return id;
  }
  throw Error(Code::kExists, fmt::format("'{}' has {} disks", qmp.name(), kDiskIdsMax));
}

KeyTransfer attach_disk(Qmp& qmp, const DiskRequest& request) {
  check_request(qmp, request);
  if (!parts_of(qmp, request.id).empty() || all_devices(qmp).contains(request.id)) {
    throw Error(Code::kExists, fmt::format("'{}' has a disk '{}'", qmp.name(), request.id),
                "choose another --id, or detach that one");
  }
  if (is_storage_daemon(qmp) && starts_server(request)) check_server_stands_still(qmp);
  remove_secrets(qmp, request.id);
  Steps steps(qmp);
  KeyTransfer transfer = KeyTransfer::kNone;
  try {
    const std::string node = add_nodes(qmp, steps, request, transfer);
    if (is_storage_daemon(qmp)) {
      export_it(steps, request, node);
    } else {
      plug(steps, request, node);
    }
  } catch (const Error& error) {
    steps.roll_back(error);
  }
  return transfer;
}

std::string detach_disk(Qmp& qmp, const std::string& id, std::uint32_t timeout_ms,
                        std::uint32_t server_timeout_ms) {
  check_disk_id(id);
  std::set<std::string> parts = parts_of(qmp, id);
  if (parts.empty()) {
    throw Error(Code::kNotFound, fmt::format("'{}' has no disk '{}' of ours", qmp.name(), id),
                "'lukskeep vm list' shows those there are");
  }
  if (is_storage_daemon(qmp)) {
    remove_from_daemon(qmp, id, parts.erase(kServerMark) == 1, timeout_ms);
  } else {
    const auto devices = all_devices(qmp);
    for (const std::string& device : {id, controller_of(id)}) {
      if (devices.contains(device)) unplug(qmp, device, timeout_ms);
    }
  }
  const std::string server = parts.contains("nbd") ? server_socket(qmp, id) : std::string();
  for (const std::string_view part : kNodes) {
    if (parts.contains(std::string(part))) remove_node(qmp, name_of(id, part));
  }
  remove_secrets(qmp, id);
  if (server.empty()) return {};
  const std::chrono::milliseconds server_time(server_timeout_ms);
  return wait_for_server_end(qmp, server, server_time) ? std::string() : server;
}

std::vector<AttachedDisk> list_disks(Qmp& qmp) {
  std::map<std::string, AttachedDisk> disks;
  for (const Json& one : all_nodes(qmp)) {
    const std::optional<OwnNode> node = own_node(text_member(one, "node-name"));
    if (!node) continue;
    AttachedDisk& disk = disks[node->id];
    disk.id = node->id;
    // Nothing writes to the mark, whatever may be written to the disk.
    if (node->part == kServerMark) continue;
    const std::string file = text_member(one, "file");
    if (node->part == "payload") disk.payload = file;
    if (node->part == "header") disk.header = file;
    if (node->part == "nbd") {
      disk.via_nbd = true;
      disk.payload = export_in(file);
    }
    disk.read_only = disk.read_only || true_member(one, "ro");
  }
  const auto devices = all_devices(qmp);
  std::vector<AttachedDisk> list;
  for (auto& [id, disk] : disks) {
    if (const auto found = devices.find(id); found != devices.end()) disk.device = found->second;
    list.push_back(std::move(disk));
  }
  return list;
}

}  // namespace lukskeep::vm
