#include "net/curl_library.h"

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/shared_library.h"

namespace lukskeep::net {
namespace {

constexpr const char* kLibrary = "libcurl.so.4";

CurlLibrary load() {
  const SharedLibrary library(kLibrary, "talks HTTP", "libcurl4");
  CurlLibrary curl{};
  library.resolve("curl_global_init", curl.global_init);
  library.resolve("curl_easy_init", curl.easy_init);
  library.resolve("curl_easy_reset", curl.easy_reset);
  library.resolve("curl_easy_cleanup", curl.easy_cleanup);
  library.resolve("curl_easy_strerror", curl.easy_strerror);
  library.resolve("curl_easy_setopt", curl.easy_setopt);
  library.resolve("curl_easy_getinfo", curl.easy_getinfo);
  library.resolve("curl_multi_init", curl.multi_init);
  library.resolve("curl_multi_cleanup", curl.multi_cleanup);
  library.resolve("curl_multi_add_handle", curl.multi_add_handle);
  library.resolve("curl_multi_remove_handle", curl.multi_remove_handle);
  library.resolve("curl_multi_perform", curl.multi_perform);
  library.resolve("curl_multi_poll", curl.multi_poll);
  library.resolve("curl_multi_info_read", curl.multi_info_read);
  library.resolve("curl_slist_append", curl.slist_append);
  library.resolve("curl_slist_free_all", curl.slist_free_all);
  if (curl.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
    throw Error(Code::kInternal, fmt::format("{} cannot be initialised", kLibrary));
  }
  return curl;
}

}  // namespace

const CurlLibrary& curl_library() {
  static const CurlLibrary library = load();
  return library;
}

}  // namespace lukskeep::net
