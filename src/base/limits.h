// Every bound on what input can choose, in one place. A bound with a flag says which.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lukskeep::limits {

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;

// Strings from headers, key files and the network.
inline constexpr std::size_t kPassphraseBytesMax = 8 * kMiB;  // as cryptsetup's key files
inline constexpr std::size_t kPromptBytesMax = 512;           // as cryptsetup
inline constexpr std::size_t kJsonDepthMax = 64;              // LUKS2 §3: far above any use

// LUKS on disk.
inline constexpr std::uint32_t kVolumeKeyBytesMax = 512;            // 4096 bits
inline constexpr std::uint32_t kStripesMax = 4000;                  // LUKS1 §2.4: always 4000
inline constexpr std::uint64_t kKeyslotAreaBytesMax = 2 * kMiB;     // 512 bytes * 4000, rounded up
inline constexpr std::uint64_t kKeyslotsAreaBytesMax = 128 * kMiB;  // LUKS2 §2.4
inline constexpr std::uint64_t kLuks2MetadataBytesMax = 4 * kMiB;   // LUKS2 §2.3
inline constexpr std::size_t kSaltBytesMax = 512;
// Of the gap before a LUKS1 payload, which may be as large as its maker liked: what records use.
inline constexpr std::uint64_t kLuksmetaGapBytesMax = 4 * kMiB;

// Checks of a header: how much of an area is in memory, and how many places of damage in one
// keyslot are listed.
inline constexpr std::size_t kCheckPieceBytes = 64 * kKiB;
inline constexpr std::size_t kCheckRangesMax = 16;

// What a keyslot may cost on opening, unless --kdf-limit says otherwise.
inline constexpr std::uint32_t kPbkdf2IterationsMax = 1'000'000'000;
inline constexpr std::uint32_t kArgon2MemoryKibMax = 4 * 1024 * 1024;
inline constexpr std::uint32_t kArgon2TimeMax = 10'000;
inline constexpr std::uint32_t kArgon2ParallelMax = 64;
inline constexpr std::uint32_t kOpenSecondsDefault = 300;

// The copy engine.
inline constexpr std::size_t kCopyChunkBytes = 1 * kMiB;
inline constexpr std::size_t kCopyMemoryBytesMax = 32 * kMiB;
// How much of a device is mapped at once: bounds the memory for its extents.
inline constexpr std::uint64_t kMapBytes = 64 * kMiB;
// The same where the device turned out to be all data, or all holes: a look at each 64 MiB of a
// large device behind a server would take minutes.
inline constexpr std::uint64_t kMapBytesMax = 4 * kGiB;
// Requests in flight, if there are fewer cores: storage is slow to answer, not only to compute for.
inline constexpr unsigned kCopyThreadsMin = 4;

// Storage elsewhere. What a server may answer is bounded; how long it may take is said in the URI.
inline constexpr std::size_t kUriBytesMax = 8 * kKiB;
inline constexpr unsigned kNbdTimeoutSeconds = 60;
inline constexpr unsigned kNbdTimeoutSecondsMax = 86'400;
inline constexpr std::uint32_t kNbdBlockBytesMax =
    64 * kKiB;  // NBD protocol, "Block size constraints"
inline constexpr std::uint32_t kNbdRequestBytes = 1 * kMiB;  // of data in one request
// A size that is larger is proven by reading its end.
inline constexpr std::uint64_t kNbdSizeTrusted = kMiB * kGiB;
inline constexpr std::uint64_t kNbdMapBytes = 2 * kGiB;    // mapped in one request
inline constexpr std::uint64_t kNbdZeroBytes = 64 * kMiB;  // zeroed in one request
inline constexpr std::size_t kNbdRequestsMax = 16;         // under way for one caller
inline constexpr std::size_t kNbdConnectionsMax = 4;       // to one server that allows several
inline constexpr std::size_t kNbdServersMax = 8;           // kept connected
inline constexpr std::size_t kNbdExtentsMax = 65'536;      // looked at in one answer

inline constexpr std::uint64_t kRbdRequestBytes = 4 * kMiB;  // an object, as images are made
inline constexpr std::size_t kRbdRequestsMax = 16;           // under way for one caller
inline constexpr unsigned kRbdTimeoutSeconds = 60;
inline constexpr std::size_t kRbdNameBytesMax = 256;

// What a virtual machine's monitor may say: one line of JSON, and lines before the answer.
inline constexpr std::size_t kQmpLineBytesMax = 8 * kMiB;
inline constexpr std::size_t kQmpLinesMax = 10'000;
inline constexpr unsigned kQmpTimeoutSeconds = 30;
inline constexpr std::size_t kQmpEventsMax = 1000;  // kept until somebody waits for them
inline constexpr std::size_t kQmpEventBytesMax = 512;
// What a program that is started may print.
inline constexpr std::size_t kChildOutputBytesMax = 1 * kMiB;

