// Identity of OpenStack, v3: a token for a project, and where that project's services are.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "keys/credentials.h"
#include "keys/service.h"

namespace lukskeep::keys {

// With OS_AUTH_URL and one of: OS_APPLICATION_CREDENTIAL_ID (or _NAME and a user) and
// OS_APPLICATION_CREDENTIAL_SECRET; OS_TOKEN; OS_USERNAME or OS_USER_ID and OS_PASSWORD, with the
// project in OS_PROJECT_ID or OS_PROJECT_NAME. Domains by OS_{USER,PROJECT}_DOMAIN_{ID,NAME}, else
// the domain "default". OS_AUTH_TYPE is not needed.
class Keystone {
 public:
  // Throws Error{kUsage} for credentials that are not whole. Asks nothing yet.
  Keystone(Credentials credentials, const ServiceOptions& options);

  // A token that is good for another half minute at least; got or renewed if need be. Valid until
  // the next call. Throws Error: kPermissionDenied, kRemote, kTimeout, kInterrupted.
  const SecretBytes& token();
  // The service said that the token is no good: the next token() is a new one. False if there is no
  // way to get one (OS_TOKEN).
  bool discard_token();

  // From the catalogue: the interface of OS_INTERFACE ("public"), in OS_REGION_NAME if that is set.
  // Without a slash at its end. Throws Error{kNotFound}.
  std::string endpoint(std::string_view type);

 private:
  using Clock = std::chrono::steady_clock;

  void log_in();
  void read_token(net::HttpResponse& response);
  void fetch_catalogue();

  Credentials credentials_;
  Service service_;
  std::string url_;
  SecretBytes token_;
  Clock::time_point good_until_;
  Json catalogue_;
};

}  // namespace lukskeep::keys
