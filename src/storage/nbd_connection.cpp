#include "storage/nbd_connection.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <string_view>
#include <system_error>

#include <poll.h>
#include <sys/eventfd.h>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "storage/request.h"

namespace lukskeep::storage {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Long waits look this often whether they are still wanted.
constexpr milliseconds kLookAround{50};
// A server that does not close its end is left alone after this.
constexpr milliseconds kLeaveTimeout{500};

constexpr std::string_view kTimeoutName = "timeout=";

seconds parse_timeout(std::string_view text, const std::string& name) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value == 0 ||
      value > limits::kNbdTimeoutSecondsMax) {
    throw Error(Code::kUsage, fmt::format("'{}': the timeout is a number of seconds from 1 to {}",
                                          name, limits::kNbdTimeoutSecondsMax));
  }
  return seconds(value);
}

// libnbd's messages start with the function that failed.
std::string text_of_error(const NbdLibrary& nbd) {
  const char* error = nbd.get_error();
  std::string_view text = error == nullptr ? "it gave no reason" : error;
  if (const auto colon = text.find(": "); text.starts_with("nbd_") && colon != text.npos) {
    text.remove_prefix(colon + 2);
  }
  return printable(text, 256);
}

std::string_view hint_of(std::string_view why) {
  if (why.find("TLS") != why.npos || why.find("tls") != why.npos) {
    return "a server with TLS is named nbds://… or nbds+unix://…, with tls-certificates=DIRECTORY "
           "or tls-psk-file=FILE";
  }
  return "see whether the server runs, and whether it has this export";
}

// Without one of them libnbd takes any server for the right one.
void require_proof(const std::string& location, const std::string& name) {
  if (!location.starts_with("nbds") || location.find("tls-psk-file=") != location.npos ||
      location.find("tls-certificates=") != location.npos) {
    return;
  }
  throw Error(Code::kUsage, fmt::format("'{}' does not say how the server proves who it is", name),
              "add tls-certificates=DIRECTORY (with its ca-cert.pem) or tls-psk-file=FILE");
}

}  // namespace

NbdUri parse_nbd_uri(const std::string& location) {
  NbdUri parsed{
      .name = printable(location, 256), .uri = {}, .timeout = seconds(limits::kNbdTimeoutSeconds)};
  if (location.find("://") == location.npos || location.size() > limits::kUriBytesMax) {
    throw Error(Code::kUsage, fmt::format("'{}' is no NBD URI", parsed.name),
                "for example nbd+unix:///EXPORT?socket=PATH or nbd://HOST:PORT/EXPORT; a file of "
                "that name is named './nbd…'");
  }
  require_proof(location, parsed.name);
  const std::size_t query = location.find('?');
  parsed.uri = location.substr(0, query);
  if (query == location.npos) return parsed;
  char separator = '?';
  std::string_view rest = std::string_view(location).substr(query + 1);
  while (!rest.empty()) {
    const std::string_view part = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(rest.size(), part.size() + 1));
    if (part.starts_with(kTimeoutName)) {
      parsed.timeout = parse_timeout(part.substr(kTimeoutName.size()), parsed.name);
      continue;
    }
    parsed.uri += separator;
    parsed.uri += part;
    separator = '&';
  }
  return parsed;
}

NbdConnection::NbdConnection(const NbdUri& uri, const CancelToken* cancel)
    : nbd_(nbd_library()), uri_(uri), wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!wake_fd_.valid()) throw_errno(errno, fmt::format("cannot open '{}'", uri_.name));
  handle_ = nbd_.create();
  if (handle_ == nullptr) refuse(text_of_error(nbd_), ENOMEM);
  try {
    connect(cancel);
    read_export();
    thread_ = std::thread([this] { serve(); });
  } catch (...) {
    nbd_.close(handle_);
    throw;
  }
}

NbdConnection::~NbdConnection() {
  {
    const std::lock_guard lock(requests_mutex_);
    stop_ = true;
  }
  wake();
  thread_.join();
}

void NbdConnection::refuse(const std::string& why, int error) const {
  const Code code = error == EINVAL   ? Code::kUsage
                    : error == ENOENT ? Code::kNotFound
                                      : Code::kRemote;
  throw Error(code, fmt::format("cannot open '{}': {}", uri_.name, why), std::string(hint_of(why)));
}

