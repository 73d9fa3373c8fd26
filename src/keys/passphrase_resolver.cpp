#include "keys/passphrase_resolver.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "keys/secret_text.h"

namespace lukskeep::keys {
namespace {

struct Row {
  Encoding encoding;
  std::string_view name;
  std::string_view words;
};
constexpr std::array<Row, 6> kRows = {{
    {Encoding::kPlain, "plain", "its bytes as they are"},
    {Encoding::kHex, "hex", "its bytes in lower-case hex"},
    {Encoding::kBase64, "base64", "its bytes in base64"},
    {Encoding::kNoNewline, "no-newline", "its text without the newline at the end"},
    {Encoding::kFromBase64, "from-base64", "what its text is the base64 of"},
    {Encoding::kFromHex, "from-hex", "what its text is the hex of"},
}};

constexpr std::array kKeyOrder = {Encoding::kHex, Encoding::kPlain, Encoding::kBase64,
                                  Encoding::kFromHex, Encoding::kFromBase64};
// Nova's attachment writes everything in hex, passphrases too.
constexpr std::array kTextOrder = {Encoding::kPlain, Encoding::kNoNewline, Encoding::kHex,
                                   Encoding::kFromBase64, Encoding::kFromHex};
constexpr std::array kOpaqueOrder = {Encoding::kPlain,  Encoding::kNoNewline,
                                     Encoding::kHex,    Encoding::kFromBase64,
                                     Encoding::kBase64, Encoding::kFromHex};

std::span<const Encoding> order_of(SecretType type) {
  switch (type) {
    case SecretType::kSymmetric:
      return kKeyOrder;
    case SecretType::kPassphrase:
      return kTextOrder;
    default:
      return kOpaqueOrder;
  }
}

std::optional<Candidate> said(const Secret& secret, const Metadata& metadata) {
  const auto found = metadata.find(std::string(kEncodingMetadata));
  if (found == metadata.end()) return std::nullopt;
  const auto encoding = parse_encoding(found->second);
  auto passphrase = encoding ? apply_encoding(*encoding, secret.payload.span()) : std::nullopt;
  if (!passphrase) {
    throw Error(
        Code::kInvalidArgument,
        fmt::format("secret '{}' says of itself {}={}, which {}", printable(secret.info.id, 128),
                    kEncodingMetadata, printable(found->second),
                    encoding ? "does not fit its bytes" : "is no known encoding"),
        fmt::format("correct it: lukskeep keystore metadata ID {}=plain", kEncodingMetadata));
  }
  return Candidate{.passphrase = std::move(*passphrase), .encoding = *encoding};
}

}  // namespace

std::string_view encoding_name(Encoding encoding) noexcept {
  return std::ranges::find(kRows, encoding, &Row::encoding)->name;
}

std::optional<Encoding> parse_encoding(std::string_view text) noexcept {
  const auto* found = std::ranges::find(kRows, text, &Row::name);
  if (found == kRows.end()) return std::nullopt;
  return found->encoding;
}

std::string_view encoding_words(Encoding encoding) noexcept {
  return std::ranges::find(kRows, encoding, &Row::encoding)->words;
}

std::optional<SecretBytes> apply_encoding(Encoding encoding, ByteView bytes) {
  const std::string_view text = as_string_view(bytes);
  switch (encoding) {
    case Encoding::kPlain:
      return SecretBytes(bytes);
    case Encoding::kHex:
      return secret_hex(bytes);
    case Encoding::kBase64:
      return secret_base64(bytes);
    case Encoding::kNoNewline: {
      if (!text.ends_with('\n')) return std::nullopt;
      const std::size_t cut = text.ends_with("\r\n") ? 2 : 1;
      if (text.size() == cut) return std::nullopt;
      return SecretBytes(bytes.first(bytes.size() - cut));
    }
    case Encoding::kFromBase64:
      return from_secret_base64(text.ends_with('\n') ? text.substr(0, text.size() - 1) : text);
    case Encoding::kFromHex:
      return from_secret_hex(text.ends_with('\n') ? text.substr(0, text.size() - 1) : text);
  }
  return std::nullopt;
}

std::vector<Candidate> passphrase_candidates(const Secret& secret, const Metadata& metadata) {
  std::vector<Candidate> candidates;
  if (auto first = said(secret, metadata)) candidates.push_back(std::move(*first));
  for (const Encoding encoding : order_of(secret.info.type)) {
    auto passphrase = apply_encoding(encoding, secret.payload.span());
    if (!passphrase) continue;
    const bool known = std::ranges::any_of(candidates, [&](const Candidate& other) {
      return equal_constant_time(other.passphrase.span(), passphrase->span());
    });
    if (!known) candidates.push_back({.passphrase = std::move(*passphrase), .encoding = encoding});
  }
  return candidates;
}

Candidate certain_passphrase(const Secret& secret, const Metadata& metadata) {
  if (auto first = said(secret, metadata)) return std::move(*first);
  if (secret.info.type == SecretType::kSymmetric) {
    return {.passphrase = secret_hex(secret.payload.span()), .encoding = Encoding::kHex};
  }
  if (secret.info.type == SecretType::kPassphrase) {
    return {.passphrase = secret.payload.clone(), .encoding = Encoding::kPlain};
  }
  throw Error(Code::kInvalidArgument,
              fmt::format("secret '{}' is of type {}: nothing says which passphrase it stands for",
                          printable(secret.info.id, 128), secret_type_name(secret.info.type)),
              fmt::format("say it: lukskeep keystore metadata ID {}=plain (or hex, base64 …)",
                          kEncodingMetadata));
}

}  // namespace lukskeep::keys
