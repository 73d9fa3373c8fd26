#include "archive/s3_mirror.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <optional>
#include <utility>

#include <expat.h>
#include <openssl/evp.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "crypto/hash.h"

namespace lukskeep::archive {
namespace {

constexpr unsigned kTries = 3;
// A key has 1024 bytes at most, and tokens are not much longer.
constexpr std::size_t kTextBytesMax = 4096;
constexpr std::size_t kDepthMax = 16;
// One after the other: a bucket may have much to skip, where many objects were removed.
constexpr std::size_t kEmptyPagesMax = 100;
constexpr std::size_t kPrefixBytesMax = 512;  // leaves room for the name of a snapshot
// Altogether, for somebody who waits.
constexpr auto kPatience = std::chrono::seconds(30);

// ---- ListObjectsV2 ---------------------------------------------------------------------------

struct ListParser {
  ListedObjects result;
  std::vector<std::string> path;  // names of the open elements, without name spaces
  std::string text;
  bool is_list = false;
  bool sane = true;
  XML_Parser expat = nullptr;

  // At once: what is left of the piece could be another gigabyte.
  void refuse() {
    sane = false;
    XML_StopParser(expat, XML_FALSE);
  }
};

void XMLCALL on_start(void* user, const char* name, const char** /*attributes*/) {
  auto& parser = *static_cast<ListParser*>(user);
  const std::string_view full(name);
  const std::size_t colon = full.rfind(':');
  parser.path.emplace_back(colon == std::string_view::npos ? full : full.substr(colon + 1));
  parser.is_list =
      parser.is_list || (parser.path.size() == 1 && parser.path[0] == "ListBucketResult");
  if (parser.path.size() > kDepthMax) parser.refuse();
  parser.text.clear();
}

void XMLCALL on_text(void* user, const char* text, int size) {
  auto& parser = *static_cast<ListParser*>(user);
  if (parser.text.size() + static_cast<std::size_t>(size) > kTextBytesMax) return parser.refuse();
  parser.text.append(text, static_cast<std::size_t>(size));
}

void XMLCALL on_end(void* user, const char* /*name*/) {
  auto& parser = *static_cast<ListParser*>(user);
  if (parser.path.size() == 3 && parser.path[1] == "Contents" && parser.path[2] == "Key") {
    parser.result.keys.push_back(parser.text);
  }
  if (parser.path.size() == 2 && parser.path[1] == "NextContinuationToken") {
    parser.result.continuation = parser.text;
  }
  parser.path.pop_back();
  parser.text.clear();
}

// An entity can stand for gigabytes; S3 declares none.
void XMLCALL on_doctype(void* user, const char*, const char*, const char*, int) {
  static_cast<ListParser*>(user)->refuse();
}

std::string base64(ByteView bytes) {
  std::string text(4 * ((bytes.size() + 2) / 3), '\0');
  EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                  reinterpret_cast<const unsigned char*>(bytes.data()),
                  static_cast<int>(bytes.size()));
  return text;
}

class S3Mirror final : public Mirror {
 public:
  S3Mirror(BucketLocation location, const MirrorOptions& options)
      : location_(std::move(location)),
        cancel_(options.cancel),
        patient_(options.patient),
        client_({.connect_ms = options.patient ? 10'000U : 2'000U,
                 .total_ms = options.patient ? 300'000U : 20'000U,
                 .stall_seconds = options.patient ? 30U : 5U,
                 .response_bytes = limits::kSnapshotFileBytesMax},
                options.cancel),
        credentials_(options.credentials()) {}

