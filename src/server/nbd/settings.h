// The parameters of the NBD plugin.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "server/nbd/export.h"

namespace lukskeep::server {

struct PluginSettings {
  std::vector<ExportSettings> exports;
  std::size_t connections_max = 0;  // 0: the default
  std::string announcement;         // written as one line once clients can connect …
  int announcement_fd = -1;         // … to this descriptor, which is closed then
  std::string socket;               // removed at the end
  bool system_log = false;          // where messages go too once clients can connect
};

// Takes the parameters in the order they were given: export=NAME begins one more volume, and the
// ones behind it speak of that. Paths are kept as they are.
class SettingsParser {
 public:
  // Throws Error{kUsage} for a parameter that is unknown, out of place, given twice or wrong.
  void take(std::string_view name, std::string_view value);
  // The settings; throws Error{kUsage} for what is missing or contradicts itself.
  PluginSettings finish();

 private:
  struct Given {
    ExportSettings settings;
    bool has_key = false;
    bool named = false;
    std::vector<std::string> names;  // of parameters seen
  };
  void take_of_volume(std::string_view name, std::string_view value);
  void take_backing_key(std::string_view name, std::string_view value);
  Given& current();

  std::vector<Given> given_;
  PluginSettings all_;
};

}  // namespace lukskeep::server
