#include "image/properties.h"

#include <algorithm>
#include <charconv>
#include <set>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"

namespace lukskeep::image {
namespace {

constexpr std::array<std::string_view, 3> kStyleNames = {"spec", "cinder", "nova"};

struct Member {
  std::string_view name;
  std::optional<Style> style;
};

// Every member of every generation.
constexpr std::array kMembers = {
    Member{"disk_format", std::nullopt},
    Member{"container_format", std::nullopt},
    Member{"os_encrypt_format", Style::kSpec},
    Member{"os_encrypt_key_id", Style::kSpec},
    Member{"os_encrypt_key_deletion_policy", Style::kSpec},
    Member{"os_encrypt_cipher", Style::kSpec},
    Member{"os_decrypt_container_format", Style::kSpec},
    Member{"os_decrypt_size", Style::kSpec},
    Member{"os_decrypt_format", Style::kSpec},
    Member{"cinder_encryption_key_id", Style::kCinder},
    Member{"cinder_encryption_key_deletion_policy", Style::kCinder},
    Member{"hw_ephemeral_encryption", Style::kNova},
    Member{"hw_ephemeral_encryption_format", Style::kNova},
    Member{"hw_ephemeral_encryption_secret_uuid", Style::kNova},
};

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

std::optional<bool> truth(std::string_view text) {
  const std::string word = lower(text);
  for (const char* yes : {"true", "yes", "1", "on", "t", "y"}) {
    if (word == yes) return true;
  }
  for (const char* no : {"false", "no", "0", "off", "f", "n"}) {
    if (word == no) return false;
  }
  return std::nullopt;
}

std::optional<bool> deletion_policy(std::string_view text) {
  const std::string word = lower(text);
  if (word == "on_image_deletion") return true;
  if (word == "do_not_delete") return false;
  return truth(text);
}

Encryption encryption_of(std::string_view text) {
  const std::string word = lower(text);
  if (word == "luks") return Encryption::kLuks;
  if (word == "luksv1" || word == "luks1") return Encryption::kLuks1;
  if (word == "luksv2" || word == "luks2") return Encryption::kLuks2;
  if (word == "plain") return Encryption::kPlain;
  return Encryption::kOther;
}

bool is_luks(Encryption encryption) {
  return encryption == Encryption::kLuks || encryption == Encryption::kLuks1 ||
         encryption == Encryption::kLuks2;
}

std::string_view encryption_word(Encryption encryption) {
  switch (encryption) {
    case Encryption::kLuks1:
      return "LUKSv1";
    case Encryption::kLuks2:
      return "LUKSv2";
    case Encryption::kLuks:
      return "LUKS";
    default:
      return {};
  }
}

// IDs of Barbican are UUIDs, castellan's in Vault 32 digits, the keystore's are UUIDs as well.
bool is_key_id(std::string_view text) {
  const auto good = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.' || c == '/';
  };
  return !text.empty() && text.size() <= limits::kSecretTextBytesMax &&
         std::ranges::all_of(text, good);
}

// Reads the members of one set, noting what is wrong with them.
class Reader {
 public:
  explicit Reader(const Properties& properties) : properties_(properties) {}

  ReadProperties read() {
    for (const Member& member : kMembers) {
      if (member.style && find(member.name) && !out().has(*member.style)) {
        out().styles.push_back(*member.style);
      }
    }
    std::ranges::sort(out().styles);
    read_formats();
    read_encryption();
    read_keys();
    read_policy("os_encrypt_key_deletion_policy");
    read_policy("cinder_encryption_key_deletion_policy");
    read_payload();
    read_old();
    return std::move(result_);
  }

 private:
  Description& out() { return result_.description; }

  const std::string* find(std::string_view name) const {
    const auto found = properties_.find(std::string(name));
    return found == properties_.end() || found->second.empty() ? nullptr : &found->second;
  }

  void problem(bool error, std::string name, std::string_view property, std::string what,
               std::string remedy) {
    result_.problems.push_back({.name = std::move(name),
                                .error = error,
                                .property = std::string(property),
                                .what = std::move(what),
                                .remedy = std::move(remedy)});
  }
  void bad_value(std::string_view property, const std::string& value, std::string remedy) {
    problem(true, "bad-value", property, fmt::format("'{}' means nothing here", printable(value)),
            std::move(remedy));
  }

