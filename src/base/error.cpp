#include <lukskeep/error.h>

#include <array>
#include <cerrno>
#include <utility>

#include <lukskeep/progress.h>

namespace lukskeep {
namespace {

struct CodeRow {
  Code code;
  std::string_view name;
  int exit_status;
  int http_status;
  int nbd_errno;
};

constexpr std::array kCodeTable = {
    CodeRow{Code::kUsage, "usage", 1, 400, EINVAL},
    CodeRow{Code::kInvalidArgument, "invalid-argument", 1, 400, EINVAL},
    CodeRow{Code::kNotFound, "not-found", 1, 404, EINVAL},
    CodeRow{Code::kWrongPassphrase, "wrong-passphrase", 2, 403, EPERM},
    CodeRow{Code::kPermissionDenied, "permission-denied", 2, 403, EPERM},
    CodeRow{Code::kOutOfMemory, "out-of-memory", 3, 503, ENOMEM},
    CodeRow{Code::kNotLuks, "not-luks", 4, 422, EINVAL},
    CodeRow{Code::kDamaged, "damaged", 4, 422, EIO},
    CodeRow{Code::kUnsupported, "unsupported", 4, 422, ENOTSUP},
    CodeRow{Code::kTooSmall, "too-small", 4, 422, EINVAL},
    CodeRow{Code::kReadOnly, "read-only", 4, 409, EPERM},
    CodeRow{Code::kIo, "io", 4, 500, EIO},
    CodeRow{Code::kNoSpace, "no-space", 4, 507, ENOSPC},
    CodeRow{Code::kExists, "exists", 5, 409, EPERM},
    CodeRow{Code::kBusy, "busy", 5, 409, EPERM},
    CodeRow{Code::kConflict, "conflict", 5, 409, EPERM},
    CodeRow{Code::kUnsafe, "unsafe", 6, 403, EPERM},
    CodeRow{Code::kKdfLimit, "kdf-limit", 6, 403, EPERM},
    CodeRow{Code::kLastKeyslot, "last-keyslot", 6, 409, EPERM},
    CodeRow{Code::kNoFreeKeyslot, "no-free-keyslot", 1, 409, ENOSPC},
    CodeRow{Code::kRemote, "remote", 7, 502, EIO},
    CodeRow{Code::kTimeout, "timeout", 7, 504, EIO},
    CodeRow{Code::kInterrupted, "interrupted", 130, 503, ESHUTDOWN},
    CodeRow{Code::kInternal, "internal", 1, 500, EIO},
};

constexpr bool table_is_indexed_by_code() {
  for (std::size_t i = 0; i < kCodeTable.size(); ++i) {
    if (static_cast<std::size_t>(kCodeTable[i].code) != i) return false;
  }
  return kCodeTable.back().code == Code::kInternal;
}
static_assert(table_is_indexed_by_code());

const CodeRow& row(Code code) noexcept { return kCodeTable[static_cast<std::size_t>(code)]; }

}  // namespace

std::string_view code_name(Code code) noexcept { return row(code).name; }
int exit_status(Code code) noexcept { return row(code).exit_status; }
int http_status(Code code) noexcept { return row(code).http_status; }
int nbd_errno(Code code) noexcept { return row(code).nbd_errno; }

Error::Error(Code code, std::string message, std::string hint)
    : code_(code), message_(std::move(message)), hint_(std::move(hint)) {}

void CancelToken::check() const {
  if (cancelled()) throw Error(Code::kInterrupted, "interrupted");
}

}  // namespace lukskeep
