#include "server/tang_keys.h"

#include <algorithm>
#include <utility>

#include "base/base64url.h"
#include "nbde/advertisement.h"

namespace lukskeep::server {

TangKeys::TangKeys(TangKeyFiles files) : files_(std::move(files)) {
  for (std::size_t i = 0; i < files_.keys.size(); ++i) {
    for (const nbde::ThumbprintHash hash : nbde::kThumbprintHashes) {
      const auto [place, is_new] =
          by_thumbprint_.try_emplace(nbde::thumbprint(files_.keys[i].key.point, hash), i);
      // One key in two files: what is advertised counts.
      if (!is_new && files_.keys[place->second].hidden) place->second = i;
    }
  }
  advertise();
}

void TangKeys::advertise() {
  by_signer_.resize(files_.keys.size());
  std::vector<const nbde::EcKey*> advertised;
  std::vector<std::size_t> signers;
  bool exchanges = false;
  for (std::size_t i = 0; i < files_.keys.size(); ++i) {
    const TangKeyFile& file = files_.keys[i];
    if (file.hidden) continue;
    const bool signs = is_signing_key(file.key);
    if (signs) signers.push_back(i);
    if (signs || is_exchange_key(file.key)) advertised.push_back(&file.key);
    exchanges = exchanges || is_exchange_key(file.key);
  }
  if (signers.empty()) return;
  const std::string payload = to_base64url(as_byte_view(nbde::advertisement_payload(advertised)));
  const auto sign = [&](std::size_t i) {
    return nbde::sign_jws_part(payload, files_.keys[i].key, nbde::kKeySetType);
  };
  std::vector<Json> signatures;
  std::ranges::transform(signers, std::back_inserter(signatures), sign);
  std::vector<const Json*> list;
  list.reserve(signatures.size() + 1);
  for (const Json& signature : signatures) list.push_back(&signature);
  advertisement_ = std::make_shared<const std::string>(nbde::join_jws(payload, list));
  for (std::size_t i = 0; i < files_.keys.size(); ++i) {
    if (!is_signing_key(files_.keys[i].key)) continue;
    if (!files_.keys[i].hidden) {
      by_signer_[i] = advertisement_;
      continue;
    }
    const Json more = sign(i);
    list.push_back(&more);
    by_signer_[i] = std::make_shared<const std::string>(nbde::join_jws(payload, list));
    list.pop_back();
  }
  complete_ = exchanges;
}

std::shared_ptr<const std::string> TangKeys::advertisement(std::string_view thumbprint) const {
  const auto found = by_thumbprint_.find(thumbprint);
  return found == by_thumbprint_.end() ? nullptr : by_signer_[found->second];
}

const TangKeyFile* TangKeys::find(std::string_view thumbprint) const {
  const auto found = by_thumbprint_.find(thumbprint);
  return found == by_thumbprint_.end() ? nullptr : &files_.keys[found->second];
}

}  // namespace lukskeep::server
