// The export of an NBD server.
#pragma once

#include <memory>
#include <string>

#include <lukskeep/device.h>

#include "storage/location.h"

namespace lukskeep::storage {

// Connects to the server that the URI `location` names. Requests are cut to what the server takes
// and several are under way at once; to a server that allows several connections up to
// limits::kNbdConnectionsMax are made. Opening a URI again in one process uses the connections that
// are there, as many servers talk to one client only, or end after it; they last as long as the
// process, for up to limits::kNbdServersMax servers.
//
// Throws Error: kUsage (the URI makes no sense), kNotFound (no such export), kReadOnly, kRemote (no
// server, a broken connection, nonsense), kTimeout, kUnsupported (libnbd is not installed).
// Requests throw these and what Device says. flush() is durable as far as the server promises it.
// There are no locks: nothing keeps another client from writing.
std::unique_ptr<Device> open_nbd(const std::string& location, const OpenOptions& options);

}  // namespace lukskeep::storage
