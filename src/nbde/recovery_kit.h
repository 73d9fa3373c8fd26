// What crosses between a site without network and a colleague who reaches the servers: a request
// and its answer, docs/format/recovery.md. Neither holds a secret: a request has blinded points, an
// answer what servers made of them, and without the numbers that blinded them (nbde/recovery.h)
// both are noise.
//
// Each is written as JSON, as lines to be read out, or as the text of a QR code; all three hold the
// same, and a checksum of it. Pure; all functions may be called from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/json.h"
#include "nbde/ec_point.h"

namespace lukskeep::nbde {

// The start of the SHA-256 of a request: answers say by it which request they belong to.
using RecoveryCode = std::array<std::byte, 16>;

// What one server is to be asked.
struct RecoveryPoint {
  std::string url;
  std::string kid;  // thumbprint of the exchange key
  EcPoint blinded;

  bool operator==(const RecoveryPoint&) const = default;
};

struct RecoveryRequest {
  std::string uuid;  // of the volume, as its header spells it
  std::vector<RecoveryPoint> points;

  bool operator==(const RecoveryRequest&) const = default;
};

struct RecoveryAnswer {
  RecoveryCode request{};
  std::vector<std::optional<EcPoint>> points;  // as the request's; absent: not to be had

  bool operator==(const RecoveryAnswer&) const = default;
};

RecoveryCode recovery_code(const RecoveryRequest& request);
// For people who compare it: "K3VT-…", 80 bits.
std::string recovery_code_text(const RecoveryCode& code);

// The packed form, of which the texts are made.
Bytes pack(const RecoveryRequest& request);
Bytes pack(const RecoveryAnswer& answer);
OrderedJson to_json(const RecoveryRequest& request);
OrderedJson to_json(const RecoveryAnswer& answer);

// Any of the three forms, of at most limits::kRecoveryTextBytesMax. Throw Error{kInvalidArgument}
// naming `what`: what is damaged, of another kind or version, has more than
// limits::kRecoveryPointsMax points or one that is on no curve.
RecoveryRequest parse_recovery_request(std::string_view text, std::string_view what);
RecoveryAnswer parse_recovery_answer(std::string_view text, std::string_view what);

}  // namespace lukskeep::nbde
