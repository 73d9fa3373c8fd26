#include "archive/keeper.h"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "storage/file_device.h"
#include "storage/folders.h"
#include "storage/location.h"

namespace lukskeep::archive {
namespace {

namespace fs = std::filesystem;

// Durable before anything is sealed to it.
void make_identity_file(const std::string& path) {
  storage::make_folders(fs::path(path).parent_path().string());
  const AgeIdentity identity = make_age_identity();
  const std::string head = fmt::format(
      "# Opens the snapshots of the header archive. Keep a copy of it somewhere else.\n"
      "# public key: {}\n",
      to_string(recipient_of(identity)));
  const SecretBytes secret = to_text(identity);
  SecretBytes text(head.size() + secret.size() + 1);
  std::ranges::copy(as_byte_view(head), text.span().begin());
  std::ranges::copy(secret.span(), text.span().begin() + static_cast<std::ptrdiff_t>(head.size()));
  text.span().back() = std::byte{'\n'};
  storage::PendingFile file(path, text.size(), false);
  file.device().write(0, text.span());
  file.commit();
}

// Another process may be as quick to make the same.
template <typename Make>
void unless_exists(const Make& make) {
  try {
    make();
  } catch (const Error& error) {
    if (error.code() != Code::kExists) throw;
  }
}

std::vector<AgeRecipient> recipients_of_file(const std::string& path) {
  const auto device = storage::open_file(path, {.lock = false});
  if (device->size_bytes() > limits::kAgeHeaderBytesMax) {
    throw Error(Code::kInvalidArgument,
                fmt::format("'{}' is no file of private keys", printable(path, 256)));
  }
  SecretBytes text(device->size_bytes());
  device->read(0, text.span());
  std::vector<AgeRecipient> recipients;
  for (const AgeIdentity& identity : parse_age_identities(text.span(), path)) {
    recipients.push_back(recipient_of(identity));
  }
  return recipients;
}

}  // namespace

Store open_or_make(const std::string& directory, const IdentityPath& identity_path,
                   std::optional<std::string>& made_with) {
  if (!Store::exists(directory)) {
    const std::string path = identity_path();
    std::error_code ignored;
    if (!fs::exists(path, ignored)) unless_exists([&] { make_identity_file(path); });
    const std::vector<AgeRecipient> recipients = recipients_of_file(path);
    unless_exists([&] { Store::create(directory, recipients); });
    made_with = path;
  }
  return Store(directory);
}

Keeper::Keeper(std::string directory, IdentityPath identity_path, std::string command, Open open)
    : directory_(std::move(directory)),
      identity_path_(std::move(identity_path)),
      command_(std::move(command)),
      open_(std::move(open)) {
  if (open_) return;
  open_ = [](const std::string& path) { return storage::open_location(path, {}); };
}

Store& Keeper::store() {
  if (!store_) store_ = open_or_make(directory_, identity_path_, made_with_);
  return *store_;
}

std::string Keeper::before(const luks::HeaderFile& file, const std::string& path) {
  std::string id;
  try {
    id = store().add(file, {.path = path, .reason = "before", .command = command_}).id;
  } catch (const Error& error) {
    throw Error(error.code(),
                fmt::format("cannot archive the header of '{}' before it is changed: {}",
                            file.device()->name(), error.message()),
                "--no-archive changes it without a copy");
  }
  will_write(path);
  return id;
}

std::string Keeper::before(const Capture& wreck) {
  try {
    return store()
        .add(wreck, {.path = wreck.manifest.device.path,
                     .reason = std::string(kWreck),
                     .command = command_})
        .id;
  } catch (const Error& error) {
    throw Error(error.code(),
                fmt::format("cannot archive what is left of the header of '{}': {}",
                            wreck.manifest.device.path, error.message()),
                "--no-archive overwrites it without a copy");
  }
}

void Keeper::will_write(const std::string& path) {
  if (std::ranges::find(paths_, path) == paths_.end()) paths_.push_back(path);
}

void Keeper::moved(const std::string& from, const std::string& to) {
  std::erase(paths_, from);
  will_write(to);
}

std::vector<std::string> Keeper::after() noexcept {
  std::vector<std::string> problems;
  for (const std::string& path : paths_) {
    try {
      const auto file = luks::HeaderFile::open(open_(path));
      store().add(file, {.path = path, .reason = "after", .command = command_});
    } catch (const std::exception& error) {
      problems.push_back(fmt::format("the new header of '{}' is not in the archive: {}",
                                     printable(path, 256), error.what()));
    }
  }
  paths_.clear();
  return problems;
}

}  // namespace lukskeep::archive
