#include "cli/serve_args.h"

#include <algorithm>
#include <charconv>
#include <cstddef>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"

namespace lukskeep::cli {
namespace {

[[noreturn]] void bad_export(std::string_view text, std::string_view why) {
  throw Error(Code::kUsage, fmt::format("'{}': {}", printable(text, 256), why),
              "write NAME=VOLUME[,header=FILE][,read-only][,key=SOURCE]");
}

// %XX to the byte it stands for.
std::string decode(std::string_view text, std::string_view whole) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const std::optional<Bytes> byte = from_hex(text.substr(i + 1, 2));
    if (!byte || byte->size() != 1 || byte->front() == std::byte{0}) {
      bad_export(whole, "'%' begins no byte; a percent sign is written %25");
    }
    out += static_cast<char>(byte->front());
    i += 2;
  }
  return out;
}

// For the path and query of a URI.
std::string encode(std::string_view text) {
  constexpr std::string_view plain = "-._~/";
  std::string out;
  for (const char c : text) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter || plain.find(c) != std::string_view::npos) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

}  // namespace

ServedVolume parse_export(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos) bad_export(text, "there is no '=' between name and volume");
  ServedVolume volume{.name = decode(text.substr(0, equals), text)};
  std::string_view rest = text.substr(equals + 1);
  volume.path = decode(rest.substr(0, rest.find(',')), text);
  rest.remove_prefix(std::min(rest.size(), rest.find(',')));
  while (!rest.empty()) {
    rest.remove_prefix(1);  // the comma
    if (rest.starts_with("key=")) {
      volume.key = rest.substr(4);
      if (volume.key.empty()) bad_export(text, "key= names no source");
      break;
    }
    const std::string_view item = rest.substr(0, rest.find(','));
    rest.remove_prefix(item.size());
    if (item == "read-only" && !volume.read_only) {
      volume.read_only = true;
    } else if (item.starts_with("header=") && item.size() > 7 && volume.header.empty()) {
      volume.header = decode(item.substr(7), text);
    } else {
      bad_export(text, fmt::format("'{}' is unknown, empty or given twice", printable(item)));
    }
  }
  if (volume.name.empty()) bad_export(text, "the name is empty");
  if (volume.path.empty()) bad_export(text, "it names no volume");
  return volume;
}

std::string ListenAddress::text() const {
  return address.find(':') == std::string::npos ? fmt::format("{}:{}", address, port)
                                                : fmt::format("[{}]:{}", address, port);
}

ListenAddress parse_listen(std::string_view text) {
  const auto refuse = [&] [[noreturn]] {
    throw Error(Code::kUsage, fmt::format("'{}' is not ADDR:PORT", printable(text)),
                "e.g. 127.0.0.1:10809 or [::1]:10809");
  };
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) refuse();
  std::string_view address = text.substr(0, colon);
  if (address.starts_with('[') && address.ends_with(']')) {
    address = address.substr(1, address.size() - 2);
  } else if (address.find(':') != std::string_view::npos) {
    refuse();
  }
  ListenAddress parsed{.address = std::string(address)};
  const std::string_view port = text.substr(colon + 1);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), parsed.port);
  if (address.empty() || error != std::errc() || end != port.data() + port.size() ||
      parsed.port == 0) {
    refuse();
  }
  return parsed;
}

void ServeAddressArgs::declare(Options& options) {
  options.add({.name = "--socket",
               .value = "PATH",
               .help = "listen on this Unix socket (default: one in a private folder, printed)"},
              socket);
  options.add({.name = "--listen",
               .value = "ADDR:PORT",
               .help = "listen on TCP; needs one of the two --tls options, or --insecure"},
              listen);
  options.add({.name = "--tls-certificates",
               .value = "DIR",
               .help = "TLS with the certificates in DIR: ca-cert.pem, server-cert.pem and "
                       "server-key.pem"},
              tls_certificates);
  options.add({.name = "--tls-psk",
               .value = "FILE",
               .help = "TLS with the pre-shared keys in FILE, as psktool writes it"},
              tls_psk);
  options.flag({.name = "--tls-verify-peer",
                .help = "with --tls-certificates: clients need a certificate too"},
               tls_verify_peer);
  options.flag({.name = "--insecure",
                .help = "TCP without TLS: everybody on the way reads and changes the contents"},
               insecure);
}

void ServeAddressArgs::check() const {
  if (socket && listen) throw Error(Code::kUsage, "--socket and --listen exclude each other");
  if (tls_certificates && tls_psk) {
    throw Error(Code::kUsage, "--tls-certificates and --tls-psk exclude each other");
  }
  if (tls_verify_peer && !tls_certificates) {
    throw Error(Code::kUsage, "--tls-verify-peer goes with --tls-certificates");
  }
  if (insecure && tls()) throw Error(Code::kUsage, "--insecure contradicts TLS");
  if (listen && !tls() && !insecure) {
    throw Error(Code::kUnsafe,
                fmt::format("'{}' without TLS would show the decrypted contents to the network",
                            printable(*listen)),
                "add --tls-certificates DIR or --tls-psk FILE; --insecure does it all the same");
  }
}

std::string ServeAddress::uri(std::string_view export_name) const {
  const std::string scheme = tls ? "nbds" : "nbd";
  if (tcp) return fmt::format("{}://{}/{}", scheme, tcp->text(), encode(export_name));
  return fmt::format("{}+unix:///{}?socket={}", scheme, encode(export_name), encode(socket));
}

}  // namespace lukskeep::cli
