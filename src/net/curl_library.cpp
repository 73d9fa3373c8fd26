#include "net/curl_library.h"

#include <dlfcn.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

namespace lukskeep::net {
namespace {

constexpr const char* kLibrary = "libcurl.so.4";

template <typename Function>
void resolve(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) {
    throw Error(Code::kUnsupported, fmt::format("{} has no function {}", kLibrary, name),
                "install a newer libcurl4");
  }
}

CurlLibrary load() {
  // Never unloaded: OpenSSL's exit handlers may stand in it.
  void* const library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    throw Error(Code::kUnsupported, fmt::format("cannot load {}, which talks HTTP", kLibrary),
                "install the package libcurl4");
  }
  CurlLibrary curl{};
  resolve(library, "curl_global_init", curl.global_init);
  resolve(library, "curl_easy_init", curl.easy_init);
  resolve(library, "curl_easy_reset", curl.easy_reset);
  resolve(library, "curl_easy_cleanup", curl.easy_cleanup);
  resolve(library, "curl_easy_strerror", curl.easy_strerror);
  resolve(library, "curl_easy_setopt", curl.easy_setopt);
  resolve(library, "curl_easy_getinfo", curl.easy_getinfo);
  resolve(library, "curl_multi_init", curl.multi_init);
  resolve(library, "curl_multi_cleanup", curl.multi_cleanup);
  resolve(library, "curl_multi_add_handle", curl.multi_add_handle);
  resolve(library, "curl_multi_remove_handle", curl.multi_remove_handle);
  resolve(library, "curl_multi_perform", curl.multi_perform);
  resolve(library, "curl_multi_poll", curl.multi_poll);
  resolve(library, "curl_multi_info_read", curl.multi_info_read);
  resolve(library, "curl_slist_append", curl.slist_append);
  resolve(library, "curl_slist_free_all", curl.slist_free_all);
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
