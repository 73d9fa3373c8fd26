// How a passphrase gets into QEMU, and whether QEMU's own LUKS driver has any use for it.
#pragma once

#include <string>
#include <string_view>

#include <lukskeep/header.h>
#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::vm {

// What QEMU (crypto/block-luks.c) cannot do with this volume: LUKS2, a cipher, mode or hash that it
// lacks, a passphrase that is no UTF-8 or has a NUL byte. Empty if nothing speaks against it; else
// the reason, to follow "QEMU cannot open 'x' itself: ".
std::string why_not_in_qemu(const luks::Header& header, ByteView passphrase);

// A passphrase as QEMU's object "secret" takes it with `keyid` and `iv`: AES-256-CBC with PKCS#7
// padding, of which `master_key` is the key (QEMU, qapi/crypto.json, SecretProperties).
struct SealedPassphrase {
  SecretBytes master_key;  // 32 bytes, made for this one use
  std::string iv;          // base64
  std::string data;        // base64
};
SealedPassphrase seal_passphrase(ByteView passphrase);

}  // namespace lukskeep::vm
