// What `serve` is asked for: volumes with their names, and where clients come from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/options.h"

namespace lukskeep::cli {

// One volume of --export, or the one that VOLUME names.
struct ServedVolume {
  std::string name;  // of the export; empty for VOLUME
  std::string path;
  std::string header;
  std::string key;  // a key source; empty: --key
  bool read_only = false;
};

// "NAME=VOLUME[,header=FILE][,read-only][,key=SOURCE]". A comma or percent sign in NAME, VOLUME or
// FILE is written %2C or %25, as in key sources, '=' in NAME %3D; key= stands last, since a SOURCE
// has commas of its own. Throws Error{kUsage}.
ServedVolume parse_export(std::string_view text);

// ADDR:PORT, [ADDR]:PORT. Throws Error{kUsage}.
struct ListenAddress {
  std::string address;  // without brackets
  std::uint16_t port = 0;

  // As in a URI.
  std::string text() const;
};
ListenAddress parse_listen(std::string_view text);

// --socket, --listen and what goes with them.
struct ServeAddressArgs {
  std::optional<std::string> socket;
  std::optional<std::string> listen;
  std::optional<std::string> tls_certificates;
  std::optional<std::string> tls_psk;
  bool tls_verify_peer = false;
  bool insecure = false;

  void declare(Options& options);
  bool tls() const { return tls_certificates.has_value() || tls_psk.has_value(); }
  // Throws Error{kUsage} for what contradicts itself, {kUnsafe} for TCP without TLS.
  void check() const;
};

// Where clients find the server.
struct ServeAddress {
  std::string socket;  // absolute, or empty
  std::optional<ListenAddress> tcp;
  bool tls = false;
  std::string uri(std::string_view export_name) const;
};

}  // namespace lukskeep::cli