// Policy files. The dots bound how deep tables nest.
inline constexpr std::size_t kPolicyBytesMax = 64 * kKiB;
inline constexpr std::size_t kTomlKeyDotsMax = 16;

// The archive.
inline constexpr std::size_t kAgeRecipientsMax = 64;
inline constexpr std::size_t kAgeHeaderBytesMax = 64 * kKiB;
inline constexpr std::size_t kManifestBytesMax = 256 * kKiB;
// A header with two metadata copies of 4 MiB and the largest keyslots area.
inline constexpr std::size_t kSnapshotHeaderBytesMax = 8 * kMiB + kKeyslotsAreaBytesMax;

// Compression and sealing add little to what a header has.
constexpr std::size_t snapshot_file_bytes_max(std::size_t header_bytes) {
  return header_bytes + header_bytes / 16 + kMiB;
}
inline constexpr std::size_t kSnapshotFileBytesMax =
    snapshot_file_bytes_max(kSnapshotHeaderBytesMax);
inline constexpr std::size_t kMirrorsFileBytesMax = 64 * kKiB;
inline constexpr std::size_t kMirrorFilesMax = 1'000'000;
// One page of a bucket's list: a thousand keys of 1 KiB, escaped, and what is said of them.
inline constexpr std::size_t kBucketPageBytesMax = 16 * kMiB;
inline constexpr std::size_t kBucketPagesMax = 10'000;

// qcow2 images; the first block is QEMU's own bounds (block/qcow2.h).
inline constexpr std::uint32_t kQcow2ClusterBitsMin = 9;
inline constexpr std::uint32_t kQcow2ClusterBitsMax = 21;
inline constexpr std::uint64_t kQcow2L1BytesMax = 32 * kMiB;
inline constexpr std::uint64_t kQcow2RefcountTableBytesMax = 8 * kMiB;
inline constexpr std::size_t kQcow2BackingNameBytesMax = 1023;
inline constexpr std::uint32_t kQcow2SnapshotsMax = 65'536;
inline constexpr std::uint32_t kQcow2BitmapsMax = 65'535;
// What is read of the tables of snapshots and bitmaps, to say what stands in the way of writing.
inline constexpr std::size_t kQcow2SnapshotTableBytesMax = 64 * kMiB;
inline constexpr std::size_t kQcow2BitmapDirectoryBytesMax = 64 * kMiB;
inline constexpr std::size_t kQcow2FormatNameBytesMax = 16;
inline constexpr std::uint64_t kQcow2CryptoHeaderBytesMax = 256 * kMiB;
// An image, its backing file, the backing file of that …
inline constexpr unsigned kQcow2ChainMax = 32;
// L2 tables and refcount blocks in memory, each, for one image.
inline constexpr std::size_t kQcow2CacheBytesMax = 8 * kMiB;
// Clusters that are stored compressed, inflated for the next small read, for one image.
inline constexpr std::size_t kQcow2InflatedBytesMax = 16 * kMiB;
// What zstd may ask for to decompress one cluster of at most 2 MiB.
inline constexpr int kQcow2ZstdWindowLogMax = 23;
// Serving volumes.
inline constexpr std::size_t kServeExportsMax = 64;
// At a time, unless connections= or --connections says otherwise. Each has threads of its own, and
// each of these a buffer of its largest request, 64 MiB at most (nbdkit).
inline constexpr std::size_t kServeConnectionsDefault = 256;
inline constexpr std::size_t kServeConnectionsMax = 4096;
// Sealing to servers and TPMs. A LUKS2 token has at most the size of its JSON area.
inline constexpr std::size_t kPinsMax = 64;     // leaves and nodes of one policy
inline constexpr std::size_t kPinDepthMax = 5;  // of sss in sss
inline constexpr std::size_t kPinPolicyBytesMax = 1 * kMiB;
inline constexpr std::size_t kJweHeaderBytesMax = 2 * kMiB;  // base64url text
inline constexpr std::size_t kSealedBytesMax = 4 * kMiB;     // a JWE of it is a third larger
inline constexpr std::size_t kShareFieldBytesMax = 128;      // Shamir's prime
inline constexpr std::size_t kTangReplyBytesMax = 16 * kKiB;
// Offline recovery: points of one request, and the text of a request, an answer or a state.
inline constexpr std::size_t kRecoveryPointsMax = 64;
inline constexpr std::size_t kRecoveryUrlBytesMax = 2 * kKiB;
inline constexpr std::size_t kRecoveryTextBytesMax = 512 * kKiB;
// Rekeying: volumes of one run, and the text of its journal, list and report.
inline constexpr std::size_t kRekeyVolumesMax = 1'000'000;
inline constexpr std::size_t kRekeyTextBytesMax = 512 * kMiB;
// Inspection of images. The head is judged as a whole: what dangers stand in it are known before a
// byte is passed on. Two copies of the largest LUKS2 metadata that is looked at fill it.
inline constexpr std::size_t kInspectHeadBytes = 512 * kKiB;
inline constexpr std::size_t kInspectTailBytes = 64 * kKiB;
inline constexpr std::size_t kInspectRangeBytesMax = 256 * kKiB;  // of any other part
inline constexpr std::uint64_t kInspectLuks2CopyBytesMax = kInspectHeadBytes / 2;
inline constexpr std::size_t kInspectFindingsMax = 64;  // of one format
inline constexpr unsigned kInspectLayersMax = 4;        // of encryption within encryption
// Images and what is said of them.
inline constexpr std::size_t kImagePropertiesMax = 1024;
inline constexpr std::size_t kImagePropertiesBytesMax = 1 * kMiB;
// Bundles: chunks grow with the image, so that their list stays below 32 MiB and one is in memory
// at a time.
inline constexpr std::size_t kBundleManifestBytesMax = 2 * kMiB;
inline constexpr std::uint64_t kBundleChunkBytesMin = 1 * kMiB;
inline constexpr std::uint64_t kBundleChunkBytesMax = 64 * kMiB;
inline constexpr std::uint64_t kBundleChunksMax = 1'048'576;
inline constexpr std::size_t kSigningKeyBytesMax = 16 * kKiB;  // a file in PEM
// The image service.
inline constexpr unsigned kImageServiceWaitSeconds = 300;  // without a byte in either direction
inline constexpr unsigned kImageTransferTries = 5;  // of a download, each from where it broke
inline constexpr std::size_t kVolumeTypeBytesMax = 256 * kKiB;  // of Cinder, as JSON
// Key managers.
inline constexpr std::size_t kSecretBytesMax = 64 * kKiB;     // Barbican takes 20 000 bytes
inline constexpr std::size_t kSecretTextBytesMax = 255;       // as Barbican: names, metadata
inline constexpr std::size_t kSecretMetadataMax = 64;         // of one secret
inline constexpr std::size_t kSecretConsumersMax = 10'000;    // of one secret
inline constexpr std::size_t kWrappingKeyBytesMin = 16;       // of a keystore, unless a passphrase
inline constexpr std::uint32_t kOrderBitsMax = 4096;          // of a key that is made for us
inline constexpr std::size_t kSecretsMax = 1'000'000;         // of one list
inline constexpr std::size_t kKeyServiceBytesMax = 1 * kMiB;  // one answer
inline constexpr unsigned kKeyManagerWaitSeconds = 60;        // for one answer, or one order
inline constexpr std::size_t kCredentialsBytesMax = 64 * kKiB;  // a file of them
inline constexpr std::size_t kReferencesMax = 1'000'000;        // of keystore reconcile