  void read_formats() {
    if (const std::string* text = find("disk_format")) out().disk_format = lower(*text);
    if (const std::string* text = find("container_format")) out().container_format = lower(*text);
    if (out().container_format == "luks" || out().container_format == "encrypted") {
      problem(true, "old-container-format", "container_format",
              fmt::format("'{}' was proposed and dropped", out().container_format),
              "say bare, and luks as the disk_format");
      if (out().container_format == "luks" && out().disk_format.empty()) out().disk_format = "luks";
      out().container_format = "bare";
    }
  }

  void take_encryption(std::string_view property, Encryption said) {
    Encryption& known = out().encryption;
    if (known == Encryption::kNone || (known == Encryption::kLuks && is_luks(said))) {
      known = said;
    } else if (known != said && (said != Encryption::kLuks || !is_luks(known))) {
      problem(true, "encryption-conflict", property, "two members name two ways of encryption",
              "keep the one that the file has");
    }
  }

  void read_encryption() {
    if (const std::string* text = find("os_encrypt_format")) {
      const Encryption said = encryption_of(*text);
      if (!is_luks(said)) bad_value("os_encrypt_format", *text, "LUKSv1 or LUKSv2");
      if (said == Encryption::kLuks) {
        problem(false, "encrypt-format-vague", "os_encrypt_format",
                "drafts of 2024 said LUKS without a version", "say LUKSv1 or LUKSv2");
      }
      take_encryption("os_encrypt_format", said);
    }
    read_nova();
    if (out().encryption != Encryption::kNone) return;
    // Neither Cinder's pair nor the disk format says which version it is.
    if (out().disk_format == "luks" || out().has(Style::kCinder)) {
      out().encryption = Encryption::kLuks;
    }
  }

  void read_nova() {
    std::optional<bool> on;
    if (const std::string* text = find("hw_ephemeral_encryption")) {
      on = truth(*text);
      if (!on) bad_value("hw_ephemeral_encryption", *text, "True or False");
    }
    const std::string* text = find("hw_ephemeral_encryption_format");
    if (text == nullptr) {
      if (on == true) take_encryption("hw_ephemeral_encryption", Encryption::kLuks);
      return;
    }
    // Nova's "luks" is version 1; it has "luksv2" beside it.
    Encryption said = encryption_of(*text);
    if (said == Encryption::kLuks) said = Encryption::kLuks1;
    if (said == Encryption::kOther) {
      bad_value("hw_ephemeral_encryption_format", *text, "plain, luks or luksv2");
    }
    if (on != true) {
      problem(true, "nova-off", "hw_ephemeral_encryption",
              "a format is named, but encryption is not switched on",
              "set hw_ephemeral_encryption to True, or remove both");
    }
    if (on != false) take_encryption("hw_ephemeral_encryption_format", said);
  }

  void read_keys() {
    for (const char* name :
         {"os_encrypt_key_id", "cinder_encryption_key_id", "hw_ephemeral_encryption_secret_uuid"}) {
      const std::string* text = find(name);
      if (text == nullptr) continue;
      if (!is_key_id(*text)) {
        bad_value(name, *text, "the ID that the key manager gave the secret");
      } else if (out().key_id.empty()) {
        out().key_id = *text;
      } else if (out().key_id != *text) {
        problem(true, "key-id-conflict", name,
                fmt::format("it names the secret '{}', another member '{}'", printable(*text),
                            printable(out().key_id)),
                "find out which opens the image: lukskeep keystore resolve ID FILE");
      }
    }
  }

  void read_policy(std::string_view name) {
    const std::string* text = find(name);
    if (text == nullptr) return;
    const auto said = deletion_policy(*text);
    if (!said) return bad_value(name, *text, "True or False; Cinder's: on_image_deletion");
    if (!out().delete_key) {
      out().delete_key = said;
    } else if (out().delete_key != said) {
      problem(true, "deletion-policy-conflict", name, "two members say two things of it",
              "keep the key until it is clear");
      out().delete_key = false;
    }
  }

  void read_payload() {
    if (const std::string* text = find("os_decrypt_container_format")) {
      out().decrypt_container_format = lower(*text);
    }
    const std::string* text = find("os_decrypt_size");
    if (text == nullptr) return;
    std::uint64_t size = 0;
    const char* end = text->data() + text->size();
    const auto [stop, error] = std::from_chars(text->data(), end, size);
    if (error != std::errc() || stop != end) {
      return bad_value("os_decrypt_size", *text, "a number of bytes");
    }
    out().decrypt_size_bytes = size;
  }

