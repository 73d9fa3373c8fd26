// A device under another name: messages speak of what the user named, not of a temporary file.
#pragma once

#include <memory>
#include <string>

#include <lukskeep/device.h>

namespace lukskeep::cli {

std::shared_ptr<Device> with_name(std::shared_ptr<Device> below, std::string name);

}  // namespace lukskeep::cli