void NbdConnection::connect(const CancelToken* cancel) {
  // Who names the URI may name files for TLS in it.
  if (nbd_.set_uri_allow_local_file(handle_, true) != 0 ||
      nbd_.add_meta_context(handle_, "base:allocation") != 0) {
    refuse(text_of_error(nbd_), EIO);
  }
  if (nbd_.aio_connect_uri(handle_, uri_.uri.c_str()) != 0) {
    const int error = nbd_.get_errno();
    // A socket that is not there is a server that does not run.
    refuse(text_of_error(nbd_), error == ENOENT ? ECONNREFUSED : error);
  }
  const auto deadline = Clock::now() + uri_.timeout;
  while (nbd_.aio_is_ready(handle_) != 1) {
    if (cancel != nullptr) cancel->check();
    if (Clock::now() > deadline) {
      throw Error(Code::kTimeout,
                  fmt::format("cannot open '{}': the server did not finish its greeting within {} "
                              "seconds",
                              uri_.name, uri_.timeout.count()),
                  "see whether it serves somebody else and only one at a time, or give it longer "
                  "with timeout=SECONDS in the URI");
    }
    move_bytes(static_cast<int>(kLookAround.count()));
    if (nbd_.aio_is_dead(handle_) == 1 || nbd_.aio_is_closed(handle_) == 1) {
      const int error = nbd_.get_errno();
      // What the server answers is never wrong usage.
      refuse(text_of_error(nbd_), error == EINVAL ? EIO : error);
    }
  }
}

void NbdConnection::read_export() {
  const std::int64_t size = nbd_.get_size(handle_);
  if (size < 0) refuse(fmt::format("no usable size: {}", text_of_error(nbd_)), EIO);
  export_.size_bytes = static_cast<std::uint64_t>(size);
  export_.read_only = nbd_.is_read_only(handle_) == 1;
  export_.can_flush = nbd_.can_flush(handle_) == 1;
  export_.can_zero = nbd_.can_zero(handle_) == 1;
  export_.can_multi_conn = nbd_.can_multi_conn(handle_) == 1;
  export_.has_extents = nbd_.can_meta_context(handle_, "base:allocation") == 1;
  const std::int64_t least =
      std::max<std::int64_t>(nbd_.get_block_size(handle_, LIBNBD_SIZE_MINIMUM), 1);
  std::int64_t most = nbd_.get_block_size(handle_, LIBNBD_SIZE_MAXIMUM);
  if (most <= 0) most = limits::kNbdRequestBytes;
  if (!std::has_single_bit(static_cast<std::uint64_t>(least)) ||
      least > static_cast<std::int64_t>(limits::kNbdBlockBytesMax) || most < least) {
    refuse(fmt::format("the server names impossible block sizes, {} to {} bytes", least, most),
           EIO);
  }
  export_.block_bytes_min = static_cast<std::uint32_t>(least);
  const auto wanted = std::min<std::int64_t>(most, limits::kNbdRequestBytes);
  export_.request_bytes_max = static_cast<std::uint32_t>(wanted - wanted % least);
  // What is behind the last whole block cannot be asked for.
  export_.size_bytes -= export_.size_bytes % export_.block_bytes_min;
}

// One step of libnbd's state machine, once the socket is ready for it.
void NbdConnection::move_bytes(int timeout_ms) {
  const unsigned direction = nbd_.aio_get_direction(handle_);
  short events = 0;
  if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0) events = POLLIN;
  if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) events = static_cast<short>(events | POLLOUT);
  pollfd waiting[2] = {{.fd = nbd_.aio_get_fd(handle_), .events = events, .revents = 0},
                       {.fd = wake_fd_.get(), .events = POLLIN, .revents = 0}};
  if (poll(waiting, 2, timeout_ms) <= 0) return;
  if (waiting[1].revents != 0) {
    std::uint64_t ignored = 0;
    static_cast<void>(!read(wake_fd_.get(), &ignored, sizeof(ignored)));
  }
  // Between the poll and here the direction may have changed, as another thread started a request.
  const unsigned now = nbd_.aio_get_direction(handle_);
  const bool ended = (waiting[0].revents & (POLLERR | POLLHUP)) != 0;
  if ((now & LIBNBD_AIO_DIRECTION_READ) != 0 && ((waiting[0].revents & POLLIN) != 0 || ended)) {
    nbd_.aio_notify_read(handle_);
  } else if ((now & LIBNBD_AIO_DIRECTION_WRITE) != 0 &&
             ((waiting[0].revents & POLLOUT) != 0 || ended)) {
    nbd_.aio_notify_write(handle_);
  }
}

