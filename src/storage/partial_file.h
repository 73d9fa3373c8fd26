// A file that grows over several runs of a program until it is whole: what was received of a long
// transfer stays when that breaks, and the next run goes on from there.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <lukskeep/device.h>

namespace lukskeep::storage {

// PATH.TAG.part beside PATH, which appears only with commit(). Locked: of two programs that want to
// go on with one part the second gets kBusy. One thread at a time, except for the device.
class PartialFile {
 public:
  // Opens the part that is there, or makes an empty one, with mode 0600. `tag` names what is being
  // received: letters, digits and '-', at most 64. A part that is not a regular file of this user,
  // that others may write to or that has other names is refused (kUnsafe). Throws kExists if `path`
  // is there, and what creating a file throws.
  PartialFile(const std::string& path, const std::string& tag);
  // What was neither committed nor kept is removed.
  ~PartialFile();
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  const std::shared_ptr<Device>& device() const noexcept;
  // Where the part is, for messages.
  const std::string& part_path() const noexcept;
  // The part stays, whatever comes; durable if it can be.
  void keep() noexcept;
  // Durable, and under its name; never replaces anything (kExists).
  void commit();
  // Whether it has its name: also after a commit() that could not make that durable.
  bool named() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lukskeep::storage
