// The commands of the group "image", one factory each; they are in cmd_image_*.cpp.
#pragma once

#include <memory>

#include "cli/command.h"

namespace lukskeep::cli {

std::unique_ptr<Command> make_image_volume_check();

}  // namespace lukskeep::cli
