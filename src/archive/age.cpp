#include "archive/age.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "archive/bech32.h"
#include "base/limits.h"
#include "crypto/hash.h"
#include "crypto/openssl_handles.h"
#include "crypto/random.h"

namespace lukskeep::archive {
namespace {

using crypto::evp_bytes;
using crypto::EvpKey;

constexpr std::string_view kVersionLine = "age-encryption.org/v1";
constexpr std::string_view kStanzaPrefix = "-> ";
constexpr std::string_view kMacPrefix = "---";
constexpr std::string_view kRecipientPrefix = "age";
constexpr std::string_view kIdentityPrefix = "age-secret-key-";
constexpr std::string_view kX25519Info = "age-encryption.org/v1/X25519";
constexpr std::size_t kLineChars = 64;
constexpr std::size_t kPointBytes = 32;
constexpr std::size_t kFileKeyBytes = 16;
constexpr std::size_t kTagBytes = 16;
constexpr std::size_t kNonceBytes = 16;
constexpr std::size_t kChunkBytes = std::size_t{64} * 1024;

void require(bool good, std::string_view what) {
  if (!good) throw Error(Code::kInternal, fmt::format("OpenSSL cannot {}", what));
}

EvpKey private_key(ByteView scalar) {
  EvpKey key(
      EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, nullptr, evp_bytes(scalar), scalar.size()));
  require(key != nullptr, "take an X25519 key");
  return key;
}

AgeRecipient point_of(ByteView scalar) {
  const EvpKey key = private_key(scalar);
  AgeRecipient recipient;
  std::size_t size = recipient.point.size();
  require(
      EVP_PKEY_get_raw_public_key(key.get(), evp_bytes(MutableBytes(recipient.point)), &size) == 1,
      "compute an X25519 point");
  return recipient;
}

// Absent for a point of low order, whose secret everybody knows.
std::optional<SecretBytes> shared_secret(ByteView scalar, ByteView point) {
  const EvpKey mine = private_key(scalar);
  const EvpKey theirs(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, nullptr, evp_bytes(point), point.size()));
  require(theirs != nullptr, "take an X25519 point");
  const crypto::EvpKeyContext context(EVP_PKEY_CTX_new(mine.get(), nullptr));
  require(context != nullptr && EVP_PKEY_derive_init(context.get()) == 1 &&
              EVP_PKEY_derive_set_peer(context.get(), theirs.get()) == 1,
          "start X25519");
  SecretBytes secret(kPointBytes);
  std::size_t size = secret.size();
  if (EVP_PKEY_derive(context.get(), evp_bytes(secret.span()), &size) != 1) return std::nullopt;
  if (all_zero(secret.span())) return std::nullopt;
  return secret;
}

// HKDF-SHA256 (RFC 5869), 32 bytes: one block of the expansion.
SecretBytes hkdf(ByteView secret, ByteView salt, std::string_view info) {
  const SecretBytes prk = crypto::hmac("sha256", salt, secret);
  Bytes block(as_byte_view(info).begin(), as_byte_view(info).end());
  block.push_back(std::byte{1});
  return crypto::hmac("sha256", prk.span(), block);
}

using ChaChaNonce = std::array<std::byte, 12>;

// `out` has kTagBytes more than `plain`.
void seal_chunk(ByteView key, const ChaChaNonce& nonce, ByteView plain, MutableBytes out) {
  const crypto::EvpContext context(EVP_CIPHER_CTX_new());
  int size = 0;
  const bool good = context != nullptr &&
                    EVP_EncryptInit_ex2(context.get(), EVP_chacha20_poly1305(), evp_bytes(key),
                                        evp_bytes(ByteView(nonce)), nullptr) == 1 &&
                    EVP_EncryptUpdate(context.get(), evp_bytes(out), &size, evp_bytes(plain),
                                      static_cast<int>(plain.size())) == 1 &&
                    EVP_EncryptFinal_ex(context.get(), evp_bytes(out) + size, &size) == 1 &&
                    EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, kTagBytes,
                                        evp_bytes(out.subspan(plain.size()))) == 1;
  require(good, "encrypt with ChaCha20-Poly1305");
}

