#include "server/tang_backup.h"

#include <algorithm>
#include <map>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "crypto/hash.h"
#include "nbde/jws.h"

namespace lukskeep::server {
namespace {

constexpr std::string_view kFormat = "lukskeep-tang-backup-1";

[[noreturn]] void fail(std::string_view what, std::string_view problem) {
  throw Error(Code::kDamaged, fmt::format("{}: {}", what, problem));
}

std::string digest_of(ByteView bytes) { return to_hex(crypto::hash("sha256", bytes)); }

// What is in memory unsealed is wiped when done with.
class Wiped {
 public:
  explicit Wiped(Bytes bytes) : bytes_(std::move(bytes)) {}
  ~Wiped() { wipe(bytes_); }
  Wiped(const Wiped&) = delete;
  Wiped& operator=(const Wiped&) = delete;
  ByteView view() const noexcept { return bytes_; }

 private:
  Bytes bytes_;
};

std::vector<const nbde::EcKey*> signers_among(const std::vector<TangKeyFile>& keys) {
  std::vector<const nbde::EcKey*> signers;
  for (const TangKeyFile& key : keys) {
    const bool may = is_signing_key(key.key) && signers.size() < limits::kJwsSignaturesMax;
    if (may) signers.push_back(&key.key);
  }
  return signers;
}

template <typename T>
T member(const Json& object, const char* name, std::string_view what) {
  try {
    return object.at(name).get<T>();
  } catch (const Json::exception&) {
    fail(what, fmt::format("its list of keys has no good \"{}\"", name));
  }
}

TangKeyFile read_one(const Json& entry, ByteView& files, std::string_view what) {
  const auto name = member<std::string>(entry, "name", what);
  const auto size = member<std::uint64_t>(entry, "size", what);
  if (!is_key_file_name(name)) fail(what, fmt::format("'{}' is no name of a key", printable(name)));
  if (size > files.size()) fail(what, "it is cut off");
  const ByteView text = files.first(size);
  files = files.subspan(size);
  if (digest_of(text) != member<std::string>(entry, "sha256", what)) {
    fail(what, fmt::format("the key '{}' was changed", name));
  }
  TangKeyFile file{.name = name,
                   .hidden = name.starts_with('.'),
                   .key = nbde::parse_ec_key(text, fmt::format("{}: '{}'", what, name)),
                   .thumbprint = member<std::string>(entry, "thumbprint", what)};
  if (nbde::thumbprint(file.key.point) != file.thumbprint) {
    fail(what, fmt::format("the key '{}' is another than its list says", name));
  }
  return file;
}

// What restore would refuse must not pass for a backup.
void check_names(const std::vector<TangKeyFile>& keys) {
  std::map<std::string_view, std::string_view> names;
  for (const TangKeyFile& key : keys) {
    if (!is_key_file_name(key.name)) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("a backup cannot hold the key {} under the name '{}'", key.thumbprint,
                              printable(key.name)),
                  "rename its file to its thumbprint and .jwk");
    }
    const auto [first, is_new] = names.try_emplace(key.thumbprint, key.name);
    if (!is_new) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("the key {} is there twice, as '{}' and as '{}'", key.thumbprint,
                              first->second, key.name),
                  "remove one of the files: with a dot in front it is hidden");
    }
  }
}

}  // namespace

Bytes make_tang_backup(const std::vector<TangKeyFile>& keys,
                       std::span<const archive::AgeRecipient> recipients, std::int64_t now_s) {
  check_names(keys);
  const auto signers = signers_among(keys);
  if (signers.empty()) throw Error(Code::kNotFound, "there is no signing key to sign the backup");
  Json manifest = {{"format", kFormat}, {"created", now_s}, {"keys", Json::array()}};
  std::vector<SecretBytes> files;
  std::size_t bytes = 0;
  for (const TangKeyFile& key : keys) {
    const SecretBytes& text = files.emplace_back(nbde::private_jwk_text(key.key));
    bytes += text.size();
    manifest["keys"].push_back({{"name", key.name},
                                {"size", text.size()},
                                {"sha256", digest_of(text.span())},
                                {"thumbprint", key.thumbprint}});
  }
  const std::string line = nbde::sign_jws(as_byte_view(manifest.dump()), signers, kFormat) + "\n";
  SecretBytes plain(line.size() + bytes);
  std::byte* at = std::ranges::copy(as_byte_view(line), plain.data()).out;
  for (const SecretBytes& file : files) at = std::ranges::copy(file.span(), at).out;
  return archive::age_seal(plain.span(), recipients);
}

TangBackup read_tang_backup(ByteView sealed, std::span<const archive::AgeIdentity> identities,
                            std::string_view what) {
  auto opened = archive::age_open(sealed, identities, what);
  if (!opened) {
    throw Error(Code::kWrongPassphrase, fmt::format("{} is not sealed to this identity", what),
                "name the private key that belongs to one of its recipients");
  }
  const Wiped plain(std::move(*opened));
  const std::string_view text = as_string_view(plain.view());
  const std::size_t end = text.find('\n');
  if (end == std::string_view::npos) fail(what, "it is no backup of Tang keys");
  const nbde::Jws jws = nbde::parse_jws(text.substr(0, end), what);
  const Json manifest = parse_json(as_string_view(jws.payload), what);
  if (!manifest.is_object() || member<std::string>(manifest, "format", what) != kFormat) {
    fail(what, "it is no backup of Tang keys that is known here");
  }
  const auto list = manifest.find("keys");
  if (list == manifest.end() || !list->is_array() || list->size() > limits::kTangKeysMax) {
    fail(what, "it has no good list of keys");
  }
  TangBackup backup{.created_s = member<std::int64_t>(manifest, "created", what)};
  ByteView files = plain.view().subspan(end + 1);
  for (const Json& entry : *list) backup.keys.push_back(read_one(entry, files, what));
  if (!files.empty()) fail(what, "there is something behind its keys");
  const auto signers = signers_among(backup.keys);
  if (!nbde::verify_jws_by_all(jws, signers)) {
    fail(what, "it is not signed by all of its signing keys");
  }
  for (const nbde::EcKey* key : signers) backup.signers.push_back(nbde::thumbprint(key->point));
  return backup;
}

}  // namespace lukskeep::server
