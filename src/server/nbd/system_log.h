// Messages of a server that nobody watches.
#pragma once

namespace lukskeep::server {

// From now on what this process prints to `stderr` goes to the system log as well, a line a message
// (syslog(3): lukskeep, facility daemon, priority error). Whether anybody reads either of them
// makes no difference to who prints. Call it once, before there are threads.
void copy_errors_to_system_log();

}  // namespace lukskeep::server
