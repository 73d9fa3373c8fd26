// The text of a policy file to a Policy. TOML is toml++'s business; what the members are, ours.
#include <algorithm>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/toml_text.h"
#include "crypto/cipher_spec.h"
#include "crypto/hash.h"
#include "luks/policy.h"
#include "storage/file_device.h"

namespace lukskeep::luks {
namespace {

constexpr std::size_t kFingerprintBytes = 32;
// Of LUKS1, the shortest that cryptsetup and QEMU write: a shorter one could be hit by search.
constexpr std::size_t kPinnedDigestBytesMin = 20;
constexpr std::size_t kPinnedDigestBytesMax = 64;

[[noreturn]] void fail(std::string_view name, std::uint64_t line, std::string_view problem) {
  throw Error(Code::kInvalidArgument,
              fmt::format("policy '{}', line {}: {}", printable(name, 256), line, problem),
              "lukskeep-policy(1) describes the file");
}

// A value with the name and line that messages need.
struct Place {
  const toml::node& node;
  std::string member;
  std::uint64_t line = 0;
};

using Take = std::function<void(const Place&)>;
using Members = std::vector<std::pair<std::string_view, Take>>;

class Reader {
 public:
  explicit Reader(std::string_view name) : name_(name) {}

  Policy read(const toml::table& root);

 private:
  [[noreturn]] void fail_at(const Place& at, std::string_view problem) const {
    fail(name_, at.line, fmt::format("'{}' {}", at.member, problem));
  }

  const toml::table& table(const Place& at) const {
    if (!at.node.is_table()) fail_at(at, "is not a table");
    return *at.node.as_table();
  }

  // Calls `take` for each member of the table, in no order.
  void each(const toml::table& table, std::string_view path,
            const std::function<void(std::string_view key, const Place&)>& take) const {
    for (const auto& [key, node] : table) {
      const std::string shown = printable(key.str());
      take(key.str(), Place{.node = node,
                            .member = path.empty() ? shown : fmt::format("{}.{}", path, shown),
                            .line = key.source().begin.line});
    }
  }

  void members(const toml::table& table, std::string_view path, const Members& known) const {
    each(table, path, [&](std::string_view key, const Place& at) {
      const auto found = std::ranges::find(known, key, &std::pair<std::string_view, Take>::first);
      if (found == known.end()) fail_at(at, "is not a member that a policy knows");
      found->second(at);
    });
  }

  // Calls `take` for each element of the array.
  void elements(const Place& at, const Take& take) const {
    if (!at.node.is_array()) fail_at(at, "is not an array");
    for (const toml::node& node : *at.node.as_array()) {
      take(Place{.node = node, .member = at.member, .line = node.source().begin.line});
    }
  }

  std::string text(const Place& at, std::string_view what) const {
    if (!at.node.is_string()) fail_at(at, what);
    return at.node.as_string()->get();
  }

  std::uint64_t number(const Place& at, std::uint64_t max) const {
    if (!at.node.is_integer()) fail_at(at, "is not a whole number");
    const std::int64_t value = at.node.as_integer()->get();
    if (value < 0 || static_cast<std::uint64_t>(value) > max) {
      fail_at(at, fmt::format("is {}, not from 0 to {}", value, max));
    }
    return static_cast<std::uint64_t>(value);
  }

  Take set_flag(bool& target) const {
    return [this, &target](const Place& at) {
      if (!at.node.is_boolean()) fail_at(at, "is neither true nor false");
      target = at.node.as_boolean()->get();
    };
  }

  Take set_text(std::string& target) const {
    return [this, &target](const Place& at) { target = text(at, "is not a string"); };
  }

  Take set_bounds(Bounds& target) const {
    return [this, &target](const Place& at) { target = bounds(at); };
  }

  Take set_names(Names& target) const {
    return [this, &target](const Place& at) {
      target.emplace();
      elements(at, [&](const Place& one) { target->insert(text(one, "holds what is no string")); });
    };
  }

  Take set_hashes(Names& target) const;
  Take set_pins(Names& target, std::size_t bytes_min, std::size_t bytes_max) const;
  Take set_numbers(std::optional<std::set<std::uint32_t>>& target,
                   const std::function<bool(std::uint64_t)>& allowed) const;
  Take set_ciphers(std::optional<CipherRules>& target) const;
  Bounds bounds(const Place& at) const;
  KdfRule kdf(const Place& at, bool pbkdf2) const;
  void kdfs(const Place& at, Policy& policy) const;

