// Volumes as libvirt's XML wants them (libvirt, docs/formatsecret, formatdomain and
// formatstorageencryption). Text in, text out.
#pragma once

#include <string>
#include <vector>

namespace lukskeep::vm {

struct LibvirtSecret {
  std::string uuid;
  std::string usage;        // what libvirt knows it by besides: the volume
  bool persistent = false;  // libvirtd keeps the value on its disk
};
std::string secret_xml(const LibvirtSecret& secret);

struct LibvirtDisk {
  // Where it is: a file or block device, an image in Ceph, or an NBD server's export.
  std::string path;
  bool block_device = false;
  std::string rbd_image;  // "pool/image"
  std::string rbd_snapshot;
  std::vector<std::string> rbd_hosts;  // "HOST" or "HOST:PORT", "[ADDR]:PORT"
  std::string rbd_user;                // with the UUID of the secret that holds its key
  std::string rbd_user_secret;
  std::string nbd_socket;
  std::string nbd_export;

  std::string format;       // "luks" or "luks2"; empty: not encrypted
  std::string engine;       // "qemu" or "librbd"; empty: libvirt's choice
  std::string secret_uuid;  // of the passphrase
  std::string target = "vdb";
  std::string bus = "virtio";
  std::string serial;
  bool read_only = false;
};
std::string disk_xml(const LibvirtDisk& disk);

// For a header apart from its payload, which libvirt has no element for: what a domain gives QEMU
// beside what libvirt makes of it. QEMU reads the passphrase from `key_file`.
struct LibvirtCommandline {
  std::string id;  // vm::check_disk_id
  std::string payload;
  std::string header;
  bool payload_device = false;  // it is a block device, not a file
  bool header_device = false;
  std::string key_file;
  std::string device = "virtio-blk-pci";
  bool read_only = false;
};
// Throws Error{kUnsupported} for a path that is no UTF-8.
std::string commandline_xml(const LibvirtCommandline& disk);

// All of the above throw Error{kUnsupported} for text that XML cannot hold: bytes that are no
// UTF-8, control characters.

}  // namespace lukskeep::vm
