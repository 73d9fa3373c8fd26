#include "image/glance_transfer.h"

#include <algorithm>
#include <exception>
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

// A service that does not say how much there is could send for ever.
std::uint64_t size_of(const Glance& glance, const GlanceImage& image) {
  if (image.size_bytes) return *image.size_bytes;
  throw Error(
      Code::kRemote,
      fmt::format("{} does not say how large image {} is", glance.name(), in_quotes(image.id)),
      "nothing can be compared with it");
}

// The data from `at` on, in order and each byte once, until all has come: a transfer that ends
// early is gone on with. `at` is where it is.
void fetch(Glance& glance, const GlanceImage& image, std::uint64_t& at, const CancelToken* cancel,
           const std::function<void(ByteView)>& sink) {
  const std::uint64_t size = size_of(glance, image);
  const auto take = [&](std::uint64_t offset, ByteView bytes) {
    if (cancel != nullptr) cancel->check();
    if (offset > at) throw Error(Code::kInternal, "a download has a gap");
    // It began earlier than it was asked to: what is there already is not taken again.
    const std::uint64_t there = std::min<std::uint64_t>(at - offset, bytes.size());
    bytes = bytes.subspan(static_cast<std::size_t>(there));
    if (bytes.empty()) return;
    if (bytes.size() > size - at) {
      throw Error(Code::kDamaged, fmt::format("{} sends more bytes than image {} has",
                                              glance.name(), in_quotes(image.id)));
    }
    sink(bytes);
    at += bytes.size();
  };
  for (unsigned tries = 1; at < size; ++tries) {
    const std::uint64_t before = at;
    std::optional<Error> error;
    try {
      glance.get_file(image.id, before, take);
      if (at == size) return;
    } catch (const Error& broken) {
      if (broken.code() != Code::kRemote && broken.code() != Code::kTimeout) throw;
      error = broken;
    }
    if (at - before >= kProgressBytes) tries = 0;
    if (tries >= limits::kImageTransferTries) {
      if (error) throw Error(*error);
      throw Error(Code::kRemote, fmt::format("{} sends only {} of the {} bytes of image {}",
                                             glance.name(), at, size, in_quotes(image.id)));
    }
    keys::pause_ms(kPauseMs, cancel);
  }
}

// Why the secret of an image that is to be deleted with it has to stay; empty: it may go. Glance,
// and Barbican before consumers, would delete it whoever needs it: nothing but the image's own
// entry alone in the list proves that nobody else does.
std::string reason_to_keep(const ReadProperties& read, const keys::Consumer& own,
                           keys::KeyManager& manager) {
  if (has_error(read.problems)) return "what the image says of its encryption contradicts itself";
  std::vector<keys::Consumer> consumers;
  try {
    consumers = manager.consumers(read.description.key_id);
  } catch (const Error& error) {
    // Glance may ask another key manager, where it is.
    if (error.code() == Code::kNotFound) return manager.description() + " has no such secret";
    if (error.code() != Code::kUnsupported) throw;
  }
  for (const keys::Consumer& one : consumers) {
    if (one != own) return fmt::format("{} uses it too", printable(keys::to_string(one), 200));
  }
  if (!consumers.empty()) return {};
  return "the image is not known as its consumer, so others may use it too";
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
  } catch (const std::exception& error) {
    undo.run(Error(Code::kInternal, error.what()));
  }
}

void download_image(Glance& glance, const GlanceImage& image, Device& part,
                    const DownloadWork& work) {
  Sum sum(image.hash_algorithm);
  // Without a checksum nothing would tell that the rest is of another image.
  if (!sum.known() || part.size_bytes() > size_of(glance, image)) part.resize(0);
  std::uint64_t at = part.size_bytes();
  sum.add(part, at, work.cancel);
  fetch(glance, image, at, work.cancel, [&](ByteView bytes) {
    const std::uint64_t end = at + bytes.size();
    part.resize(end);
    part.write(at, bytes);
    sum.add(bytes);
    if (work.progress) {
      work.progress({.phase = "download", .done_bytes = end, .total_bytes = image.size_bytes});
    }
  });
  check_arrived(glance, image, part.size_bytes(), sum);
}

Verified verify_image(Glance& glance, const GlanceImage& image, const Device* file,
                      const DownloadWork& work) {
  Inspector inspector;
  Sum sum(image.hash_algorithm);
  const std::uint64_t size = file == nullptr ? size_of(glance, image) : file->size_bytes();
  std::uint64_t at = 0;
  const auto look = [&](ByteView bytes) {
    inspector.feed(bytes);
    sum.add(bytes);
    if (work.progress) {
      work.progress(
          {.phase = "verify", .done_bytes = at + bytes.size(), .total_bytes = image.size_bytes});
    }
  };
  if (file == nullptr) {
    fetch(glance, image, at, work.cancel, look);
  } else {
    Bytes buffer(kReadBytes);
    for (; at < size; at += buffer.size()) {
      if (work.cancel != nullptr) work.cancel->check();
      buffer.resize(static_cast<std::size_t>(std::min<std::uint64_t>(kReadBytes, size - at)));
      file->read(at, buffer);
      look(buffer);
    }
  }
  const bool known = sum.known();
  check_arrived(glance, image, size, sum);
  return {.report = inspector.finish(), .checksum_known = known};
}

Removed remove_image(Glance& glance, const GlanceImage& image, keys::KeyManager* manager) {
  const ReadProperties read = read_properties(image.properties);
  const Description& said = read.description;
  const keys::Consumer own = consumer_of(image.id);
  Removed removed;
  const bool with_key = manager != nullptr && !said.key_id.empty();
  // A contradiction is read as "keep", and Glance may read it in another way.
  const bool deletion_asked =
      said.delete_key == true || (said.delete_key && has_error(read.problems));
  if (with_key && deletion_asked) removed.key_kept_because = reason_to_keep(read, own, *manager);
  const bool delete_key = with_key && deletion_asked && removed.key_kept_because.empty();
  if (deletion_asked && !delete_key) {
    // Glance looks at no consumers before it deletes.
    glance.change(image, {},
                  {"cinder_encryption_key_deletion_policy", "os_encrypt_key_deletion_policy"});
  }
  glance.remove(image.id);
  if (!with_key) return removed;
  try {
    manager->remove_consumer(said.key_id, own);
    if (!delete_key) return removed;
    manager->remove(said.key_id);
    removed.key_deleted = true;
  } catch (const Error& error) {
    if (error.code() == Code::kNotFound) {
      removed.key_deleted = delete_key;  // Glance did it
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