  std::string_view name_;
};

Take Reader::set_hashes(Names& target) const {
  return [this, &target](const Place& at) {
    target.emplace();
    elements(at, [&](const Place& one) {
      const std::string name = text(one, "holds what is no string");
      const auto hash = crypto::find_hash(name);
      if (!hash) fail_at(one, fmt::format("names no known hash with '{}'", printable(name)));
      target->insert(hash->name);
    });
  };
}

Take Reader::set_pins(Names& target, std::size_t bytes_min, std::size_t bytes_max) const {
  return [this, &target, bytes_min, bytes_max](const Place& at) {
    target.emplace();
    elements(at, [&](const Place& one) {
      const auto bytes = from_hex(text(one, "holds what is no string"));
      if (!bytes || bytes->size() < bytes_min || bytes->size() > bytes_max) {
        fail_at(one,
                fmt::format("holds what is not {} to {} hex digits", bytes_min * 2, bytes_max * 2));
      }
      target->insert(to_hex(*bytes));
    });
  };
}

Take Reader::set_numbers(std::optional<std::set<std::uint32_t>>& target,
                         const std::function<bool(std::uint64_t)>& allowed) const {
  return [this, &target, allowed](const Place& at) {
    target.emplace();
    elements(at, [&](const Place& one) {
      const std::uint64_t value = number(one, UINT32_MAX);
      if (!allowed(value)) fail_at(one, fmt::format("cannot be {}", value));
      target->insert(static_cast<std::uint32_t>(value));
    });
  };
}

// Spec strings in any spelling that means the same, each with the key sizes in bits.
Take Reader::set_ciphers(std::optional<CipherRules>& target) const {
  return [this, &target](const Place& at) {
    target.emplace();
    each(table(at), at.member, [&](std::string_view key, const Place& one) {
      std::string canonical;
      std::vector<std::uint32_t> sizes;
      try {
        const crypto::CipherSpec spec = crypto::parse_cipher_spec(key);
        canonical = crypto::to_string(spec);
        sizes = crypto::key_sizes_bytes(spec);
      } catch (const Error& error) {
        fail_at(one, fmt::format("is no cipher: {}", error.message()));
      }
      std::optional<std::set<std::uint32_t>> bits;
      set_numbers(bits, [&](std::uint64_t value) {
        return value % 8 == 0 && (sizes.empty() || std::ranges::count(sizes, value / 8) != 0);
      })(one);
      if (!target->emplace(canonical, std::move(*bits)).second) {
        fail_at(one, fmt::format("names '{}' a second time", canonical));
      }
    });
  };
}

Bounds Reader::bounds(const Place& at) const {
  Bounds bounds;
  const auto limit = [this](std::uint64_t& target) {
    return [this, &target](const Place& one) {
      target = number(one, std::numeric_limits<std::int64_t>::max());
    };
  };
  if (!at.node.is_table()) fail_at(at, "is not a table of min and max");
  members(table(at), at.member, {{"min", limit(bounds.min)}, {"max", limit(bounds.max)}});
  if (bounds.min > bounds.max) fail_at(at, "has a min above its max");
  return bounds;
}

KdfRule Reader::kdf(const Place& at, bool pbkdf2) const {
  KdfRule rule;
  if (pbkdf2) {
    members(table(at), at.member,
            {{"hashes", set_hashes(rule.hashes)}, {"iterations", set_bounds(rule.iterations)}});
  } else {
    members(table(at), at.member,
            {{"time", set_bounds(rule.iterations)},
             {"memory_kib", set_bounds(rule.memory_kib)},
             {"parallel", set_bounds(rule.parallel)},
             {"time_memory_kib", set_bounds(rule.time_memory_kib)}});
  }
  return rule;
}

void Reader::kdfs(const Place& at, Policy& policy) const {
  policy.kdfs.emplace();
  const auto add = [&](std::string_view type) {
    return [this, &policy, type](const Place& one) {
      policy.kdfs->emplace(type, kdf(one, type == "pbkdf2"));
    };
  };
  members(table(at), at.member,
          {{"pbkdf2", add("pbkdf2")}, {"argon2i", add("argon2i")}, {"argon2id", add("argon2id")}});
}

Policy Reader::read(const toml::table& root) {
  Policy policy;
  // First of all: the rest of the file replaces parts of it.
  if (const toml::node* base = root.get("extends")) {
    const Place at{.node = *base, .member = "extends", .line = base->source().begin.line};
    const std::string name = text(at, "is not a string");
    const std::string_view builtin = builtin_policy_text(name);
    if (builtin.empty()) {
      fail_at(at, fmt::format("names no built-in policy with '{}': there is {}", printable(name),
                              fmt::join(builtin_policy_names(), ", ")));
    }
    policy = parse_policy(builtin, name);
    policy.description.clear();
  }
  policy.name = name_;
  const auto section = [&](const Members& known) {
    return [this, &known](const Place& at) { members(table(at), at.member, known); };
  };
  const auto is_version = [](std::uint64_t value) { return value == 1 || value == 2; };
  const auto is_sector = [](std::uint64_t value) { return value != 0 && value % 512 == 0; };
  const Members digest = {{"hashes", set_hashes(policy.digest_hashes)},
                          {"iterations", set_bounds(policy.digest_iterations)},
                          {"size_bytes", set_bounds(policy.digest_size_bytes)}};
  const Members af = {{"hashes", set_hashes(policy.af_hashes)},
                      {"stripes", set_bounds(policy.af_stripes)}};
  const Members pin = {
      {"fingerprints", set_pins(policy.fingerprints, kFingerprintBytes, kFingerprintBytes)},
      {"volume_key_digests",
       set_pins(policy.volume_key_digests, kPinnedDigestBytesMin, kPinnedDigestBytesMax)}};
  members(root, {},
          {{"extends", [](const Place&) {}},
           {"description", set_text(policy.description)},
           {"versions", set_numbers(policy.versions, is_version)},
           {"ciphers", set_ciphers(policy.ciphers)},
           {"keyslot_ciphers", set_ciphers(policy.keyslot_ciphers)},
           {"kdf", [&](const Place& at) { kdfs(at, policy); }},
           {"sector_sizes", set_numbers(policy.sector_sizes, is_sector)},
           {"segment_types", set_names(policy.segment_types)},
           {"segment_flags", set_names(policy.segment_flags)},
           {"integrity", set_flag(policy.integrity)},
           {"keyslot_types", set_names(policy.keyslot_types)},
           {"requirements", set_names(policy.requirements)},
           {"flags", set_names(policy.flags)},
           {"token_types", set_names(policy.token_types)},
           {"segments", set_bounds(policy.segments)},
           {"keyslots", set_bounds(policy.keyslots)},
           {"digest", section(digest)},
           {"af", section(af)},
           {"pin", section(pin)}});
  return policy;
}

std::string read_policy_file(const std::string& path) {
  const auto device = storage::open_file(path, {.lock = false});
  if (device->size_bytes() > limits::kPolicyBytesMax) {
    throw Error(Code::kInvalidArgument,
                fmt::format("policy '{}' has {} bytes, more than {}", printable(path, 256),
                            device->size_bytes(), limits::kPolicyBytesMax));
  }
  Bytes bytes(device->size_bytes());
  device->read(0, bytes);
  return std::string(as_string_view(bytes));
}

}  // namespace

Policy parse_policy(std::string_view text, std::string_view name) {
  if (text.size() > limits::kPolicyBytesMax) {
    throw Error(Code::kInvalidArgument, fmt::format("policy '{}' has more than {} bytes",
                                                    printable(name, 256), limits::kPolicyBytesMax));
  }
  const std::string fit = fit_for_toml_parser(
      text, [&](std::uint64_t line, const std::string& problem) { fail(name, line, problem); });
  toml::table root;
  try {
    root = toml::parse(fit);
  } catch (const toml::parse_error& error) {
    fail(name, error.source().begin.line, printable(error.description(), 256));
  }
  return Reader(name).read(root);
}

Policy load_policy(const std::string& name_or_path) {
  const std::string_view builtin = builtin_policy_text(name_or_path);
  if (!builtin.empty()) return parse_policy(builtin, name_or_path);
  try {
    return parse_policy(read_policy_file(name_or_path), name_or_path);
  } catch (const Error& error) {
    if (error.code() != Code::kNotFound) throw;
    throw Error(
        Code::kNotFound,
        fmt::format("policy '{}' is neither built in nor a file", printable(name_or_path, 256)),
        fmt::format("built in: {}", fmt::join(builtin_policy_names(), ", ")));
  }
}

}  // namespace lukskeep::luks
