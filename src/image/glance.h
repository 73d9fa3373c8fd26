// OpenStack's image service: Glance v2, as far as images and their properties go.
//
//   glance:                             the one of the Keystone catalogue
//   glance:http[s]://HOST[:PORT]        this one, with Keystone
//   glance:http[s]://HOST[:PORT]?project=ID   without Keystone (noauth)
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/device.h>
#include <lukskeep/progress.h>

#include "image/properties.h"
#include "keys/keystone.h"
#include "keys/service.h"

namespace lukskeep::image {

struct GlanceSettings {
  std::string endpoint;        // empty: of the catalogue
  std::string noauth_project;  // empty: Keystone
  unsigned stall_seconds = 0;  // without a byte in either direction; 0: the default
};

// Throws Error{kUsage}.
GlanceSettings parse_image_service(std::string_view uri);

// What the service says of an image; text from it is for printable().
struct GlanceImage {
  std::string id;
  std::string name;
  std::string status;  // "queued", "active" …
  std::optional<std::uint64_t> size_bytes;
  std::string hash_algorithm;  // as crypto::find_hash knows it; empty: no checksum known here
  std::string hash;            // lower-case hex
  Properties properties;       // all members that are text, numbers or truth values
};

// One thread at a time. Every call renews a token that expired, ends when the token it was made
// with is cancelled, and throws Error: kPermissionDenied, kNotFound, kConflict, kInvalidArgument
// (what the service does not take, or finds too large), kRemote, kTimeout, kInterrupted, each
// naming the service and the image.
class Glance {
 public:
  // Throws Error{kUsage} for credentials that are not whole; asks nothing yet.
  Glance(GlanceSettings settings, keys::Credentials credentials,
         const keys::ServiceOptions& options);

  const std::string& name() const noexcept { return service_.name(); }

  // The disk formats that it takes; empty if it does not tell.
  std::vector<std::string> disk_formats();
  std::optional<GlanceImage> find(const std::string& id);
  GlanceImage get(const std::string& id);

  // A record without data; `id` is the caller's, so that what became of a lost answer can be asked.
  void create(const std::string& id, const std::string& image_name, const Properties& properties);
  // All of `device`, once: the service refuses it a second time.
  void put_file(const std::string& id, const Device& device, const ProgressCallback& progress);
  // The data from `offset_bytes` on. `take` gets each piece with its place; the service may start
  // earlier than asked, with 0. Throws kNotFound if there is no data.
  using Take = std::function<void(std::uint64_t offset_bytes, ByteView bytes)>;
  void get_file(const std::string& id, std::uint64_t offset_bytes, const Take& take);
  // Sets these and removes those of `unwanted` that are there. Formats are set only while there is
  // no data; other attributes of Glance never are.
  void change(const GlanceImage& image, const Properties& set,
              const std::vector<std::string>& unwanted);
  // An image that is not there is no error.
  void remove(const std::string& id);

 private:
  net::HttpResponse send(keys::ServiceCall call);
  net::HttpResponse transfer(net::HttpRequest request);
  template <typename Call>
  net::HttpResponse with_token(const Call& call);
  std::string base();
  Error refusal(const net::HttpResponse& response, const std::string& what) const;
  GlanceImage image_of(const Json& json) const;

  std::string endpoint_;
  std::string project_;
  keys::Service service_;
  net::HttpClient client_;
  std::optional<keys::Keystone> keystone_;
};

}  // namespace lukskeep::image
