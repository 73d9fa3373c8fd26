// Where this user's archive of headers is.
#pragma once

#include <optional>
#include <string>

namespace lukskeep::cli {

// LUKSKEEP_ARCHIVE, else /var/lib/lukskeep/archive for root, else below XDG_DATA_HOME.
// "off" switches archiving by itself off: then absent.
std::optional<std::string> default_store();
// The private key that opens snapshots of a store that was made by itself:
// LUKSKEEP_ARCHIVE_KEY, else /etc/lukskeep/archive-key for root, else below XDG_CONFIG_HOME.
std::string default_identity();

}  // namespace lukskeep::cli
