// Which image service commands work with, and the key manager beside it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "cli/options.h"
#include "cli/session.h"
#include "image/glance_transfer.h"

namespace lukskeep::cli {

// --image-service, --timeout.
struct ImageServiceArgs {
  std::string uri;  // empty: LUKSKEEP_IMAGE_SERVICE, else "glance:"
  std::optional<std::uint32_t> timeout_s;

  void declare(Options& options);
  // Asks nothing yet. `cancel` may be null, for what is to be done in any case. With --insecure the
  // key manager's certificate is not looked at either, and a warning says so.
  image::Services services(const Session& session, const CancelToken* cancel,
                           bool with_manager) const;
};

}  // namespace lukskeep::cli
