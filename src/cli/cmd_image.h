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
std::unique_ptr<Command> make_image_properties();
std::unique_ptr<Command> make_image_export();
std::unique_ptr<Command> make_image_import();
std::unique_ptr<Command> make_image_upload();
std::unique_ptr<Command> make_image_download();
std::unique_ptr<Command> make_image_verify();
std::unique_ptr<Command> make_image_delete();

}  // namespace lukskeep::cli
