// peek: writes the plain contents of a LUKS volume to standard output.
//
//     peek VOLUME KEY_FILE [HEADER_FILE] > plain
//
// A small program on liblukskeep. It says on standard error what it found, and needs neither root
// nor device-mapper.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <span>
#include <string>
#include <vector>

#include <lukskeep/error.h>
#include <lukskeep/secret_bytes.h>
#include <lukskeep/version.h>
#include <lukskeep/volume.h>

namespace {

using lukskeep::SecretBytes;

// The bytes of a key file are the passphrase, all of them.
SecretBytes read_passphrase(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw lukskeep::Error(lukskeep::Code::kNotFound, "cannot open '" + path + "'");
  SecretBytes bytes(static_cast<std::size_t>(file.tellg()));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

void copy_to_stdout(const lukskeep::Device& plain) {
  std::vector<std::byte> buffer(1U << 20U);
  for (std::uint64_t offset = 0; offset < plain.size_bytes();) {
    const auto length = std::min<std::uint64_t>(buffer.size(), plain.size_bytes() - offset);
    const std::span<std::byte> chunk(buffer.data(), static_cast<std::size_t>(length));
    plain.read(offset, chunk);
    if (std::fwrite(chunk.data(), 1, chunk.size(), stdout) != chunk.size()) {
      throw lukskeep::Error(lukskeep::Code::kIo, "cannot write to standard output");
    }
    offset += length;
  }
  if (std::fflush(stdout) != 0) {
    throw lukskeep::Error(lukskeep::Code::kIo, "cannot write to standard output");
  }
}

int peek(const std::string& path, const std::string& key_file, const std::string& header_path) {
  auto volume = lukskeep::Volume::open({.path = path, .header_path = header_path});
  const auto& header = volume.header();
  std::cerr << path << ": LUKS" << static_cast<int>(header.version) << ", UUID " << header.uuid
            << ", " << header.keyslots.size() << " keyslots, " << volume.payload_size_bytes()
            << " bytes inside (liblukskeep " << lukskeep::version() << ")\n";
  for (const auto& problem : volume.problems()) std::cerr << "warning: " << problem << "\n";

  const auto keyslot = volume.unlock(read_passphrase(key_file).span());
  if (!keyslot) {
    std::cerr << "no keyslot opens with '" << key_file << "'\n";
    return lukskeep::exit_status(lukskeep::Code::kWrongPassphrase);
  }
  std::cerr << "opened with keyslot " << *keyslot << "\n";
  copy_to_stdout(*volume.activate(lukskeep::Access::kRead));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) {
    std::cerr << "usage: peek VOLUME KEY_FILE [HEADER_FILE] > plain\n";
    return 1;
  }
  try {
    return peek(argv[1], argv[2], argc == 4 ? argv[3] : "");
  } catch (const lukskeep::Error& error) {
    std::cerr << error.message() << "\n";
    if (!error.hint().empty()) std::cerr << error.hint() << "\n";
    return lukskeep::exit_status(error.code());
  }
}
