// The verdict of an inspection for people and for programs.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "image/inspector.h"

namespace lukskeep::cli {

OrderedJson report_json(const image::Report& report);
std::string report_text(const image::Report& report, std::string_view name);
// The first danger in one sentence.
std::string danger_text(const image::Report& report);

}  // namespace lukskeep::cli
