#include "cli/mirrors.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "cli/archive_args.h"
#include "storage/file_device.h"

namespace lukskeep::cli {
namespace {

std::string credentials_path() {
  if (const char* value = std::getenv("LUKSKEEP_S3_CREDENTIALS");
      value != nullptr && *value != '\0') {
    return value;
  }
  return (std::filesystem::path(default_identity()).parent_path() / "s3-credentials").string();
}

std::string_view trimmed(std::string_view text) {
  const std::size_t start = text.find_first_not_of(" \t\r");
  if (start == std::string_view::npos) return {};
  return text.substr(start, text.find_last_not_of(" \t\r") - start + 1);
}

// The section [default] of a file as the tools of Amazon have it.
net::AwsCredentials parse_credentials(std::string_view text, const std::string& path) {
  net::AwsCredentials credentials;
  bool here = true;
  while (!text.empty()) {
    const std::string_view raw = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), raw.size() + 1));
    const std::string_view line = trimmed(raw);
    if (line.starts_with('[')) here = line == "[default]";
    const std::size_t equals = line.find('=');
    if (!here || equals == std::string_view::npos || line.starts_with('#')) continue;
    const std::string_view name = trimmed(line.substr(0, equals));
    const std::string_view value = trimmed(line.substr(equals + 1));
    if (name == "aws_access_key_id") credentials.access_key = value;
    if (name == "region") credentials.region = value;
    if (name == "aws_secret_access_key") {
      credentials.secret_key = SecretBytes(value.size());
      std::ranges::copy(as_byte_view(value), credentials.secret_key.span().begin());
    }
  }
  if (credentials.access_key.empty() || credentials.secret_key.empty()) {
    throw Error(Code::kInvalidArgument,
                fmt::format("'{}' has no aws_access_key_id and aws_secret_access_key",
                            printable(path, 256)));
  }
  return credentials;
}

net::AwsCredentials read_credentials() {
  const std::string path = credentials_path();
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    throw Error(Code::kNotFound,
                fmt::format("there are no credentials for a bucket in '{}'", printable(path, 256)),
                "it holds the lines aws_access_key_id=… and aws_secret_access_key=…");
  }
  const auto device = storage::open_file(path, {.lock = false});
  if (device->size_bytes() > limits::kMirrorsFileBytesMax) {
    throw Error(Code::kInvalidArgument,
                fmt::format("'{}' is no file of credentials", printable(path, 256)));
  }
  SecretBytes text(device->size_bytes());
  device->read(0, text.span());
  return parse_credentials(as_string_view(text.span()), path);
}

}  // namespace

archive::MirrorOptions mirror_options(const Session& session) {
  return {.credentials = read_credentials, .cancel = session.cancel};
}

namespace {

void send(const Session& session, archive::Store& store, const std::vector<std::string>& files) {
  archive::MirrorOptions options = mirror_options(session);
  // Who changes a header does not wait for a server that is away.
  options.patient = false;
  try {
    for (const std::string& problem : archive::sync_files(store, files, options).problems) {
      warn(problem);
    }
  } catch (const std::exception& error) {
    // What was asked for is done: this must not look as if it were not.
    warn(fmt::format("the mirrors of the archive were not served: {}", error.what()));
  }
}

}  // namespace

void settle_mirrors(const Session& session, archive::Store& store) {
  send(session, store, store.new_files());
}

}  // namespace lukskeep::cli
