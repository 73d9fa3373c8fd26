// tangd, tangd-keygen, tangd-rotate-keys, tang-show-keys.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include <getopt.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "cli/compat.h"
#include "cli/compat_io.h"
#include "cli/program.h"
#include "nbde/advertisement.h"
#include "net/http_client.h"
#include "server/tang_key_folder.h"

namespace lukskeep::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kPortMax = 65535;
constexpr int kShowUsage = 1;
// curl's, which tang-show-keys ends with.
constexpr int kNoConnection = 7;
constexpr int kHttpFailure = 22;

struct TangdOptions {
  bool listen = false;
  std::string port = "9090";
  std::string endpoint;
  std::string folder;
  std::optional<int> status;  // there is nothing to serve
};

int tangd_usage(const CompatCall& call, int status) {
  say(fmt::format("Usage: {} [-p PORT] [-e ENDPOINT] [-l] [-v] [-h] <jwkdir>", call.called));
  return status;
}

TangdOptions parse_tangd(const CompatCall& call) {
  static constexpr const char* kShort = ":e:p:lvh";
  static const option kLong[] = {
      // NOLINT(modernize-avoid-c-arrays): getopt_long(3)
      {"endpoint", required_argument, nullptr, 'e'}, {"port", required_argument, nullptr, 'p'},
      {"listen", no_argument, nullptr, 'l'},         {"version", no_argument, nullptr, 'v'},
      {"help", no_argument, nullptr, 'h'},           {nullptr, 0, nullptr, 0}};
  std::vector<std::string> arguments = call.arguments;
  std::string name = call.called;
  std::vector<char*> words;
  words.reserve(arguments.size() + 2);
  words.push_back(name.data());
  for (std::string& argument : arguments) words.push_back(argument.data());
  words.push_back(nullptr);
  const int count = static_cast<int>(words.size()) - 1;
  TangdOptions options;
  int letter = 0;
  // NOLINTNEXTLINE(concurrency-mt-unsafe): no thread runs yet
  while ((letter = getopt_long(count, words.data(), kShort, kLong, nullptr)) != -1) {
    if (letter == 'e') options.endpoint = optarg;
    if (letter == 'p') options.port = optarg;
    if (letter == 'l') options.listen = true;
    if (letter == 'v') options.status = run_program({"version"});
    if (letter == 'h') options.status = tangd_usage(call, 0);
    if (letter == '?' || letter == ':') options.status = tangd_usage(call, kCompatFailure);
    if (options.status) return options;
  }
  if (count - optind != 1) {
    options.status = tangd_usage(call, kCompatFailure);
  } else {
    options.folder = words[static_cast<std::size_t>(optind)];
  }
  return options;
}

bool check_folder(const std::string& folder) {
  struct stat status{};
  if (stat(folder.c_str(), &status) != 0) {
    say(fmt::format("Error calling stat() on path: {}: {}", printable(folder, 256),
                    std::generic_category().message(errno)));
    return false;
  }
  if (S_ISDIR(status.st_mode)) return true;
  say(fmt::format("Path is not a directory: {}", printable(folder, 256)));
  return false;
}

// A pair that is made in part serves nobody: what can be refused is, before the first is made.
void check_key_names(const std::string& folder, const std::string& signing,
                     const std::string& exchange) {
  if (signing == exchange) {
    throw Error(Code::kInvalidArgument, "two keys want two names");
  }
  for (const std::string& name : {signing, exchange}) {
    const std::string file = name + ".jwk";
    if (!server::is_key_file_name(file)) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("'{}' is no name for a key", printable(name)));
    }
    std::error_code ignored;
    if (fs::exists(fs::symlink_status(fs::path(folder) / file, ignored))) {
      throw Error(Code::kExists, fmt::format("the key '{}' is there already", printable(file)));
    }
  }
}

}  // namespace

int compat_tangd(const CompatCall& call) {
  const TangdOptions options = parse_tangd(call);
  if (options.status) return *options.status;
  if (!check_folder(options.folder)) return kCompatFailure;
  std::vector<std::string> words = {"tang", "serve", "--keys", options.folder, "--access-log", "-"};
  if (options.listen) {
    if (!parse_slot(options.port, kPortMax + 1)) return tangd_usage(call, kCompatFailure);
    words.insert(words.end(), {"--listen", "*:" + options.port, "--quiet"});
  } else {
    words.emplace_back("--inetd");
  }
  // A folder that may only be read keeps no record of who used which key.
  if (access(options.folder.c_str(), W_OK) != 0) {
    words.insert(words.end(), {"--usage", "none"});
  }
  if (!options.endpoint.empty()) words.insert(words.end(), {"--endpoint", options.endpoint});
  return run_program(words) == 0 ? 0 : kCompatFailure;
}

