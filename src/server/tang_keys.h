// The keys of a Tang server in memory, with every advertisement signed already. Never changed once
// made: threads share one, and another takes its place when the folder has changed.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "server/tang_key_folder.h"

namespace lukskeep::server {

class TangKeys {
 public:
  explicit TangKeys(TangKeyFiles files);

  const std::vector<TangKeyFile>& keys() const noexcept { return files_.keys; }
  const std::vector<std::string>& problems() const noexcept { return files_.problems; }

  // Null if no key is advertised that can sign.
  std::shared_ptr<const std::string> advertisement() const noexcept { return advertisement_; }
  // Also signed by the key of that thumbprint, by any hash, hidden or not. Null if there is none,
  // or it does not sign.
  std::shared_ptr<const std::string> advertisement(std::string_view thumbprint) const;

  // Hidden or not. Null if there is none.
  const TangKeyFile* find(std::string_view thumbprint) const;

  // Signs and exchanges keys with somebody new.
  bool complete() const noexcept { return complete_; }

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };

  void advertise();

  TangKeyFiles files_;
  std::unordered_map<std::string, std::size_t, Hash, std::equal_to<>> by_thumbprint_;
  std::vector<std::shared_ptr<const std::string>> by_signer_;  // one for each key; null: none
  std::shared_ptr<const std::string> advertisement_;
  bool complete_ = false;
};

}  // namespace lukskeep::server
