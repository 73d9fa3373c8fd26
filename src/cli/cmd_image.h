// The commands of the group "image", one factory each; they are in cmd_image_*.cpp.
#pragma once

#include <memory>

#include "cli/command.h"

namespace lukskeep::cli {

std::unique_ptr<Command> make_image_encrypt();
std::unique_ptr<Command> make_image_decrypt();
std::unique_ptr<Command> make_image_convert();
std::unique_ptr<Command> make_image_rekey();
std::unique_ptr<Command> make_image_volume_check();

}  // namespace lukskeep::cli
