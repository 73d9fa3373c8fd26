#include "crypto/kdf_memory.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include <unistd.h>

#include "crypto/kdf.h"

namespace lukskeep::crypto {
namespace {

constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max();

std::optional<std::uint64_t> leading_number(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  std::uint64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc{}) return std::nullopt;
  return value;
}

// The rest of the first line of `file` that starts with `prefix`.
std::optional<std::string> line_after(const char* file, std::string_view prefix) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with(prefix)) return line.substr(prefix.size());
  }
  return std::nullopt;
}

std::uint64_t own_cgroup_limit_kib() {
  // cgroups(7): the one line "0::PATH" is version 2.
  const auto path = line_after("/proc/self/cgroup", "0::");
  return path ? cgroup_limit_kib("/sys/fs/cgroup", path->c_str()) : kUnlimited;
}

std::optional<std::uint64_t> meminfo_kib(std::string_view field) {
  const auto text = line_after("/proc/meminfo", field);
  return text ? leading_number(*text) : std::nullopt;
}

}  // namespace

std::uint64_t cgroup_limit_kib(const char* mount, const char* path) {
  const std::filesystem::path root(mount);
  std::filesystem::path group = root / std::filesystem::path(path).relative_path();
  std::uint64_t limit = kUnlimited;
  for (;;) {
    std::ifstream stream(group / "memory.max");
    std::string text;  // a number of bytes, or "max"
    if (std::getline(stream, text)) {
      if (const auto bytes = leading_number(text)) limit = std::min(limit, *bytes / 1024);
    }
    if (group == root || !group.has_relative_path()) return limit;
    group = group.parent_path();
  }
}

std::uint64_t total_memory_kib() {
  const auto pages = static_cast<std::uint64_t>(std::max(0L, sysconf(_SC_PHYS_PAGES)));
  const auto page_bytes = static_cast<std::uint64_t>(std::max(0L, sysconf(_SC_PAGESIZE)));
  return std::min(pages * page_bytes / 1024, own_cgroup_limit_kib());
}

std::uint64_t available_memory_kib() {
  const auto memory = meminfo_kib("MemAvailable:");
  if (!memory) return own_cgroup_limit_kib();
  return std::min(*memory + meminfo_kib("SwapFree:").value_or(0), own_cgroup_limit_kib());
}

std::uint32_t cap_memory_kib(std::uint32_t memory_kib) {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(memory_kib, total_memory_kib() / 2));
}

}  // namespace lukskeep::crypto
