// What a rekeying of many volumes knows and remembers: which keys bindings are sealed to, what is
// done already, and what is left in the end.
#pragma once

#include <cstdint>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <lukskeep/error.h>

#include "base/json.h"
#include "luks/header_file.h"
#include "nbde/jwe.h"
#include "nbde/sealed_pin.h"

namespace lukskeep::nbde {

// Thumbprints (SHA-256) of the keys that a tree of pins depends on: of each tang the exchange key
// it is sealed to, and the signing keys it trusts. Of one that is pending the one that it trusts,
// as its policy spells it.
std::set<std::string> keys_of(const SealedPin& pin);

// Whether `pin` depends on one of `keys` (thumbprints by any hash). No keys: whether it has a tang.
bool depends_on(const SealedPin& pin, std::span<const std::string> keys);

// Whether `pin` takes as its server's keys what one of `keys` has signed.
bool trusts(const SealedPin& pin, std::span<const std::string> keys);

// keys_of(after) that are neither keys of `before` nor among `expected`.
std::set<std::string> unexpected_keys(const SealedPin& before, const SealedPin& after,
                                      std::span<const std::string> expected);

// Says of one binding that it was rebound. Lines of JSON, each durable before note() returns, so
// that a run that is cut can be done again and goes on; the last line may be half-written.
// note() and is_done() may be called from several threads.
class RekeyJournal {
 public:
  // Made if it is not there. Throws Error: kBusy (another run has it), kInvalidArgument (no
  // journal), kIo.
  explicit RekeyJournal(const std::string& path);
  ~RekeyJournal();
  RekeyJournal(const RekeyJournal&) = delete;
  RekeyJournal& operator=(const RekeyJournal&) = delete;

  // Whether exactly this binding is what a run has made: not if a header was restored since.
  bool is_done(std::string_view uuid, int keyslot, const Jwe& jwe) const;
  // A note that could not be written whole is taken back: the journal stays as it was.
  void note(std::string_view uuid, int keyslot, const Jwe& jwe);
  // Forgets all: nothing is left, so the next run is another rekeying.
  void finish();

 private:
  void load(const std::string& path);
  void check_head(const Json& json) const;
  void load_line(const Json& json, std::size_t line);
  void append(const std::string& line);

  int fd_ = -1;
  std::string name_;
  mutable std::mutex mutex_;
  std::set<std::tuple<std::string, int, std::string>> done_;  // UUID, keyslot, digest of the JWE
};

// One volume after a run.
struct RekeyedVolume {
  struct Problem {
    int keyslot = -1;  // -1: of the volume
    Error error;
  };
  std::string volume;
  std::string uuid;  // empty: it could not be read
  std::vector<int> rebound;
  // Keyslots whose binding was replaced and had not opened: their policy is the header's word
  // alone.
  std::vector<int> unproven;
  std::vector<Problem> left;
  std::vector<std::pair<int, std::string>> unknown;  // keyslot, pin that is not known
  std::set<std::string> in_use;                      // keys_of() all its bindings now
};

// The report, which `tang delete --wait-for` reads.
OrderedJson rekey_report(std::span<const std::string> keys, std::span<const RekeyedVolume> volumes);

struct RekeyVerdict {
  std::size_t volumes = 0;
  std::size_t left = 0;
  std::set<std::string> in_use;
  std::set<std::string> keys;  // that were to go; empty: all
};
// Throws Error{kInvalidArgument} naming `what`.
RekeyVerdict parse_rekey_report(std::string_view text, std::string_view what);

}  // namespace lukskeep::nbde
