// Which snapshots may go.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "archive/catalogue.h"

namespace lukskeep::archive {

struct PruneRules {
  std::optional<std::uint32_t> keep;             // the newest of each volume
  std::optional<std::uint32_t> older_than_days;  // with `keep`: both have to allow it
  bool keep_key_changes = false;  // the newest of neighbours with the same keys stays all the same
  bool revoked = false;           // what holds a key that was removed goes, whatever the rest says
};

// Of `entries`, newest first, those that the rules let go at `now_ns`. A volume is a UUID at a
// path; its own, its imported and its unproven snapshots are counted apart. References never go,
// nor the newest import of a volume where nothing was taken here of its UUID. Pure.
std::vector<Entry> choose_to_prune(std::span<const Entry> entries, const PruneRules& rules,
                                   std::int64_t now_ns);

}  // namespace lukskeep::archive
