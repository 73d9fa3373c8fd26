// The image that a command reads: inspected before anything that it says is trusted.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <lukskeep/device.h>
#include <lukskeep/header.h>
#include <lukskeep/secret_bytes.h>

#include "cli/options.h"
#include "cli/session.h"
#include "cli/volume_access.h"
#include "image/inspector.h"

namespace lukskeep::cli {

struct ImageSourceArgs {
  std::string path;
  std::optional<KeyArgs> keys;  // absent: what is encrypted is not looked into
  image::AllowList allow;
  bool direct = false;

  // --allow.
  void declare_allow(Options& options);
};

struct ImageSource {
  std::shared_ptr<Device> file;  // as it is stored
  image::Report report;
  std::optional<luks::Header> header;  // of LUKS that was opened
  SecretBytes volume_key;              // likewise

  bool in_qcow2() const { return report.format == "qcow2"; }
};

// Opens and inspects. An image that is not safe is in the report, and not opened further. Throws
// what image::inspect and unlock_volume throw.
ImageSource inspect_source(const Session& session, const ImageSourceArgs& args);

}  // namespace lukskeep::cli