int compat_tangd_keygen(const CompatCall& call) {
  const auto& words = call.arguments;
  std::error_code ignored;
  if ((words.size() != 1 && words.size() != 3) || !fs::is_directory(words[0], ignored)) {
    say(fmt::format("Usage: {} <jwkdir> [<sig> <exc>]", call.called));
    return kCompatFailure;
  }
  const server::TangKeyFolder folder(words[0]);
  if (words.size() == 1) {
    folder.generate(nbde::Curve::kP521);
    return 0;
  }
  check_key_names(words[0], words[1], words[2]);
  // The exchange key first: signatures without anything to sign are of no use.
  folder.put(words[2] + ".jwk", nbde::private_jwk_text(nbde::generate_exchange_key()).span());
  folder.put(words[1] + ".jwk", nbde::private_jwk_text(nbde::generate_signing_key()).span());
  return 0;
}

int compat_tangd_rotate_keys(const CompatCall& call) {
  const std::string text = fmt::format("{} [-h] [-v] -d <KEYDIR>", call.called);
  const ShortOptions options = parse_short_options(call.arguments, "hvd:");
  if (options.wrong) return compat_usage(text, kCompatFailure);
  if (options.has('h')) return compat_usage(text, 0);
  const std::string path = options.value('d');
  if (path.empty()) {
    say("Please specify the keys directory with -d switch");
    return compat_usage(text, kCompatFailure);
  }
  if (access(path.c_str(), R_OK) != 0) {
    say(fmt::format("Error trying to access JWK directory '{}'", printable(path, 256)));
    return compat_usage(text, kCompatFailure);
  }
  const server::TangKeyFolder folder(path);
  const auto before = folder.read().keys;
  const auto rotation = folder.rotate(nbde::Curve::kP521);
  if (!options.has('v')) return 0;
  for (const server::TangKeyFile& key : before) {
    if (std::ranges::find(rotation.hidden, key.thumbprint) == rotation.hidden.end()) continue;
    say(fmt::format("Disabled advertisement of key {0} -> .{0}", key.name));
  }
  for (const std::string& made : rotation.made) say(fmt::format("Created new key {}.jwk", made));
  say("Keys rotated successfully");
  return 0;
}

int compat_tang_show_keys(const CompatCall& call) {
  const auto& words = call.arguments;
  const std::string port = words.empty() ? "80" : words[0];
  if (words.size() > 2 || !parse_slot(port, kPortMax + 1)) {
    say(fmt::format("Usage: {} [<port> [<endpoint>]]", call.called));
    return kShowUsage;
  }
  std::string endpoint = words.size() < 2 ? "" : words[1];
  endpoint.erase(0, std::min(endpoint.find_first_not_of('/'), endpoint.size()));
  const std::string url = fmt::format("http://localhost:{}/{}{}adv", port, endpoint,
                                      endpoint.empty() || endpoint.ends_with('/') ? "" : "/");
  net::HttpResponse response;
  try {
    response = net::send_alone({.url = url, .body = {}, .response_bytes = limits::kJwsBytesMax}, {},
                               call.session.cancel);
  } catch (const Error& error) {
    if (error.code() != Code::kRemote && error.code() != Code::kTimeout) throw;
    print_error(error, false);
    return kNoConnection;
  }
  if (response.status != 200) {
    say(fmt::format("'{}' answers with status {}", url, response.status));
    return kHttpFailure;
  }
  const auto advertisement = nbde::parse_advertisement(as_string_view(response.body),
                                                       fmt::format("the answer of '{}'", url));
  // As jose prints them: each on a line, but one alone without its newline. People get one.
  const auto keys = advertisement.signing_keys();
  const bool newline = keys.size() > 1 || isatty(STDOUT_FILENO) != 0;
  for (const nbde::EcKey* key : keys) {
    print(fmt::format("{}{}", nbde::thumbprint(key->point), newline ? "\n" : ""));
  }
  return 0;
}

}  // namespace lukskeep::cli
