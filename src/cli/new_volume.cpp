#include "cli/new_volume.h"

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/header_view.h"
#include "cli/volume_access.h"
#include "keys/key_source.h"
#include "luks/crypt_device.h"
#include "luks/layout.h"

namespace lukskeep::cli {
namespace {

luks::Version version_of(const NewVolumeArgs& args) {
  return args.type == "luks1" ? luks::Version::kLuks1 : luks::Version::kLuks2;
}

SecretBytes read_volume_key(const Session& session, const std::string& source) {
  const keys::KeySource parsed = keys::parse_key_source(source);
  if (parsed.kind == keys::KeySource::Kind::kPrompt) {
    throw Error(Code::kUsage, "--volume-key: a volume key is not typed, it comes from a file");
  }
  if (parsed.kind == keys::KeySource::Kind::kManager) {
    throw Error(Code::kUsage, "--volume-key: a secret of a key manager stands for a passphrase",
                "'lukskeep keystore get ID --to FILE' writes its bytes, if they are a volume key");
  }
  return keys::read_key(parsed, {}, {}, session.cancel);
}

std::uint32_t bytes_of_bits(std::uint32_t bits) {
  if (bits % 8 == 0) return bits / 8;
  throw Error(Code::kInvalidArgument, fmt::format("--key-size: {} bits are not whole bytes", bits));
}

std::uint32_t size_as_32_bits(std::uint64_t size_bytes, std::string_view option) {
  if (size_bytes <= UINT32_MAX) return static_cast<std::uint32_t>(size_bytes);
  throw Error(Code::kInvalidArgument, fmt::format("{}: {} is too large", option, size_bytes));
}

luks::CreateOptions create_options(const Session& session, const NewVolumeArgs& args,
                                   std::uint32_t sector_size_bytes) {
  luks::CreateOptions options;
  options.version = version_of(args);
  options.cipher = args.cipher;
  if (args.key_bits) options.key_size_bytes = bytes_of_bits(*args.key_bits);
  if (args.kdf.hash) options.hash = *args.kdf.hash;
  options.sector_size_bytes = sector_size_bytes;
  options.metadata_size_bytes = args.metadata_size_bytes.value_or(0);
  options.keyslots_size_bytes = args.keyslots_size_bytes.value_or(0);
  options.payload_offset_bytes = args.payload_offset_bytes;
  options.detached = !args.header.empty();
  options.uuid = args.uuid;
  options.label = args.label;
  options.subsystem = args.subsystem;
  // Forced costs are forced for the digest too: nothing is measured then.
  if (args.kdf.iterations) options.digest_iterations = 1000;
  options.allow_insecure = args.allow_insecure;
  options.cancel = session.cancel;
  return options;
}

}  // namespace

void NewVolumeArgs::declare(Options& options) {
  options.heading("Format");
  options.add({.name = "--type",
               .value = "TYPE",
               .help = "luks1 or luks2 (default luks2)",
               .choices = {"luks1", "luks2"}},
              type);
  options.add({.name = "--cipher",
               .value = "NAME",
               .help = "cipher, mode and IV, e.g. aes-xts-plain64 (default), serpent-xts-plain64, "
                       "aes-cbc-essiv:sha256"},
              cipher);
  options.add({.name = "--key-size",
               .value = "BITS",
               .help = "size of the volume key (default: 512 for xts, 256 otherwise)"},
              key_bits);
  options.add_size({.name = "--sector-size",
                    .value = "SIZE",
                    .help = "sectors of 512, 1024, 2048 or 4096 bytes (default 4096 where the "
                            "payload is a multiple of it, else 512; LUKS1: 512)"},
                   sector_size_bytes);
  options.add_size({.name = "--metadata-size",
                    .value = "SIZE",
                    .help = "size of one LUKS2 metadata copy, 16KiB (default) to 4MiB"},
                   metadata_size_bytes);
  options.add_size({.name = "--keyslots-size",
                    .value = "SIZE",
                    .help = "size of the LUKS2 keyslots area (default: 16 MiB with the metadata)"},
                   keyslots_size_bytes);
  options.add_size({.name = "--payload-offset",
                    .value = "SIZE",
                    .help = "where the payload starts (default: behind the header)"},
                   payload_offset_bytes);
  options.add({.name = "--label", .value = "TEXT", .help = "LUKS2: a name for the volume"}, label);
  options.add({.name = "--subsystem", .value = "TEXT", .help = "LUKS2: a second name"}, subsystem);
  options.add({.name = "--uuid", .value = "UUID", .help = "instead of a random one"}, uuid);
  options.add({.name = "--volume-key",
               .value = "SOURCE",
               .help = "the volume key, instead of a random one: file:PATH or fd:N"},
              volume_key);
  kdf.declare(options);
  options.add({.name = "--header",
               .value = "FILE",
               .help = "put the header into FILE, apart from the payload"},
              header);
  options.add({.name = "--key",
               .value = "SOURCE",
               .help = "the first passphrase: file:PATH[,offset=N][,size=N], fd:N or prompt: "
                       "(default)"},
              key);
  declare_allow_insecure(options, allow_insecure);
}

std::uint64_t NewVolume::payload_offset_bytes() const {
  return luks::payload_offset_bytes(fresh.header);
}

std::uint64_t NewVolume::header_bytes() const { return luks::header_size_bytes(fresh.header); }

std::uint32_t NewVolume::sector_size_bytes() const {
  return fresh.header.segments.at(0).sector_size_bytes;
}

std::string describe(const NewVolume& volume) {
  const luks::Header& header = volume.fresh.header;
  const luks::Segment& segment = header.segments.at(0);
  return fmt::format("{}, {} with a {}-bit key, {}-byte sectors, UUID {}",
                     version_name(header.version), segment.encryption,
                     volume.fresh.volume_key.size() * 8, segment.sector_size_bytes, header.uuid);
}

std::uint32_t choose_sector_size(const NewVolumeArgs& args,
                                 std::optional<std::uint64_t> payload_bytes) {
  if (args.sector_size_bytes) return size_as_32_bits(*args.sector_size_bytes, "--sector-size");
  if (version_of(args) == luks::Version::kLuks1 || !payload_bytes) return 512;
  return *payload_bytes % 4096 == 0 ? 4096 : 512;
}

NewVolume prepare_new_volume(const Session& session, const NewVolumeArgs& args,
                             std::uint32_t sector_size_bytes, const std::string& name) {
  warn_if_insecure(args.allow_insecure);
  luks::CreateOptions options = create_options(session, args, sector_size_bytes);
  if (!args.known_volume_key.empty()) {
    options.volume_key = args.known_volume_key.clone();
  } else if (!args.volume_key.empty()) {
    options.volume_key = read_volume_key(session, args.volume_key);
  }
  NewVolume volume;
  volume.fresh = luks::make_header(options);
  volume.passphrase = args.known_passphrase.empty() ? read_new_passphrase(session, args.key, name)
                                                    : args.known_passphrase.clone();
  volume.keyslot.cost = choose_cost(session, args.kdf, kdf_defaults(version_of(args)));
  if (args.kdf.hash) volume.keyslot.af_hash = *args.kdf.hash;
  return volume;
}

OrderedJson new_volume_json(const NewVolumeArgs& args, const NewVolume& volume,
                            const std::string& name, std::uint64_t payload_bytes) {
  OrderedJson json = {{"volume", name}};
  if (!args.header.empty()) json["header"] = args.header;
  json.update(summary_json(volume.fresh.header));
  json["key_bits"] = volume.fresh.volume_key.size() * 8;
  json["payload_size"] = payload_bytes;
  return json;
}

}  // namespace lukskeep::cli