  std::set<std::string> list() override {
    std::set<std::string> files;
    std::set<std::string, std::less<>> tokens;
    std::string continuation;
    std::size_t empty_pages = 0;
    while (true) {
      ListedObjects page = list_page(continuation);
      for (const std::string& key : page.keys) {
        if (!key.starts_with(location_.prefix)) continue;
        std::string file = key.substr(location_.prefix.size());
        if (is_snapshot_name(file)) files.insert(std::move(file));
      }
      empty_pages = page.keys.empty() ? empty_pages + 1 : 0;
      continuation = std::move(page.continuation);
      if (continuation.empty()) break;
      if (empty_pages > kEmptyPagesMax || files.size() > limits::kMirrorFilesMax ||
          tokens.size() == limits::kBucketPagesMax || !tokens.insert(continuation).second) {
        throw Error(Code::kRemote, fmt::format("'{}' lists without an end", bucket_url()));
      }
    }
    return files;
  }

  void put(const std::string& file, ByteView bytes) override {
    std::vector<std::pair<std::string, std::string>> headers = {
        {"Content-Type", "application/octet-stream"},
        // Asked for by buckets with object lock.
        {"Content-MD5", base64(crypto::hash("md5", bytes))},
        {"If-None-Match", "*"}};
    net::HttpResponse response = send("PUT", object_url(file), bytes, headers);
    if (response.status == 501) {
      // A server that knows no conditions; list() has told that the name is free.
      headers.pop_back();
      response = send("PUT", object_url(file), bytes, headers);
    }
    if (response.status == 412) {
      if (!std::ranges::equal(get(file), bytes)) throw_other_bytes(file, bucket_url());
      return;
    }
    check(response, "write to");
  }

  Bytes get(const std::string& file) override {
    net::HttpResponse response = send("GET", object_url(file), {});
    check(response, "read from");
    return std::move(response.body);
  }

 private:
  std::string bucket_url() const { return location_.endpoint + "/" + location_.bucket; }
  std::string object_url(const std::string& file) const {
    return bucket_url() + "/" + net::percent_encode(location_.prefix + file, true);
  }

  ListedObjects list_page(const std::string& continuation) {
    // In the order of their names, as the signature wants them.
    std::string query =
        continuation.empty() ? "" : "continuation-token=" + net::percent_encode(continuation) + "&";
    query += "list-type=2&prefix=" + net::percent_encode(location_.prefix);
    const net::HttpResponse response =
        send("GET", bucket_url() + "?" + query, {}, {}, limits::kBucketPageBytesMax);
    check(response, "list");
    return parse_object_list(response.body, fmt::format("'{}'", bucket_url()));
  }

  net::HttpResponse send(const std::string& method, const std::string& url, ByteView body,
                         std::vector<std::pair<std::string, std::string>> headers = {},
                         std::optional<std::size_t> response_bytes = {}) {
    if (!patient_ && std::chrono::steady_clock::now() - start_ > kPatience) {
      throw Error(Code::kTimeout, fmt::format("'{}' takes too long", bucket_url()));
    }
    // libcurl signs this header but does not make it.
    headers.emplace_back("x-amz-content-sha256", to_hex(crypto::hash("sha256", body)));
    return net::send_with_retries(client_,
                                  {.method = method,
                                   .url = url,
                                   .headers = std::move(headers),
                                   .body = body,
                                   .aws = &credentials_,
                                   .response_bytes = response_bytes},
                                  patient_ ? kTries : 1, cancel_);
  }

  void check(const net::HttpResponse& response, std::string_view verb) const {
    if (response.status >= 200 && response.status < 300) return;
    const Code code = response.status == 403   ? Code::kPermissionDenied
                      : response.status == 404 ? Code::kNotFound
                      : response.status == 507 ? Code::kNoSpace
                                               : Code::kRemote;
    throw Error(code,
                fmt::format("cannot {} '{}': the server answers {}{}", verb, bucket_url(),
                            response.status, error_code(response.body)),
                hint_for(response.status));
  }

  static std::string hint_for(long status) {
    if (status == 403)
      return "see whether the credentials, and the clock of this machine, are right";
    if (status == 404) return "a bucket has to be made first, with other tools";
    if (status >= 300 && status < 400) return "it is at another address, or in another region";
    return {};
  }