void NbdConnection::serve() noexcept {
  for (;;) {
    {
      const std::lock_guard lock(requests_mutex_);
      if (stop_ || failure_) break;
    }
    move_bytes(-1);
    if (nbd_.aio_is_dead(handle_) == 1 || nbd_.aio_is_closed(handle_) == 1) {
      fail(Code::kRemote,
           fmt::format("the connection to the server broke ({})", text_of_error(nbd_)));
    }
  }
  take_leave();
  close_handle();
}

void NbdConnection::take_leave() {
  {
    const std::lock_guard lock(requests_mutex_);
    if (failure_) return;
  }
  const auto deadline = Clock::now() + kLeaveTimeout;
  const std::lock_guard lock(handle_mutex_);
  if (nbd_.aio_disconnect(handle_, 0) != 0) return;
  while (nbd_.aio_is_closed(handle_) != 1 && nbd_.aio_is_dead(handle_) != 1 &&
         Clock::now() < deadline) {
    move_bytes(static_cast<int>(kLookAround.count()));
  }
}

// Only here the memory of requests is out of libnbd's reach for certain.
void NbdConnection::close_handle() {
  {
    const std::lock_guard lock(handle_mutex_);
    nbd_.close(handle_);
    handle_ = nullptr;
  }
  const std::lock_guard lock(requests_mutex_);
  for (Request* request : under_way_) {
    request->done_ = true;
    request->error_ = ENOTCONN;
  }
  under_way_.clear();
  request_done_.notify_all();
}

void NbdConnection::fail(Code code, const std::string& why) {
  {
    const std::lock_guard lock(requests_mutex_);
    if (!failure_) failure_.emplace(code, why);
  }
  wake();
}

void NbdConnection::wake() const {
  const std::uint64_t one = 1;
  static_cast<void>(!write(wake_fd_.get(), &one, sizeof(one)));
}

bool NbdConnection::broken() const {
  const std::lock_guard lock(requests_mutex_);
  return failure_.has_value();
}

std::size_t NbdConnection::requests_under_way() const {
  const std::lock_guard lock(requests_mutex_);
  return under_way_.size();
}

// Called by libnbd, from either thread, with its own lock held.
int NbdConnection::on_done(void* data, int* error) {
  auto* request = static_cast<Request*>(data);
  NbdConnection& connection = *request->connection_;
  const std::lock_guard lock(connection.requests_mutex_);
  connection.last_answer_ = Clock::now();
  connection.under_way_.erase(request);
  request->error_ = *error;
  request->done_ = true;
  connection.request_done_.notify_all();
  return 1;  // nothing asks libnbd for this request later
}

void NbdConnection::start(Request& request, const Issue& issue) {
  request.connection_ = this;
  const std::lock_guard lock(handle_mutex_);
  {
    const std::lock_guard requests_lock(requests_mutex_);
    request.since_ = Clock::now();
    request.done_ = handle_ == nullptr;
    request.error_ = ENOTCONN;
    if (request.done_) return;
    under_way_.insert(&request);
  }
  const nbd_completion_callback callback{
      .callback = &on_done, .user_data = &request, .free = nullptr};
  if (issue(handle_, callback) < 0) {
    const int error = nbd_.get_errno();
    const std::lock_guard requests_lock(requests_mutex_);
    under_way_.erase(&request);
    if (!request.done_) request.error_ = error != 0 ? error : EIO;
    request.done_ = true;
  }
  wake();
}

int NbdConnection::wait(Request& request, const CancelToken* cancel) {
  std::unique_lock lock(requests_mutex_);
  while (!request.done_) {
    request_done_.wait_for(lock, kLookAround);
    if (request.done_ || failure_) continue;
    if (cancel != nullptr && cancel->cancelled()) {
      failure_.emplace(Code::kInterrupted, "interrupted");
      wake();
    } else if (Clock::now() > std::max(request.since_, last_answer_) + uri_.timeout) {
      failure_.emplace(Code::kTimeout, fmt::format("the server has not answered for {} seconds",
                                                   uri_.timeout.count()));
      wake();
    }
  }
  // An answer that came is an answer, whatever became of the connection.
  if (request.error_ == 0) return 0;
  if (failure_) throw Error(*failure_);
  if (request.error_ == ENOTCONN) throw Error(Code::kRemote, "the connection to the server broke");
  return request.error_;
}

}  // namespace lukskeep::storage