  void read_old() {
    if (find("os_encrypt_cipher") != nullptr) {
      problem(false, "dropped-property", "os_encrypt_cipher",
              "it was dropped: the header alone says which cipher", "remove it");
    }
    const std::string* format = find("os_decrypt_format");
    if (format == nullptr) return;
    const bool harmless = lower(*format) == "raw";
    problem(!harmless, "dropped-property", "os_decrypt_format",
            harmless ? "it was dropped: what is within LUKS is raw"
                     : fmt::format("it says '{}', and what is within LUKS has to be raw",
                                   printable(*format)),
            "remove it");
  }

  const Properties& properties_;
  ReadProperties result_;
};

void add_policy(Properties& set, const char* name, const Description& description,
                std::string_view yes, std::string_view no) {
  if (description.delete_key) set[name] = *description.delete_key ? yes : no;
}

// "'" ends the quotes, and a quoted one stands between two quoted parts.
std::string shell_quoted(std::string_view text) {
  constexpr std::string_view plain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+.,/:=@%";
  if (!text.empty() && text.find_first_not_of(plain) == std::string_view::npos) {
    return std::string(text);
  }
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

Encryption encryption_of_file(const Report& report) {
  if (report.format == "luks1") return Encryption::kLuks1;
  if (report.format == "luks2") return Encryption::kLuks2;
  if (report.format == "qcow2" && report.encrypted) {
    // QEMU has LUKS1 there; what is broken or unknown is a finding of the inspector.
    return report.variant.ends_with(", luks1") ? Encryption::kLuks1 : Encryption::kOther;
  }
  return Encryption::kNone;
}

class Checker {
 public:
  Checker(const Description& said, const Report& file)
      : said_(said), file_(file), found_(encryption_of_file(file)) {}

  std::vector<PropertyProblem> check() {
    check_safety();
    if (said_.container_format == "compressed") {
      check_compressed();
    } else {
      check_encryption();
      check_disk_format();
      check_size();
    }
    check_members();
    return std::move(problems_);
  }

 private:
  void problem(bool error, std::string name, std::string property, std::string what,
               std::string remedy) {
    problems_.push_back({.name = std::move(name),
                         .error = error,
                         .property = std::move(property),
                         .what = std::move(what),
                         .remedy = std::move(remedy)});
  }

  void check_safety() {
    const bool compressed = said_.container_format == "compressed";
    const bool danger = std::ranges::any_of(file_.findings, [&](const Finding& finding) {
      return finding.dangerous() && !(compressed && finding.name == "compressed");
    });
    if (danger || (file_.inner && !file_.inner->safe())) {
      problem(true, "unsafe", "", "the inspector finds the file unsafe", "see lukskeep inspect");
    }
  }

  void check_compressed() {
    if (file_.format != "gzip") {
      problem(true, "not-compressed", "container_format",
              fmt::format("it says compressed, and the file is {}", file_.format),
              "say bare, or compress the file with gzip");
    }
    if (said_.decrypt_container_format.empty()) {
      problem(true, "decrypt-container-format-missing", "os_decrypt_container_format",
              "nothing says what is left when it was decompressed", "say bare");
    }
  }

  void check_encryption() {
    const bool says = said_.encryption != Encryption::kNone;
    if (!says && found_ != Encryption::kNone) {
      problem(true, "encryption-missing", "os_encrypt_format",
              fmt::format("the file is encrypted ({}), and nothing says so", file_.format),
              "lukskeep image properties FILE --key-id ID writes the whole set");
    } else if (says && found_ == Encryption::kNone) {
      problem(true, "not-encrypted", "os_encrypt_format",
              fmt::format("it says that the file is encrypted, and it is {}", file_.format),
              "remove the members about encryption, or encrypt the image");
    } else if (says && found_ != said_.encryption &&
               (said_.encryption != Encryption::kLuks || !is_luks(found_))) {
      problem(true, "encrypt-format-wrong", "os_encrypt_format",
              fmt::format("the file is {}", file_.format),
              fmt::format("say {}", encryption_word(found_)));
    }
  }

  void check_disk_format() {
    const bool raw_volume = file_.format == "luks1" || file_.format == "luks2";
    const std::string wanted = raw_volume ? "luks" : file_.format;
    if (said_.disk_format.empty()) {
      problem(true, "disk-format-missing", "disk_format", "nothing says what the file is",
              fmt::format("say {}", wanted));
    } else if (raw_volume && said_.disk_format == "raw") {
      // What Cinder writes, and what a Glance that has no "luks" takes.
      problem(false, "disk-format-fallback", "disk_format",
              "it says raw of a LUKS volume, as clouds do that do not know luks",
              "say luks where Glance takes it");
    } else if (said_.disk_format != wanted && !is_raw_kind(wanted)) {
      problem(true, "disk-format-wrong", "disk_format",
              fmt::format("it says '{}', and the file is {}", printable(said_.disk_format),
                          file_.format),
              fmt::format("say {}", wanted));
    }
  }

  // A disk with partitions is raw to Glance.
  bool is_raw_kind(const std::string& wanted) const {
    return (wanted == "gpt" || wanted == "mbr" || wanted == "iso") && said_.disk_format == "raw";
  }

  void check_size() {
    if (found_ == Encryption::kNone) return;
    if (!said_.decrypt_size_bytes) {
      if (!said_.has(Style::kSpec)) return;
      return problem(true, "decrypt-size-missing", "os_decrypt_size",
                     "nothing says how large the volume has to be",
                     file_.payload_size_bytes ? fmt::format("say {}", *file_.payload_size_bytes)
                                              : "say the size of the payload in bytes");
    }
    if (file_.payload_size_bytes && *file_.payload_size_bytes != *said_.decrypt_size_bytes) {
      problem(true, "decrypt-size-wrong", "os_decrypt_size",
              fmt::format("it says {} bytes, and the payload has {}", *said_.decrypt_size_bytes,
                          *file_.payload_size_bytes),
              fmt::format("say {}", *file_.payload_size_bytes));
    }
  }

  void check_members() {
    if (said_.container_format.empty()) {
      problem(true, "container-format-missing", "container_format", "nothing says the container",
              "say bare");
    } else if (said_.container_format != "bare" && said_.container_format != "compressed") {
      problem(
          true, "container-format-wrong", "container_format",
          fmt::format("'{}' is nothing for an encrypted image", printable(said_.container_format)),
          "say bare or compressed");
    }
    const bool encrypted = found_ != Encryption::kNone || said_.encryption != Encryption::kNone;
    if (encrypted && said_.key_id.empty()) {
      problem(true, "key-id-missing", "os_encrypt_key_id", "nothing says which secret opens it",
              "store the passphrase with lukskeep keystore store, and name its ID");
    }
  }

  const Description& said_;
  const Report& file_;
  Encryption found_;
  std::vector<PropertyProblem> problems_;
};

}  // namespace

std::string_view style_name(Style style) noexcept {
  return kStyleNames[static_cast<std::size_t>(style)];
}

Style parse_style(std::string_view text) {
  for (const Style style : kStyles) {
    if (style_name(style) == text) return style;
  }
  throw Error(Code::kUsage, fmt::format("'{}' is no style of properties", printable(text)),
              "spec, cinder or nova");
}

bool Description::has(Style style) const noexcept {
  return std::ranges::find(styles, style) != styles.end();
}

bool is_encryption_property(std::string_view name) noexcept {
  return std::ranges::any_of(
      kMembers, [&](const Member& member) { return member.style && member.name == name; });
}

bool is_image_attribute(std::string_view name) noexcept {
  constexpr std::array<std::string_view, 30> kAttributes = {"id",
                                                            "name",
                                                            "status",
                                                            "visibility",
                                                            "size",
                                                            "virtual_size",
                                                            "checksum",
                                                            "os_hidden",
                                                            "os_hash_algo",
                                                            "os_hash_value",
                                                            "owner",
                                                            "owner_id",
                                                            "protected",
                                                            "is_protected",
                                                            "tags",
                                                            "created_at",
                                                            "updated_at",
                                                            "file",
                                                            "schema",
                                                            "self",
                                                            "stores",
                                                            "locations",
                                                            "direct_url",
                                                            "min_disk",
                                                            "min_ram",
                                                            "disk_format",
                                                            "container_format",
                                                            "properties",
                                                            "image_id",
                                                            "os_glance_importing_to_stores"};
  return std::ranges::find(kAttributes, name) != kAttributes.end() ||
         name.starts_with("os_glance_");
}

ReadProperties read_properties(const Properties& properties) { return Reader(properties).read(); }

Description describe(const Report& report, bool compressed) {
  Description description{.disk_format = report.format == "qcow2" ? "qcow2" : "luks",
                          .container_format = compressed ? "compressed" : "bare",
                          .encryption = encryption_of_file(report),
                          .key_id = {},
                          .delete_key = std::nullopt,
                          .decrypt_container_format = compressed ? "bare" : "",
                          .decrypt_size_bytes = report.payload_size_bytes,
                          .styles = {}};
  if (is_luks(description.encryption)) return description;
  throw Error(Code::kInvalidArgument,
              fmt::format("the image is {}, not encrypted with LUKS", report.format),
              "lukskeep image encrypt makes it so");
}

Properties write_properties(const Description& description, const WriteOptions& options) {
  const bool takes_luks =
      options.disk_formats.empty() ||
      std::ranges::find(options.disk_formats, "luks") != options.disk_formats.end();
  const bool compressed = description.container_format == "compressed";
  Properties set = {{"disk_format", description.disk_format},
                    {"container_format",
                     description.container_format.empty() ? "bare" : description.container_format}};
  const bool raw_only = options.style != Style::kSpec || !takes_luks;
  if (description.disk_format == "luks" && raw_only) set["disk_format"] = "raw";
  if (set["disk_format"].empty()) set["disk_format"] = raw_only ? "raw" : "luks";
  if (!description.key_id.empty()) {
    constexpr std::array kKeyIds = {"os_encrypt_key_id", "cinder_encryption_key_id",
                                    "hw_ephemeral_encryption_secret_uuid"};
    set[kKeyIds.at(static_cast<std::size_t>(options.style))] = description.key_id;
  }
  switch (options.style) {
    case Style::kSpec:
      if (!is_luks(description.encryption)) {
        throw Error(Code::kInvalidArgument, "the standard set knows no encryption but LUKS");
      }
      set["os_encrypt_format"] = encryption_word(description.encryption);
      add_policy(set, "os_encrypt_key_deletion_policy", description, "True", "False");
      if (compressed) {
        set["os_decrypt_container_format"] = description.decrypt_container_format.empty()
                                                 ? "bare"
                                                 : description.decrypt_container_format;
      }
      if (description.decrypt_size_bytes) {
        set["os_decrypt_size"] = fmt::format("{}", *description.decrypt_size_bytes);
      }
      break;
    case Style::kCinder:
      if (compressed || set["disk_format"] != "raw") {
        throw Error(Code::kInvalidArgument,
                    fmt::format("Cinder's pair stands on raw volumes only, not on {}",
                                compressed ? "compressed ones" : set["disk_format"]),
                    "convert it first: lukskeep image convert");
      }
      add_policy(set, "cinder_encryption_key_deletion_policy", description, "on_image_deletion",
                 "do_not_delete");
      break;
    case Style::kNova:
      if (compressed) {
        throw Error(Code::kInvalidArgument, "Nova's set knows no compressed images",
                    "decompress it first");
      }
      set["hw_ephemeral_encryption"] = "True";
      set["hw_ephemeral_encryption_format"] = description.encryption == Encryption::kPlain ? "plain"
                                              : description.encryption == Encryption::kLuks2
                                                  ? "luksv2"
                                                  : "luks";
      break;
  }
  return set;
}

std::vector<PropertyProblem> check_properties(const Description& description,
                                              const Report& report) {
  return Checker(description, report).check();
}

bool has_error(const std::vector<PropertyProblem>& problems) noexcept {
  return std::ranges::any_of(problems, &PropertyProblem::error);
}

Properties parse_properties(std::string_view json, std::string_view what) {
  const Json root = parse_json(json, what);
  if (!root.is_object()) {
    throw Error(Code::kDamaged, fmt::format("{} is no object of properties", what));
  }
  Properties set;
  const auto take = [&](const Json& object) {
    for (const auto& [name, value] : object.items()) {
      if (value.is_string()) {
        set[name] = value.get<std::string>();
      } else if (value.is_boolean()) {
        set[name] = value.get<bool>() ? "True" : "False";
      } else if (value.is_number_integer()) {
        set[name] = value.dump();
      }
      if (set.size() > limits::kImagePropertiesMax) {
        throw Error(Code::kDamaged, fmt::format("{} has more than {} properties", what,
                                                limits::kImagePropertiesMax));
      }
    }
  };
  take(root);
  if (const auto inner = root.find("properties"); inner != root.end() && inner->is_object()) {
    take(*inner);
  }
  return set;
}

std::string openstack_options(const Properties& properties) {
  std::string line;
  const auto add = [&](std::string_view text) {
    line += (line.empty() ? "" : " ") + std::string(text);
  };
  for (const auto& [name, option] : {std::pair("disk_format", "--disk-format"),
                                     std::pair("container_format", "--container-format")}) {
    const auto found = properties.find(name);
    if (found != properties.end()) add(fmt::format("{} {}", option, shell_quoted(found->second)));
  }
  for (const auto& [name, value] : properties) {
    if (name == "disk_format" || name == "container_format") continue;
    add("--property " + shell_quoted(fmt::format("{}={}", name, value)));
  }
  return line;
}

}  // namespace lukskeep::image
