// One exchange over plain HTTP without libcurl, whose many libraries take longer to load than a
// short exchange takes. Boost.Beast speaks; what needs more than a connection is left to libcurl.
#pragma once

#include <optional>

#include "net/http_client.h"

namespace lukskeep::net {

// As HttpClient::send, on a connection of its own, with `limits.total_ms` (not 0) for all of it.
// Nothing, and nobody was asked, if the exchange wants a client that can do more: https, a proxy
// (http_proxy, all_proxy), credentials or anything unusual in the URL, a name that stands for
// several addresses or none, a body in pieces, a signature, a secret header.
std::optional<HttpResponse> exchange_plainly(const HttpRequest& request, const HttpLimits& limits,
                                             const CancelToken* cancel);

}  // namespace lukskeep::net