  // " (NoSuchBucket)": <Error><Code>…; only letters and digits.
  static std::string error_code(ByteView body) {
    const std::string_view text = as_string_view(body);
    constexpr std::string_view kStart = "<Code>";
    const std::size_t start = text.find(kStart);
    if (start == std::string_view::npos) return {};
    const std::string_view code = text.substr(start + kStart.size(), 64);
    return fmt::format(" ({})", printable(code.substr(0, code.find('<')), 64));
  }

  BucketLocation location_;
  const CancelToken* cancel_;
  bool patient_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  net::HttpClient client_;
  net::AwsCredentials credentials_;
};

}  // namespace

BucketLocation parse_bucket(std::string_view uri) {
  const auto fail = [&](std::string_view why) {
    throw Error(Code::kInvalidArgument, fmt::format("'{}' {}", printable(uri, 256), why),
                "a bucket is s3+https://HOST[:PORT]/BUCKET[/PREFIX]");
  };
  constexpr std::string_view kScheme = "s3+";
  std::string_view rest = uri.substr(kScheme.size());
  const std::size_t host = rest.find("://") + 3;
  const std::size_t slash = rest.find('/', host);
  if (slash == std::string_view::npos || slash == host) fail("names no bucket");
  BucketLocation location{.endpoint = std::string(rest.substr(0, slash))};
  if (location.endpoint.find_first_of("?#@ ") != std::string::npos) fail("names no server");
  std::string_view path = rest.substr(slash + 1);
  location.bucket = path.substr(0, path.find('/'));
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
  };
  if (location.bucket.size() < 3 || location.bucket.size() > 63 ||
      !std::ranges::all_of(location.bucket, plain)) {
    fail("names no bucket (3 to 63 of a-z, 0-9, '-', '.' and '_')");
  }
  path.remove_prefix(location.bucket.size());
  while (path.starts_with('/')) path.remove_prefix(1);
  while (path.ends_with('/')) path.remove_suffix(1);
  if (path.find_first_of("?#") != std::string_view::npos) fail("has a query");
  if (path.size() > kPrefixBytesMax) fail("has a prefix of more than 512 bytes");
  if (!path.empty()) location.prefix = std::string(path) + "/";
  return location;
}

ListedObjects parse_object_list(ByteView xml, std::string_view what) {
  struct Free {
    void operator()(XML_Parser parser) const noexcept { XML_ParserFree(parser); }
  };
  const std::unique_ptr<std::remove_pointer_t<XML_Parser>, Free> parser(XML_ParserCreate(nullptr));
  if (!parser) throw Error(Code::kOutOfMemory, "out of memory");
  ListParser list;
  list.expat = parser.get();
  XML_SetUserData(parser.get(), &list);
  XML_SetElementHandler(parser.get(), on_start, on_end);
  XML_SetCharacterDataHandler(parser.get(), on_text);
  XML_SetStartDoctypeDeclHandler(parser.get(), on_doctype);
  constexpr std::size_t kPiece = 65536;
  bool good = true;
  for (std::size_t at = 0; good && at < xml.size() && list.sane; at += kPiece) {
    const ByteView piece = xml.subspan(at, std::min(kPiece, xml.size() - at));
    good = XML_Parse(parser.get(), reinterpret_cast<const char*>(piece.data()),
                     static_cast<int>(piece.size()), 0) == XML_STATUS_OK;
  }
  good = good && list.sane && XML_Parse(parser.get(), nullptr, 0, 1) == XML_STATUS_OK;
  if (!good || !list.sane || !list.is_list) {
    throw Error(Code::kRemote, fmt::format("{} answers with something else than a list", what));
  }
  return std::move(list.result);
}

std::unique_ptr<Mirror> open_s3_mirror(const BucketLocation& location,
                                       const MirrorOptions& options) {
  return std::make_unique<S3Mirror>(location, options);
}

}  // namespace lukskeep::archive
