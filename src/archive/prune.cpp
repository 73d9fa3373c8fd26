#include "archive/prune.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

namespace lukskeep::archive {
namespace {

using Place = std::pair<std::string, std::string>;

constexpr std::int64_t kDayNs = std::int64_t{86'400} * 1'000'000'000;

// Where an entry stands among those of its volume and kind.
struct Rank {
  std::uint32_t number = 0;  // 0: the newest
  bool key_change = false;   // the next newer one has other keys, or there is none
};

bool is_unwanted(const Entry& entry, const Rank& rank, const PruneRules& rules,
                 std::int64_t now_ns) {
  if (rules.revoked && entry.revoked) return true;
  if (!rules.keep && !rules.older_than_days) return false;
  if (rules.keep_key_changes && rank.key_change) return false;
  const std::int64_t age_days = (now_ns - std::max<std::int64_t>(entry.taken_ns, 0)) / kDayNs;
  return (!rules.keep || rank.number >= *rules.keep) &&
         (!rules.older_than_days || age_days >= std::int64_t{*rules.older_than_days});
}

}  // namespace

std::vector<Entry> choose_to_prune(std::span<const Entry> entries, const PruneRules& rules,
                                   std::int64_t now_ns) {
  std::set<std::string> taken_here;
  std::map<Place, Trust> best;
  for (const Entry& entry : entries) {
    if (entry.trust == Trust::kOwn) taken_here.insert(entry.uuid);
    const auto at = best.try_emplace({entry.uuid, entry.device_path}, entry.trust).first;
    at->second = std::min(at->second, entry.trust);
  }
  struct Seen {
    std::uint32_t count = 0;
    std::int64_t key_set = 0;
  };
  std::map<std::pair<Place, Trust>, Seen> all_seen;
  std::vector<Entry> chosen;
  for (const Entry& entry : entries) {
    const Place place{entry.uuid, entry.device_path};
    Seen& seen = all_seen[{place, entry.trust}];
    const Rank rank{.number = seen.count,
                    .key_change = seen.count == 0 || seen.key_set != entry.key_set};
    ++seen.count;
    seen.key_set = entry.key_set;
    const bool only_backup =
        rank.number == 0 && !taken_here.contains(entry.uuid) && best.at(place) == entry.trust;
    if (entry.reference || only_backup) continue;
    if (is_unwanted(entry, rank, rules, now_ns)) chosen.push_back(entry);
  }
  return chosen;
}

}  // namespace lukskeep::archive
