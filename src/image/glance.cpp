#include "image/glance.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/uuid.h"
#include "crypto/hash.h"

namespace lukskeep::image {
namespace {

constexpr std::string_view kPatchType = "application/openstack-images-v2.1-json-patch";
constexpr std::string_view kJsonType = "application/json";

// A part of a URL, or a header, is not to become more than that.
std::string checked(const std::string& id) {
  if (is_uuid(id)) return id;
  throw Error(Code::kInvalidArgument, fmt::format("'{}' is no ID of an image", printable(id, 128)),
              "IDs are UUIDs");
}

std::string words(const std::string& id) { return fmt::format("image '{}'", printable(id, 64)); }

// What is said in the page of HTML that Glance answers instead of JSON.
std::string text_of_page(std::string_view page) {
  if (const auto title = page.find("</h1>"); title != std::string_view::npos) {
    page.remove_prefix(title + 5);
  }
  std::string text;
  bool tag = false;
  for (std::size_t i = 0; i < page.size() && text.size() < 400; ++i) {
    if (page[i] == '<') tag = true;
    if (!tag && (page[i] != ' ' && page[i] != '\n' && page[i] != '\r')) {
      text += page[i];
    } else if (!tag && !text.empty() && text.back() != ' ') {
      text += ' ';
    }
    if (page[i] == '>') tag = false;
  }
  for (const auto& [entity, plain] : {std::pair("&#x27;", "'"),
                                      {"&#39;", "'"},
                                      {"&quot;", "'"},
                                      {"&lt;", "<"},
                                      {"&gt;", ">"},
                                      {"&amp;", "&"}}) {
    for (std::size_t at = 0; (at = text.find(entity, at)) != std::string::npos;) {
      text.replace(at, std::string_view(entity).size(), plain);
    }
  }
  while (text.ends_with(' ') || text.ends_with('.')) text.pop_back();
  return text;
}

// The first byte that a 206 has: "bytes 100-199/200". Absent if it does not say.
std::optional<std::uint64_t> range_start(const net::HttpResponse& response) {
  const std::string text = response.header("content-range").value_or("");
  if (!text.starts_with("bytes ")) return std::nullopt;
  std::uint64_t start = 0;
  const auto [end, error] = std::from_chars(text.data() + 6, text.data() + text.size(), start);
  if (error != std::errc() || end == text.data() + text.size() || *end != '-') return std::nullopt;
  return start;
}

// Names of JSON pointers (RFC 6901).
std::string pointer(std::string_view name) {
  std::string text = "/";
  for (const char c : name) {
    text += c == '~' ? std::string("~0") : c == '/' ? std::string("~1") : std::string(1, c);
  }
  return text;
}

}  // namespace

GlanceSettings parse_image_service(std::string_view uri) {
  const auto bad = [&](std::string_view problem) {
    throw Error(Code::kUsage, fmt::format("image service '{}': {}", printable(uri, 256), problem),
                "glance:, glance:https://HOST:9292, or glance:http://HOST:9292?project=ID without "
                "Keystone");
  };
  constexpr std::string_view scheme = "glance:";
  if (!uri.starts_with(scheme)) bad("it does not start with glance:");
  std::string_view rest = uri.substr(scheme.size());
  GlanceSettings settings;
  if (const std::size_t mark = rest.find('?'); mark != std::string_view::npos) {
    const std::string_view query = rest.substr(mark + 1);
    rest = rest.substr(0, mark);
    constexpr std::string_view project = "project=";
    settings.noauth_project = query.substr(std::min(query.size(), project.size()));
    if (!query.starts_with(project) || settings.noauth_project.empty() || rest.empty() ||
        settings.noauth_project.find_first_of("\r\n &") != std::string::npos) {
      bad("it takes ?project=ID after an address, and nothing else");
    }
  }
  if (!rest.empty() && !rest.starts_with("http://") && !rest.starts_with("https://")) {
    bad("an address starts with http:// or https://");
  }
  while (rest.ends_with('/')) rest.remove_suffix(1);
  if (rest.ends_with("/v2")) rest.remove_suffix(3);
  settings.endpoint = rest;
  return settings;
}

Glance::Glance(GlanceSettings settings, keys::Credentials credentials,
               const keys::ServiceOptions& options)
    : endpoint_(std::move(settings.endpoint)),
      project_(std::move(settings.noauth_project)),
      service_(endpoint_.empty() ? "the Glance of the catalogue"
                                 : fmt::format("the Glance '{}'", printable(endpoint_, 256)),
               options),
      client_({.total_ms = 0,
               .stall_seconds = settings.stall_seconds != 0 ? settings.stall_seconds
                                                            : limits::kImageServiceWaitSeconds,
               .response_bytes = limits::kKeyServiceBytesMax},
              options.cancel, options.tls) {
  if (project_.empty()) keystone_.emplace(std::move(credentials), options);
}

std::string Glance::base() {
  if (endpoint_.empty() && keystone_) {
    endpoint_ = keystone_->endpoint("image");
    if (endpoint_.ends_with("/v2")) endpoint_.resize(endpoint_.size() - 3);
  }
  return endpoint_ + "/v2";
}

// A token that is refused is renewed once.
template <typename Call>
net::HttpResponse Glance::with_token(const Call& call) {
  for (bool first = true;; first = false) {
    net::HttpResponse response = call(keystone_ ? &keystone_->token() : nullptr);
    if (response.status == 401 && first && keystone_ && keystone_->discard_token()) continue;
    return response;
  }
}

// `call.url` is below /v2.
net::HttpResponse Glance::send(keys::ServiceCall call) {
  call.url = base() + call.url;
  if (!keystone_) call.headers.emplace_back("X-Project-Id", project_);
  return with_token([&](const SecretBytes* token) {
    call.token_header = token != nullptr ? "X-Auth-Token" : "";
    call.token = token;
    return service_.send(call);
  });
}

net::HttpResponse Glance::transfer(net::HttpRequest request) {
  request.url = base() + request.url;
  if (!keystone_) request.headers.emplace_back("X-Project-Id", project_);
  return with_token([&](const SecretBytes* token) {
    request.secret_header = token != nullptr ? "X-Auth-Token" : "";
    request.secret_value = token;
    return client_.send(request);
  });
}

Error Glance::refusal(const net::HttpResponse& response, const std::string& what) const {
  Error error = service_.refusal(response, what);
  const std::string_view body = as_string_view(response.body);
  if (body.find("</h1>") == std::string_view::npos) return error;
  return Error(error.code(),
               fmt::format("{}: {}", error.message(), printable(text_of_page(body), 300)),
               error.hint());
}

GlanceImage Glance::image_of(const Json& json) const {
  GlanceImage image{.id = service_.text(json, "id"),
                    .name = service_.text(json, "name"),
                    .status = service_.text(json, "status"),
                    .size_bytes = service_.number(json, "size"),
                    .hash_algorithm = service_.text(json, "os_hash_algo"),
                    .hash = service_.text(json, "os_hash_value"),
                    .properties = {}};
  // hashlib's names: sha3_512 is our sha3-512.
  std::ranges::replace(image.hash_algorithm, '_', '-');
  if (image.hash.empty() || !crypto::find_hash(image.hash_algorithm)) {
    image.hash = service_.text(json, "checksum");
    image.hash_algorithm = image.hash.empty() ? "" : "md5";
  }
  if (!is_uuid(image.id)) service_.nonsense("an image without an ID");
  image.properties = parse_properties(json.dump(), name());
  return image;
}

std::vector<std::string> Glance::disk_formats() {
  net::HttpResponse response = send({.url = "/schemas/image",
                                     .headers = {{"Accept", std::string(kJsonType)}},
                                     .token_header = {},
                                     .body = {}});
  if (response.status == 404) return {};
  if (!keys::is_good(response)) throw refusal(response, "its list of formats");
  const Json json = service_.json(response);
  const Json& format = service_.object(service_.object(json, "properties"), "disk_format");
  std::vector<std::string> formats;
  for (const Json& one : service_.array(format, "enum")) {
    if (one.is_string()) formats.push_back(one.get<std::string>());
  }
  return formats;
}

std::optional<GlanceImage> Glance::find(const std::string& id) {
  net::HttpResponse response = send({.url = "/images/" + checked(id),
                                     .headers = {{"Accept", std::string(kJsonType)}},
                                     .token_header = {},
                                     .body = {}});
  if (response.status == 404) return std::nullopt;
  if (!keys::is_good(response)) throw refusal(response, words(id));
  GlanceImage image = image_of(service_.json(response));
  if (image.id != id) service_.nonsense("another image than was asked for");
  return image;
}

GlanceImage Glance::get(const std::string& id) {
  auto image = find(id);
  if (image) return std::move(*image);
  throw Error(Code::kNotFound, fmt::format("{} has no {}", name(), words(id)));
}

void Glance::create(const std::string& id, const std::string& image_name,
                    const Properties& properties) {
  if (!is_utf8(image_name)) {
    throw Error(Code::kInvalidArgument,
                fmt::format("'{}' is no name of an image: it is not UTF-8", printable(image_name)));
  }
  Json body = {{"id", checked(id)}, {"name", image_name}, {"visibility", "private"}};
  for (const auto& [key, value] : properties) body[key] = value;
  const std::string text = body.dump();
  // Sent once: what a lost answer meant is found out by its ID.
  const net::HttpResponse response = send({.method = "POST",
                                           .url = "/images",
                                           .headers = {{"Content-Type", std::string(kJsonType)}},
                                           .token_header = {},
                                           .body = as_byte_view(text),
                                           .repeatable = false});
  if (!keys::is_good(response)) throw refusal(response, words(id));
}

void Glance::put_file(const std::string& id, const Device& device,
                      const ProgressCallback& progress) {
  const std::uint64_t total = device.size_bytes();
  const auto read = [&](std::uint64_t offset, MutableBytes out) {
    device.read(offset, out);
    if (progress) {
      progress({.phase = "upload", .done_bytes = offset + out.size(), .total_bytes = total});
    }
  };
  net::HttpRequest request{.method = "PUT",
                           .url = "/images/" + checked(id) + "/file",
                           .headers = {{"Content-Type", "application/octet-stream"}}};
  request.read_body = read;
  request.read_body_bytes = total;
  const net::HttpResponse response = transfer(std::move(request));
  if (!keys::is_good(response)) throw refusal(response, "the data of " + words(id));
}

void Glance::get_file(const std::string& id, std::uint64_t offset_bytes, const Take& take) {
  net::HttpRequest request{.url = "/images/" + checked(id) + "/file"};
  if (offset_bytes != 0)
    request.headers.emplace_back("Range", fmt::format("bytes={}-", offset_bytes));
  std::uint64_t at = 0;
  bool started = false;
  request.take_body = [&](const net::HttpResponse& head, ByteView bytes) {
    if (!started) {
      started = true;
      at = 0;
      if (head.status == 206) {
        const auto start = range_start(head);
        if (!start || *start > offset_bytes) service_.nonsense("a range that was not asked for");
        at = *start;
      }
    }
    take(at, bytes);
    at += bytes.size();
  };
  const net::HttpResponse response = transfer(std::move(request));
  if (response.status == 204) {
    throw Error(Code::kNotFound, fmt::format("{} has no data of {}", name(), words(id)),
                "it was never uploaded, or not wholly");
  }
  if (!keys::is_good(response)) throw refusal(response, "the data of " + words(id));
}

void Glance::change(const GlanceImage& image, const Properties& set,
                    const std::vector<std::string>& unwanted) {
  Json patch = Json::array();
  for (const auto& [key, value] : set) {
    const bool format = key == "disk_format" || key == "container_format";
    if (format ? image.status != "queued" : is_image_attribute(key)) continue;
    patch.push_back({{"op", image.properties.contains(key) ? "replace" : "add"},
                     {"path", pointer(key)},
                     {"value", value}});
  }
  for (const std::string& key : unwanted) {
    if (image.properties.contains(key)) {
      patch.push_back({{"op", "remove"}, {"path", pointer(key)}});
    }
  }
  if (patch.empty()) return;
  const std::string text = patch.dump();
  const net::HttpResponse response = send({.method = "PATCH",
                                           .url = "/images/" + checked(image.id),
                                           .headers = {{"Content-Type", std::string(kPatchType)}},
                                           .token_header = {},
                                           .body = as_byte_view(text),
                                           .repeatable = false});
  if (!keys::is_good(response)) throw refusal(response, "the properties of " + words(image.id));
}

void Glance::remove(const std::string& id) {
  const net::HttpResponse response = send({.method = "DELETE",
                                           .url = "/images/" + checked(id),
                                           .headers = {},
                                           .token_header = {},
                                           .body = {}});
  // 404: a try whose answer was lost has removed it.
  if (!keys::is_good(response) && response.status != 404) throw refusal(response, words(id));
}

}  // namespace lukskeep::image
