#include "vm/libvirt_xml.h"

#include <string_view>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/json.h"

namespace lukskeep::vm {
namespace {

constexpr const char* kQemuNamespace = "http://libvirt.org/schemas/domain/qemu/1.0";

[[noreturn]] void refuse(std::string_view name) {
  throw Error(Code::kUnsupported,
              fmt::format("XML cannot hold the name '{}'", printable(name, 256)),
              "give it another name, or a symbolic link with one");
}

// For text and attributes in single quotes (XML 1.0, sections 2.2 and 2.4).
std::string escaped(std::string_view text) {
  // The two that are UTF-8 and yet no characters.
  if (!is_utf8(text) || text.find("\xef\xbf\xbe") != std::string_view::npos ||
      text.find("\xef\xbf\xbf") != std::string_view::npos) {
    refuse(text);
  }
  std::string out;
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    const bool blank = c == '\t' || c == '\n' || c == '\r';
    if (code < 0x20 && !blank) refuse(text);
    // A blank in an attribute would be read as a space.
    if (blank || c == '&' || c == '<' || c == '>' || c == '\'' || c == '"') {
      out += fmt::format("&#{};", code);
    } else {
      out += c;
    }
  }
  return out;
}

// " name='value'", or nothing for an empty value.
std::string attribute(std::string_view name, std::string_view value) {
  return value.empty() ? std::string() : fmt::format(" {}='{}'", name, escaped(value));
}

std::string host_xml(std::string_view host) {
  std::string_view name = host;
  std::string_view port;
  const std::size_t colon = host.rfind(':');
  const bool bracketed = host.starts_with('[');
  if (colon != std::string_view::npos && (!bracketed || host.rfind(']') < colon) &&
      (bracketed || host.find(':') == colon)) {
    name = host.substr(0, colon);
    port = host.substr(colon + 1);
  }
  if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
  return fmt::format("    <host{}{}/>\n", attribute("name", name), attribute("port", port));
}

std::string encryption_xml(const LibvirtDisk& disk) {
  if (disk.format.empty()) return {};
  return fmt::format(
      "    <encryption{}{}>\n"
      "      <secret type='passphrase'{}/>\n"
      "    </encryption>\n",
      attribute("format", disk.format), attribute("engine", disk.engine),
      attribute("uuid", disk.secret_uuid));
}

std::string source_xml(const LibvirtDisk& disk) {
  std::string inside;
  std::string attributes;
  if (!disk.nbd_socket.empty()) {
    attributes = " protocol='nbd'" + attribute("name", disk.nbd_export);
    inside = fmt::format("    <host transport='unix'{}/>\n", attribute("socket", disk.nbd_socket));
  } else if (!disk.rbd_image.empty()) {
    attributes = " protocol='rbd'" + attribute("name", disk.rbd_image);
    for (const std::string& host : disk.rbd_hosts) inside += host_xml(host);
    if (!disk.rbd_snapshot.empty()) {
      inside += fmt::format("    <snapshot{}/>\n", attribute("name", disk.rbd_snapshot));
    }
    if (!disk.rbd_user.empty()) {
      inside += fmt::format("    <auth{}>\n      <secret type='ceph'{}/>\n    </auth>\n",
                            attribute("username", disk.rbd_user),
                            attribute("uuid", disk.rbd_user_secret));
    }
  } else {
    attributes = attribute(disk.block_device ? "dev" : "file", disk.path);
  }
  // Inside <source>, and not beside it: libvirt takes it there from every program.
  inside += encryption_xml(disk);
  if (inside.empty()) return fmt::format("  <source{}/>\n", attributes);
  return fmt::format("  <source{}>\n{}  </source>\n", attributes, inside);
}

std::string arguments_xml(const std::string& option, const Json& value) {
  // Escaped: what is no UTF-8 is refused there, with a better message than JSON's.
  return fmt::format("  <qemu:arg value='{}'/>\n  <qemu:arg value='{}'/>\n", option,
                     escaped(value.dump()));
}

}  // namespace

std::string secret_xml(const LibvirtSecret& secret) {
  return fmt::format(
      "<secret ephemeral='{}' private='yes'>\n"
      "  <uuid>{}</uuid>\n"
      "  <description>passphrase of {}</description>\n"
      "  <usage type='volume'>\n"
      "    <volume>{}</volume>\n"
      "  </usage>\n"
      "</secret>\n",
      secret.persistent ? "no" : "yes", escaped(secret.uuid), escaped(secret.usage),
      escaped(secret.usage));
}

std::string disk_xml(const LibvirtDisk& disk) {
  const bool network = !disk.nbd_socket.empty() || !disk.rbd_image.empty();
  std::string xml =
      fmt::format("<disk type='{}' device='disk'>\n  <driver name='qemu' type='raw'/>\n",
                  network             ? "network"
                  : disk.block_device ? "block"
                                      : "file");
  xml += source_xml(disk);
  xml +=
      fmt::format("  <target{}{}/>\n", attribute("dev", disk.target), attribute("bus", disk.bus));
  if (disk.read_only) xml += "  <readonly/>\n";
  if (!disk.serial.empty()) xml += fmt::format("  <serial>{}</serial>\n", escaped(disk.serial));
  return xml + "</disk>\n";
}

std::string commandline_xml(const LibvirtCommandline& disk) {
  for (const std::string& path : {disk.payload, disk.header, disk.key_file}) {
    static_cast<void>(escaped(path));
  }
  const auto name = [&](std::string_view part) { return fmt::format("lk.{}.{}", disk.id, part); };
  const auto file = [&](std::string_view part, const std::string& path, bool device) {
    return Json{{"node-name", name(part)},
                {"driver", device ? "host_device" : "file"},
                {"filename", path},
                {"read-only", disk.read_only}};
  };
  std::string xml = fmt::format("<qemu:commandline xmlns:qemu='{}'>\n", kQemuNamespace);
  xml += arguments_xml("-object",
                       {{"qom-type", "secret"}, {"id", name("key")}, {"file", disk.key_file}});
  xml += arguments_xml("-blockdev", file("payload", disk.payload, disk.payload_device));
  xml += arguments_xml("-blockdev", file("header", disk.header, disk.header_device));
  xml += arguments_xml("-blockdev", {{"node-name", name("raw")},
                                     {"driver", "raw"},
                                     {"file", name("payload")},
                                     {"read-only", disk.read_only}});
  xml += arguments_xml("-blockdev", {{"node-name", name("luks")},
                                     {"driver", "luks"},
                                     {"file", name("raw")},
                                     {"header", name("header")},
                                     {"key-secret", name("key")},
                                     {"read-only", disk.read_only}});
  xml += arguments_xml(
      "-device",
      {{"driver", disk.device}, {"id", disk.id}, {"drive", name("luks")}, {"serial", disk.id}});
  return xml + "</qemu:commandline>\n";
}

}  // namespace lukskeep::vm
