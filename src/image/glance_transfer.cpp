#include "image/glance_transfer.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "crypto/hash.h"

namespace lukskeep::image {
namespace {

constexpr std::size_t kReadBytes = limits::kMiB;
constexpr unsigned kPauseMs = 500;
// What a try has to bring for the next ones not to count: else a service could go on for ever.
constexpr std::uint64_t kProgressBytes = limits::kMiB;

std::string in_quotes(const std::string& id) { return fmt::format("'{}'", printable(id, 64)); }

// What was done, to be undone in the reverse order.
class Undo {
 public:
  using Work = std::function<void(Services&)>;

  explicit Undo(const MakeServices& make) : make_(make) {}

  // `what` says what is left if `work` fails.
  void add(std::string what, Work work) { steps_.emplace_back(std::move(what), std::move(work)); }
  void drop() { steps_.pop_back(); }

  [[noreturn]] void run(const Error& error) {
    std::string left;
    for (; !steps_.empty(); steps_.pop_back()) {
      if (undone(steps_.back().second)) continue;
      left += (left.empty() ? "" : "; ") + steps_.back().first;
    }
    if (left.empty()) throw Error(error);
    throw Error(error.code(), error.message(),
                fmt::format("{}{}what could not be undone: {}", error.hint(),
                            error.hint().empty() ? "" : "; ", left));
  }

 private:
  bool undone(const Work& work) {
    try {
      if (!services_) services_ = make_(nullptr);
      work(*services_);
      return true;
    } catch (const Error&) {
      return false;
    }
  }

  const MakeServices& make_;
  std::optional<Services> services_;
  std::vector<std::pair<std::string, Work>> steps_;
};

// A hash over a device from its start on, or over what is handed to it.
class Sum {
 public:
  explicit Sum(const std::string& algorithm) {
    if (!algorithm.empty() && crypto::find_hash(algorithm)) hash_.emplace(algorithm);
  }
  bool known() const noexcept { return hash_.has_value(); }
  void add(ByteView bytes) {
    if (hash_) hash_->update(bytes);
  }
  void add(const Device& device, std::uint64_t length, const CancelToken* cancel) {
    Bytes buffer(static_cast<std::size_t>(std::min<std::uint64_t>(length, kReadBytes)));
    for (std::uint64_t at = 0; at < length;) {
      if (cancel != nullptr) cancel->check();
      const auto some = MutableBytes(buffer).first(
          static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), length - at)));
      device.read(at, some);
      add(some);
      at += some.size();
    }
  }
  std::string hex() {
    if (!hash_) return {};
    Bytes digest(hash_->digest_bytes());
    hash_->finish(digest);
    return to_hex(digest);
  }

 private:
  std::optional<crypto::Hash> hash_;
};

void check_arrived(const Glance& glance, const GlanceImage& image, std::uint64_t size, Sum& sum) {
  const auto fail = [&](std::string_view problem) {
    throw Error(Code::kDamaged,
                fmt::format("{} of image {} in {}", problem, in_quotes(image.id), glance.name()));
  };
  if (image.size_bytes && *image.size_bytes != size) {
    fail(fmt::format("there are {} bytes, not the {},", size, *image.size_bytes));
  }
  if (sum.known() && sum.hex() != image.hash) {
    fail(fmt::format("the {} checksum is not that", image.hash_algorithm));
  }
}

// The data as it goes up is summed on the way: read once more only where curl starts over.
class SummedDevice final : public Device {
 public:
  SummedDevice(const Device& below, Sum& sum) : below_(below), sum_(sum) {}
  std::string name() const override { return below_.name(); }
  std::uint64_t size_bytes() const override { return below_.size_bytes(); }
  bool writable() const override { return false; }
  std::uint32_t block_size_bytes() const override { return below_.block_size_bytes(); }
  void read(std::uint64_t offset, MutableBytes out) const override {
    below_.read(offset, out);
    const std::uint64_t end = offset + out.size();
    if (offset > at_ || end <= at_) return;  // again; what is summed already
    sum_.add(out.subspan(static_cast<std::size_t>(at_ - offset)));
    at_ = end;
  }
  void write(std::uint64_t, ByteView) override {
    throw Error(Code::kReadOnly, "an image is not written while it is uploaded");
  }
  void flush() override {}
  bool whole() const noexcept { return at_ == below_.size_bytes(); }

