// The client of QMP, the monitor of QEMU and of qemu-storage-daemon: one Unix socket, JSON lines.
//
// Source: QEMU, docs/interop/qmp-spec.rst. What the other side says is bounded in size and time,
// and none of it is taken for true: it may be any program. One thread at a time.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <set>
#include <string>
#include <string_view>

#include <lukskeep/progress.h>
#include <lukskeep/secret_bytes.h>

#include "base/json.h"
#include "base/limits.h"
#include "storage/unique_fd.h"

namespace lukskeep::vm {

struct QmpVersion {
  std::int64_t major = 0;
  std::int64_t minor = 0;
  std::string package;  // as Debian and others call their build; fit for messages
};

// Of an event, what says whom it is about.
struct QmpEvent {
  std::string name;     // "DEVICE_DELETED"
  std::string subject;  // `device` or `id` of its data; empty if it has neither
};

class Qmp {
 public:
  struct Settings {
    std::uint32_t timeout_ms = limits::kQmpTimeoutSeconds * 1000;  // for one answer
    const CancelToken* cancel = nullptr;                           // may be null; must outlive it
  };

  // Connects, reads the greeting, agrees on capabilities and asks which commands there are. Throws
  // Error: kNotFound, kPermissionDenied, kUsage (a path too long), kRemote (nobody listens, or what
  // answers is no QMP), kTimeout, kInterrupted.
  static Qmp connect(const std::string& path, const Settings& settings);
  // The same over a socket that is connected already and does not block.
  static Qmp over(storage::UniqueFd socket, std::string name, const Settings& settings);

  Qmp(Qmp&&) noexcept = default;
  Qmp& operator=(Qmp&&) = delete;
  ~Qmp() = default;

  const QmpVersion& version() const noexcept { return version_; }
  // The path, fit for messages.
  const std::string& name() const noexcept { return name_; }
  bool has(const std::string& command) const { return commands_.contains(command); }
  // The user that QEMU runs as.
  std::uint32_t peer_uid() const;

  // Runs one command and gives its "return". `fd`, unless negative, goes with it. Throws Error:
  // kUnsupported (no such command), kNotFound (no such device), kRemote (any other refusal, or
  // nonsense), kTimeout, kInterrupted.
  Json execute(const std::string& command, const Json& arguments = Json::object(), int fd = -1);
  // The same with arguments that are secret: the text of a JSON object.
  Json execute_secret(const std::string& command, const SecretBytes& arguments);

  // Waits until an event comes, or came since the connection, that `wanted` accepts; that one is
  // forgotten. False when the time is over.
  bool wait_for_event(const std::function<bool(const QmpEvent&)>& wanted, std::uint32_t timeout_ms);

  // Whether there is any use in further commands: the connection is there and makes sense.
  bool usable() const noexcept { return usable_; }
  // Whether a signal has asked for the end of all waiting.
  bool cancelled() const noexcept {
    return settings_.cancel != nullptr && settings_.cancel->cancelled();
  }
  // From now on signals end no waiting: what was begun is undone first.
  void ignore_cancel() noexcept { settings_.cancel = nullptr; }

 private:
  struct Deadline;
  Qmp(storage::UniqueFd socket, std::string name, const Settings& settings);

  void greet();
  void send(std::string_view line, int fd, const Deadline& deadline);
  std::string read_line(const Deadline& deadline);
  Json read_message(const Deadline& deadline);
  Json answer(const std::string& command, std::int64_t id);
  [[noreturn]] void refuse(const std::string& command, const Json& error) const;
  void keep(const Json& event);
  void check_time(const Deadline& deadline) const;
  void wait(short events, const Deadline& deadline) const;
  [[noreturn]] void nonsense(std::string_view why);

  storage::UniqueFd socket_;
  std::string name_;
  Settings settings_;
  QmpVersion version_;
  std::set<std::string> commands_;
  std::string unread_;
  std::size_t scanned_ = 0;  // of unread_, without a line end
  std::deque<QmpEvent> events_;
  std::int64_t last_id_ = 0;
  bool usable_ = true;
};

}  // namespace lukskeep::vm