// False if the tag does not fit.
bool open_chunk(ByteView key, const ChaChaNonce& nonce, ByteView sealed, MutableBytes out) {
  const ByteView body = sealed.first(sealed.size() - kTagBytes);
  std::array<std::byte, kTagBytes> tag;
  std::ranges::copy(sealed.last(kTagBytes), tag.begin());
  const crypto::EvpContext context(EVP_CIPHER_CTX_new());
  int size = 0;
  require(context != nullptr &&
              EVP_DecryptInit_ex2(context.get(), EVP_chacha20_poly1305(), evp_bytes(key),
                                  evp_bytes(ByteView(nonce)), nullptr) == 1,
          "decrypt with ChaCha20-Poly1305");
  return EVP_DecryptUpdate(context.get(), evp_bytes(out), &size, evp_bytes(body),
                           static_cast<int>(body.size())) == 1 &&
         EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, kTagBytes,
                             evp_bytes(MutableBytes(tag))) == 1 &&
         EVP_DecryptFinal_ex(context.get(), evp_bytes(out) + size, &size) == 1;
}

// The nonce of a chunk: its number, big endian in 11 bytes, and whether it is the last.
ChaChaNonce chunk_nonce(std::uint64_t number, bool last) {
  ChaChaNonce nonce{};
  store_be(&nonce[3], number);
  nonce[11] = std::byte{last ? std::uint8_t{1} : std::uint8_t{0}};
  return nonce;
}

std::string base64(ByteView bytes) {
  std::string text = to_base64(bytes);
  while (text.ends_with('=')) text.pop_back();
  return text;
}

std::optional<Bytes> unbase64(std::string_view text) {
  if (text.ends_with('=')) return std::nullopt;
  std::string padded(text);
  while (padded.size() % 4 != 0) padded.push_back('=');
  return from_base64(padded);
}

std::string stanza(const AgeRecipient& recipient, ByteView file_key) {
  const SecretBytes ephemeral = crypto::random_secret(kPointBytes);
  const AgeRecipient share = point_of(ephemeral.span());
  const auto secret = shared_secret(ephemeral.span(), recipient.point);
  if (!secret) {
    throw Error(Code::kInvalidArgument,
                fmt::format("the recipient '{}' is no usable key", to_string(recipient)));
  }
  Bytes salt(share.point.begin(), share.point.end());
  salt.insert(salt.end(), recipient.point.begin(), recipient.point.end());
  const SecretBytes wrap = hkdf(secret->span(), salt, kX25519Info);
  std::array<std::byte, kFileKeyBytes + kTagBytes> body{};
  seal_chunk(wrap.span(), ChaChaNonce{}, file_key, body);
  return fmt::format("{}X25519 {}\n{}\n", kStanzaPrefix, base64(share.point), base64(body));
}

SecretBytes header_mac(ByteView file_key, std::string_view header) {
  return crypto::hmac("sha256", hkdf(file_key, {}, "header").span(), as_byte_view(header));
}

struct Stanza {
  std::string_view arguments;
  Bytes body;
};

// Reads the header line by line.
class HeaderReader {
 public:
  HeaderReader(ByteView sealed, std::string_view what)
      : text_(as_string_view(sealed.first(std::min(sealed.size(), limits::kAgeHeaderBytesMax)))),
        what_(what) {}

  void read() {
    const std::string_view version = line();
    if (version != kVersionLine) {
      if (!version.starts_with("age-encryption.org/")) fail("no age file");
      throw Error(Code::kUnsupported,
                  fmt::format("{}: '{}' is not a known version of age", what_, printable(version)));
    }
    std::string_view next = line();
    while (next.starts_with(kStanzaPrefix)) {
      if (stanzas.size() == limits::kAgeRecipientsMax) fail("too many recipients");
      stanzas.push_back({next.substr(kStanzaPrefix.size()), body()});
      next = line();
    }
    if (stanzas.empty() || !next.starts_with("--- ")) fail("the age header is damaged");
    const auto found = unbase64(next.substr(kMacPrefix.size() + 1));
    if (!found || found->size() != 32) fail("the age header is damaged");
    mac = *found;
    const auto mac_line = static_cast<std::size_t>(next.data() - text_.data());
    authenticated = text_.substr(0, mac_line + kMacPrefix.size());
    header_bytes = at_;
  }

  [[noreturn]] void fail(std::string_view problem) const {
    throw Error(Code::kDamaged, fmt::format("{}: {}", what_, problem));
  }

  std::vector<Stanza> stanzas;
  Bytes mac;
  std::string_view authenticated;
  std::size_t header_bytes = 0;