 private:
  const Device& below_;
  Sum& sum_;
  mutable std::uint64_t at_ = 0;
};

// The answer to a creation was lost, or refused what was asked for.
void settle_creation(Glance& glance, const std::string& id, const Error& error) {
  const bool lost = error.code() == Code::kRemote || error.code() == Code::kTimeout;
  if (!lost || !glance.find(id)) throw Error(error);
}

GlanceImage settle_upload(Glance& glance, const std::string& id, const Error* error) {
  GlanceImage image = glance.get(id);
  if (image.status == "active") return image;
  if (error != nullptr) throw Error(*error);
  throw Error(Code::kRemote, fmt::format("{} has image {} as '{}' after its upload", glance.name(),
                                         in_quotes(id), printable(image.status)));
}

GlanceImage put(Glance& glance, const SummedDevice& summed, const UploadOptions& options) {
  std::optional<Error> failed;
  try {
    glance.put_file(options.id, summed, options.progress);
  } catch (const Error& error) {
    const bool lost = error.code() == Code::kRemote || error.code() == Code::kTimeout;
    if (!lost) throw;
    failed = error;
  }
  if (!summed.whole() && failed) throw Error(*failed);
  return settle_upload(glance, options.id, failed ? &*failed : nullptr);
}

bool register_consumer(keys::KeyManager* manager, const UploadOptions& options, Undo& undo) {
  if (options.key_id.empty() || manager == nullptr) return false;
  const keys::Consumer consumer = consumer_of(options.id);
  undo.add(fmt::format("the consumer {} of secret {} in {}", keys::to_string(consumer),
                       in_quotes(options.key_id), manager->description()),
           [consumer, id = options.key_id](Services& services) {
             services.manager->remove_consumer(id, consumer);
           });
  try {
    manager->add_consumer(options.key_id, consumer);
    return true;
  } catch (const Error& error) {
    const bool perhaps = error.code() == Code::kRemote || error.code() == Code::kTimeout ||
                         error.code() == Code::kInterrupted;
    if (!perhaps) undo.drop();
    if (error.code() != Code::kUnsupported) throw;
    return false;
  }
}

}  // namespace

keys::Consumer consumer_of(const std::string& image_id) {
  return {.service = "image", .resource_type = "image", .resource_id = image_id};
}

Uploaded upload_image(const MakeServices& make, const Device& device,
                      const UploadOptions& options) {
  const Services services = make(options.cancel);
  Glance& glance = *services.glance;
  Undo undo(make);
  Uploaded uploaded;
  try {
    // First, so that nothing is there yet if there is no such secret.
    uploaded.consumer = register_consumer(services.manager.get(), options, undo);
    undo.add(fmt::format("image {} in {}", in_quotes(options.id), glance.name()),
             [id = options.id](Services& fresh) {
               if (fresh.glance->find(id)) fresh.glance->remove(id);
             });
    try {
      glance.create(options.id, options.name, options.properties);
    } catch (const Error& error) {
      settle_creation(glance, options.id, error);
    }
    Sum sum(options.hash_algorithm);
    const SummedDevice summed(device, sum);
    uploaded.image = put(glance, summed, options);
    if (uploaded.image.hash_algorithm != options.hash_algorithm || !summed.whole()) {
      // Another one than is usual: read again.
      sum = Sum(uploaded.image.hash_algorithm);
      sum.add(device, device.size_bytes(), options.cancel);
    }
    check_arrived(glance, uploaded.image, device.size_bytes(), sum);
    return uploaded;
  } catch (const Error& error) {
    undo.run(error);
  }
}

