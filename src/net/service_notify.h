// Tells the service manager where a service stands (sd_notify(3)).
#pragma once

#include <string_view>

namespace lukskeep::net {

// `state` as in the manual: "READY=1". Does nothing unless NOTIFY_SOCKET names a socket.
void notify_service_manager(std::string_view state) noexcept;

}  // namespace lukskeep::net