 private:
  std::string_view line() {
    const std::size_t end = text_.find('\n', at_);
    if (end == std::string_view::npos) fail("the age header has no end");
    const std::string_view found = text_.substr(at_, end - at_);
    at_ = end + 1;
    return found;
  }

  // Full lines up to one that is not.
  Bytes body() {
    std::string text;
    while (true) {
      const std::string_view next = line();
      if (next.size() > kLineChars) fail("the age header is damaged");
      text += next;
      if (next.size() < kLineChars) break;
    }
    auto bytes = unbase64(text);
    if (!bytes) fail("the age header is damaged");
    return std::move(*bytes);
  }

  std::string_view text_;
  std::string_view what_;
  std::size_t at_ = 0;
};

std::optional<SecretBytes> unwrap(const Stanza& stanza, const AgeIdentity& identity) {
  constexpr std::string_view kType = "X25519 ";
  if (!stanza.arguments.starts_with(kType) || stanza.body.size() != kFileKeyBytes + kTagBytes) {
    return std::nullopt;
  }
  const auto share = unbase64(stanza.arguments.substr(kType.size()));
  if (!share || share->size() != kPointBytes) return std::nullopt;
  const auto secret = shared_secret(identity.scalar.span(), *share);
  if (!secret) return std::nullopt;
  const AgeRecipient own = recipient_of(identity);
  Bytes salt = *share;
  salt.insert(salt.end(), own.point.begin(), own.point.end());
  const SecretBytes wrap = hkdf(secret->span(), salt, kX25519Info);
  SecretBytes file_key(kFileKeyBytes);
  if (!open_chunk(wrap.span(), ChaChaNonce{}, stanza.body, file_key.span())) return std::nullopt;
  return file_key;
}

std::optional<SecretBytes> find_file_key(const HeaderReader& header,
                                         std::span<const AgeIdentity> identities) {
  for (const AgeIdentity& identity : identities) {
    for (const Stanza& stanza : header.stanzas) {
      if (auto key = unwrap(stanza, identity)) return key;
    }
  }
  return std::nullopt;
}

Bytes open_payload(ByteView payload, ByteView file_key, const HeaderReader& header) {
  if (payload.size() < kNonceBytes + kTagBytes) header.fail("the sealed part is cut off");
  const SecretBytes key = hkdf(file_key, payload.first(kNonceBytes), "payload");
  payload = payload.subspan(kNonceBytes);
  Bytes plain;
  plain.reserve(payload.size());
  for (std::uint64_t number = 0;; ++number) {
    const std::size_t size = std::min(payload.size(), kChunkBytes + kTagBytes);
    const bool last = size == payload.size();
    const std::size_t start = plain.size();
    // Only an empty file ends with an empty chunk.
    if (size < kTagBytes || (size == kTagBytes && number > 0)) {
      header.fail("the sealed part is cut off");
    }
    plain.resize(start + size - kTagBytes);
    if (!open_chunk(key.span(), chunk_nonce(number, last), payload.first(size),
                    MutableBytes(plain).subspan(start))) {
      header.fail("the sealed part was changed or cut off");
    }
    if (last) return plain;
    payload = payload.subspan(size);
  }
}

// The lines of a file that are neither blank nor a comment, with their numbers.
template <typename Use>
void each_line(std::string_view text, const Use& use) {
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty() && line.front() != '#') use(line, number);
  }
}

}  // namespace

AgeRecipient parse_age_recipient(std::string_view text) {
  const auto bytes = bech32_decode(kRecipientPrefix, text);
  AgeRecipient recipient;
  if (!bytes || bytes->size() != recipient.point.size()) {
    throw Error(Code::kInvalidArgument, fmt::format("'{}' is no age recipient", printable(text)),
                "it looks like age1…, as age-keygen prints it");
  }
  std::ranges::copy(bytes->span(), recipient.point.begin());
  return recipient;
}

std::string to_string(const AgeRecipient& recipient) {
  return std::string(as_string_view(bech32_encode(kRecipientPrefix, recipient.point).span()));
}

std::vector<AgeRecipient> parse_age_recipients(std::string_view text, std::string_view what) {
  std::vector<AgeRecipient> recipients;
  each_line(text, [&](std::string_view line, std::size_t number) {
    if (recipients.size() == limits::kAgeRecipientsMax) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("{} has more than {} recipients", what, limits::kAgeRecipientsMax));
    }
    try {
      recipients.push_back(parse_age_recipient(line));
    } catch (const Error& error) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("{}, line {}: {}", what, number, error.message()), error.hint());
    }
  });
  return recipients;
}