// The network.
inline constexpr std::size_t kHttpHeaderBytesMax = 256 * kKiB;
// Keys and signatures of JOSE. Verifying tries each key on each signature: the product is paid for.
inline constexpr std::size_t kJwkBytesMax = 64 * kKiB;
inline constexpr std::size_t kJwkOperationsMax = 16;
inline constexpr std::size_t kJwkSetKeysMax = 64;
inline constexpr std::size_t kJwsSignaturesMax = 32;
inline constexpr std::size_t kJwsBytesMax = 256 * kKiB;
// The Tang server. Clients beyond these are counted together, or share a rate.
inline constexpr std::size_t kTangKeysMax = 256;
inline constexpr std::size_t kTangClientsMax = 65'536;
inline constexpr std::size_t kTangUsesMax = 262'144;  // of a key by a client, in the record
inline constexpr std::size_t kTangRulesMax = 10'000;
inline constexpr std::size_t kTangRulesBytesMax = 4 * kMiB;
inline constexpr std::size_t kTangLogBytesMax = 1 * kMiB;  // waiting to be written
inline constexpr std::size_t kTangBackupBytesMax = 32 * kMiB;
// Volumes, or servers, that are dealt with side by side: they wait more than they compute.
inline constexpr unsigned kUnlockThreadsMax = 32;
// Watching for changes of headers.
inline constexpr std::size_t kWatchFoldersMax = 65'536;
inline constexpr std::size_t kWatchFilesMax = 65'536;  // with a header, or to be looked at
// Snapshots of one path in each period of kWatchPeriodSeconds: a guest writes its disk as it likes.
inline constexpr unsigned kWatchSnapshotsMax = 30;
// Of all paths together, as names cost nothing: one a second. What is there at the start is not
// among them.
inline constexpr unsigned kWatchSnapshotsTotalMax = 600;
inline constexpr unsigned kWatchPeriodSeconds = 600;

}  // namespace lukskeep::limits