void download_image(Glance& glance, const GlanceImage& image, Device& part,
                    const DownloadWork& work) {
  Sum sum(image.hash_algorithm);
  if (image.size_bytes && part.size_bytes() > *image.size_bytes) part.resize(0);
  sum.add(part, part.size_bytes(), work.cancel);
  const auto take = [&](std::uint64_t offset, ByteView bytes) {
    std::uint64_t size = part.size_bytes();
    if (offset > size) throw Error(Code::kInternal, "a download has a gap");
    // It began earlier than it was asked to: what is there already is not taken again.
    const std::uint64_t there = std::min<std::uint64_t>(size - offset, bytes.size());
    bytes = bytes.subspan(static_cast<std::size_t>(there));
    if (bytes.empty()) return;
    if (image.size_bytes && bytes.size() > *image.size_bytes - size) {
      throw Error(Code::kDamaged, fmt::format("{} sends more bytes than image {} has",
                                              glance.name(), in_quotes(image.id)));
    }
    part.resize(size + bytes.size());
    part.write(size, bytes);
    sum.add(bytes);
    if (work.progress) {
      work.progress({.phase = "download",
                     .done_bytes = size + bytes.size(),
                     .total_bytes = image.size_bytes});
    }
  };
  const auto whole = [&] { return image.size_bytes && part.size_bytes() == *image.size_bytes; };
  for (unsigned tries = 1; !whole(); ++tries) {
    const std::uint64_t before = part.size_bytes();
    try {
      glance.get_file(image.id, before, take);
      if (!image.size_bytes) break;
    } catch (const Error& error) {
      const bool passing = error.code() == Code::kRemote || error.code() == Code::kTimeout;
      if (!passing || tries >= limits::kImageTransferTries) throw;
      keys::pause_ms(kPauseMs, work.cancel);
    }
    if (part.size_bytes() - before >= kProgressBytes) tries = 0;
    if (part.size_bytes() == before && tries >= limits::kImageTransferTries) break;
  }
  check_arrived(glance, image, part.size_bytes(), sum);
}

Verified verify_image(Glance& glance, const GlanceImage& image, const Device* file,
                      const DownloadWork& work) {
  Inspector inspector;
  Sum sum(image.hash_algorithm);
  std::uint64_t size = 0;
  const auto take = [&](std::uint64_t, ByteView bytes) {
    inspector.feed(bytes);
    sum.add(bytes);
    size += bytes.size();
    if (work.cancel != nullptr) work.cancel->check();
    if (work.progress) {
      work.progress({.phase = "verify", .done_bytes = size, .total_bytes = image.size_bytes});
    }
  };
  if (file == nullptr) {
    glance.get_file(image.id, 0, take);
  } else {
    Bytes buffer(kReadBytes);
    for (std::uint64_t at = 0; at < file->size_bytes();) {
      const auto some = MutableBytes(buffer).first(static_cast<std::size_t>(
          std::min<std::uint64_t>(buffer.size(), file->size_bytes() - at)));
      file->read(at, some);
      take(at, some);
      at += some.size();
    }
  }
  const bool known = sum.known();
  check_arrived(glance, image, size, sum);
  return {.report = inspector.finish(), .checksum_known = known};
}

Removed remove_image(Glance& glance, const GlanceImage& image, keys::KeyManager* manager) {
  const Description said = read_properties(image.properties).description;
  Removed removed;
  const bool with_key = manager != nullptr && !said.key_id.empty();
  bool others = false;
  if (with_key && said.delete_key == true) {
    auto consumers = manager->consumers(said.key_id);
    std::erase(consumers, consumer_of(image.id));
    others = !consumers.empty();
    if (others) {
      removed.key_kept_because =
          fmt::format("{} uses it too", printable(keys::to_string(consumers.front()), 200));
      // Glance looks at no consumers before it deletes.
      glance.change(image, {},
                    {"cinder_encryption_key_deletion_policy", "os_encrypt_key_deletion_policy"});
    }
  }
  glance.remove(image.id);
  if (!with_key) return removed;
  try {
    manager->remove_consumer(said.key_id, consumer_of(image.id));
    if (said.delete_key == true && !others) {
      manager->remove(said.key_id);
      removed.key_deleted = true;
    }
  } catch (const Error& error) {
    if (error.code() == Code::kNotFound) {
      removed.key_deleted = said.delete_key == true;  // Glance did it
      return removed;
    }
    throw Error(
        error.code(),
        fmt::format("image {} was removed, but not what it used: {}", in_quotes(image.id),
                    error.message()),
        fmt::format("the secret {} in {} may be left: lukskeep keystore show {}",
                    in_quotes(said.key_id), manager->description(), printable(said.key_id)));
  }
  return removed;
}

}  // namespace lukskeep::image
