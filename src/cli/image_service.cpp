#include "cli/image_service.h"

#include <cstdlib>
#include <utility>

#include <lukskeep/error.h>

#include "cli/key_manager_args.h"

namespace lukskeep::cli {

void ImageServiceArgs::declare(Options& options) {
  options.add({.name = "--image-service",
               .value = "URI",
               .help = "where images are: glance:[URL] (default: LUKSKEEP_IMAGE_SERVICE, or the "
                       "Glance of the Keystone catalogue)"},
              uri);
  options.add({.name = "--timeout",
               .value = "SECONDS",
               .help = "give up when so long no byte moves in a transfer (default 300)"},
              timeout_s);
}

image::Services ImageServiceArgs::services(const Session& session, const CancelToken* cancel,
                                           bool with_manager) const {
  std::string chosen = uri;
  if (const char* other = std::getenv("LUKSKEEP_IMAGE_SERVICE");
      chosen.empty() && other != nullptr) {
    chosen = other;
  }
  image::GlanceSettings settings =
      image::parse_image_service(chosen.empty() ? "glance:" : std::string_view(chosen));
  if (timeout_s == 0U) throw Error(Code::kUsage, "--timeout wants at least one second");
  settings.stall_seconds = timeout_s.value_or(0);
  keys::Credentials credentials;
  if (settings.noauth_project.empty()) credentials = read_credentials();
  const keys::ServiceOptions options{
      .tls = {.verify = !session.insecure, .ca_file = credentials.text("OS_CACERT")},
      .cancel = cancel};
  if (session.insecure && cancel != nullptr && !with_manager) {
    warn(
        "the certificate of the image service is not verified; whoever answers in its place gets "
        "the credentials");
  }
  image::Services services;
  services.glance =
      std::make_unique<image::Glance>(std::move(settings), std::move(credentials), options);
  if (!with_manager) return services;
  static const CancelToken never;
  Session calm = session;
  calm.cancel = cancel != nullptr ? cancel : &never;
  services.manager = open_key_manager(calm);
  return services;
}

}  // namespace lukskeep::cli