AgeIdentity make_age_identity() { return {crypto::random_secret(kPointBytes)}; }

AgeRecipient recipient_of(const AgeIdentity& identity) { return point_of(identity.scalar.span()); }

SecretBytes to_text(const AgeIdentity& identity) {
  SecretBytes text = bech32_encode(kIdentityPrefix, identity.scalar.span());
  for (std::byte& byte : text.span()) {
    const char c = static_cast<char>(byte);
    if (c >= 'a' && c <= 'z') byte = static_cast<std::byte>(c - 'a' + 'A');
  }
  return text;
}

std::vector<AgeIdentity> parse_age_identities(ByteView text, std::string_view what) {
  std::vector<AgeIdentity> identities;
  each_line(as_string_view(text), [&](std::string_view line, std::size_t number) {
    auto scalar = bech32_decode(kIdentityPrefix, line);
    if (!scalar || scalar->size() != kPointBytes ||
        identities.size() == limits::kAgeRecipientsMax) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("{}, line {}: this is no private key of age", what, number),
                  "it looks like AGE-SECRET-KEY-1…, as age-keygen prints it");
    }
    identities.push_back({std::move(*scalar)});
  });
  return identities;
}

AgeSealer::AgeSealer(std::span<const AgeRecipient> recipients, Sink sink) : sink_(std::move(sink)) {
  if (recipients.empty()) {
    throw Error(Code::kInvalidArgument, "there is nobody to seal to: no recipient");
  }
  const SecretBytes file_key = crypto::random_secret(kFileKeyBytes);
  std::string header = fmt::format("{}\n", kVersionLine);
  for (const AgeRecipient& recipient : recipients) header += stanza(recipient, file_key.span());
  header += kMacPrefix;
  header += fmt::format(" {}\n", base64(header_mac(file_key.span(), header).span()));
  const Bytes nonce = crypto::random_bytes(kNonceBytes);
  key_ = hkdf(file_key.span(), nonce, "payload");
  sink_(as_byte_view(header));
  sink_(nonce);
  pending_.reserve(kChunkBytes);
  sealed_.resize(kChunkBytes + kTagBytes);
}

void AgeSealer::add(ByteView plain) {
  while (!plain.empty()) {
    // Only when more follows is it known that a chunk is not the last.
    if (pending_.size() == kChunkBytes) {
      seal(pending_, false);
      pending_.clear();
    }
    while (pending_.empty() && plain.size() > kChunkBytes) {
      seal(plain.first(kChunkBytes), false);
      plain = plain.subspan(kChunkBytes);
    }
    const ByteView part = plain.first(std::min(plain.size(), kChunkBytes - pending_.size()));
    pending_.insert(pending_.end(), part.begin(), part.end());
    plain = plain.subspan(part.size());
  }
}

void AgeSealer::finish() { seal(pending_, true); }

void AgeSealer::seal(ByteView chunk, bool last) {
  const MutableBytes out = MutableBytes(sealed_).first(chunk.size() + kTagBytes);
  seal_chunk(key_.span(), chunk_nonce(chunks_++, last), chunk, out);
  sink_(out);
}

Bytes age_seal(ByteView plain, std::span<const AgeRecipient> recipients) {
  Bytes sealed;
  sealed.reserve(plain.size() + (plain.size() / kChunkBytes + 1) * kTagBytes);
  AgeSealer sealer(recipients,
                   [&](ByteView part) { sealed.insert(sealed.end(), part.begin(), part.end()); });
  sealer.add(plain);
  sealer.finish();
  return sealed;
}

std::optional<Bytes> age_open(ByteView sealed, std::span<const AgeIdentity> identities,
                              std::string_view what) {
  HeaderReader header(sealed, what);
  header.read();
  const auto file_key = find_file_key(header, identities);
  if (!file_key) return std::nullopt;
  const SecretBytes mac = header_mac(file_key->span(), header.authenticated);
  if (!equal_constant_time(mac.span(), header.mac)) header.fail("the age header was changed");
  return open_payload(sealed.subspan(header.header_bytes), file_key->span(), header);
}

}  // namespace lukskeep::archive
