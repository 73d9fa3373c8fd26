// The verdict of an inspection for people and for programs.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <lukskeep/device.h>

#include "base/json.h"
#include "image/inspector.h"

namespace lukskeep::cli {

// For image::InspectOptions::open_image: the qcow2 image in the file at `path`, not locked, with
// the files that it may read. Empty where it may read none, or where the path is no file's.
std::function<std::shared_ptr<Device>()> image_opener(const std::string& path);

OrderedJson report_json(const image::Report& report);
std::string report_text(const image::Report& report, std::string_view name);
// The first danger in one sentence.
std::string danger_text(const image::Report& report);

}  // namespace lukskeep::cli
