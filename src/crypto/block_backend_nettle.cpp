// Twofish with 192-bit keys, which libgcrypt does not have.
#include <cassert>

#include <lukskeep/error.h>
#include <nettle/twofish.h>

#include "crypto/block_key.h"
#include "crypto/key_memory.h"

namespace lukskeep::crypto {
namespace {

class NettleTwofishKey final : public BlockKey {
 public:
  explicit NettleTwofishKey(ByteView key)
      : BlockKey(TWOFISH_BLOCK_SIZE), context_(sizeof(Context)) {
    twofish_set_key(reinterpret_cast<Context*>(context_.span().data()), key.size(),
                    reinterpret_cast<const std::uint8_t*>(key.data()));
  }

  void encrypt(MutableBytes blocks) const override {
    assert(blocks.size() % block_bytes() == 0);
    auto* data = reinterpret_cast<std::uint8_t*>(blocks.data());
    twofish_encrypt(context(), blocks.size(), data, data);
  }
  void decrypt(MutableBytes blocks) const override {
    assert(blocks.size() % block_bytes() == 0);
    auto* data = reinterpret_cast<std::uint8_t*>(blocks.data());
    twofish_decrypt(context(), blocks.size(), data, data);
  }
  std::string_view kernel() const noexcept override { return "nettle"; }

 private:
  using Context = twofish_ctx;

  // Nettle does not change the context when it works, so that threads can share it.
  const Context* context() const {
    return reinterpret_cast<const Context*>(context_.bytes().data());
  }

  KeyMemory context_;
};

}  // namespace

std::unique_ptr<BlockKey> make_nettle_twofish_key(ByteView key) {
  if (key.size() != TWOFISH192_KEY_SIZE) {
    throw Error(Code::kInternal, "only Twofish keys of 192 bits go through nettle");
  }
  return std::make_unique<NettleTwofishKey>(key);
}

}  // namespace lukskeep::crypto
