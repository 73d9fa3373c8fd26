// VMDK of VMware ("Virtual Disk Format 5.0"): sparse files with a descriptor within, and
// descriptors alone.
#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "base/limits.h"
#include "image/probe.h"

namespace lukskeep::image {
namespace {

constexpr std::string_view kMark = "KDMV";
constexpr std::uint64_t kSectorBytes = 512;
constexpr std::size_t kHeaderBytes = 512;
constexpr std::size_t kMarkerAndHeaderBytes = 3 * kSectorBytes;  // marker, footer, end of stream
constexpr std::uint64_t kTableAtEnd = UINT64_MAX;
constexpr std::uint64_t kDescriptorBytesMax = limits::kInspectRangeBytesMax;
constexpr std::uint32_t kFooterMarker = 3;
constexpr std::size_t kTextBytesMax = 64 * limits::kKiB;

struct SparseHeader {
  std::uint32_t version = 0;
  std::uint64_t capacity = 0;  // this and the next in sectors
  std::uint64_t grain = 0;
  std::uint64_t descriptor = 0;
  std::uint64_t descriptor_size = 0;
  std::uint32_t grains_per_table = 0;
  std::uint64_t directory = 0;
  std::uint16_t compression = 0;
};

SparseHeader read_header(ByteView bytes) {
  const auto u64 = [&](std::size_t at) { return load_le<std::uint64_t>(&bytes[at]); };
  return {.version = load_le<std::uint32_t>(&bytes[4]),
          .capacity = u64(12),
          .grain = u64(20),
          .descriptor = u64(28),
          .descriptor_size = u64(36),
          .grains_per_table = load_le<std::uint32_t>(&bytes[44]),
          .directory = u64(56),
          .compression = load_le<std::uint16_t>(&bytes[77])};
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  return result;
}

std::string_view trim(std::string_view text) {
  const auto space = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && space(text.front())) text.remove_prefix(1);
  while (!text.empty() && space(text.back())) text.remove_suffix(1);
  return text;
}

std::string_view unquote(std::string_view text) {
  text = trim(text);
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') {
    return text.substr(1, text.size() - 2);
  }
  return text;
}

std::size_t count(std::string_view text, std::string_view word) {
  std::size_t found = 0;
  for (std::size_t at = text.find(word); at != std::string_view::npos;
       at = text.find(word, at + 1)) {
    ++found;
  }
  return found;
}

bool is_text(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 0x20 && c < 0x7f) || c == '\n' || c == '\r' || c == '\t';
  });
}

// QEMU's rule: after comments and empty lines, "version=" and a number.
bool starts_as_descriptor(std::string_view text) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string line = lower(trim(text.substr(0, end)));
    if (!line.empty() && line.front() != '#') return line.starts_with("version=");
    if (end == text.size()) return false;
    text.remove_prefix(end + 1);
  }
  return false;
}

class VmdkProbe final : public Probe {
 public:
  void head(ByteView head) override;
  void got(int tag, ByteView bytes) override;
  void finish(const StreamEnd& end) override;

 private:
  void find_text(ByteView head);
  void check_header(const SparseHeader& header);
  void read_descriptor(std::string_view text);
  void read_line(std::string_view line);
  void read_extent(std::string_view line);
  void check_footer(const StreamEnd& end);

  Bytes first_;  // the header
  SparseHeader header_;
  std::string type_;
  unsigned extents_ = 0;
};

void VmdkProbe::head(ByteView head) {
  if (!has_mark(head, 0, kMark)) return find_text(head);
  match_.format = "vmdk";
  if (head.size() < kHeaderBytes) return add("vmdk-header", "the file ends within the header");
  first_.assign(head.begin(), head.begin() + kHeaderBytes);
  header_ = read_header(first_);
  check_header(header_);
  // Others look for it there, whatever the header says.
  if (header_.descriptor != 1 || header_.descriptor_size == 0 ||
      header_.descriptor_size > kDescriptorBytesMax / kSectorBytes) {
    return add("vmdk-descriptor",
               fmt::format("a descriptor of {} sectors at sector {} is not one of up to {} KiB at "
                           "sector 1",
                           header_.descriptor_size, header_.descriptor,
                           kDescriptorBytesMax / limits::kKiB));
  }
  want(0, {kSectorBytes, header_.descriptor_size * kSectorBytes});
}

void VmdkProbe::check_header(const SparseHeader& header) {
  const auto bad = [&](const std::string& what) { add("vmdk-header", what); };
  if (header.version < 1 || header.version > 3) {
    bad(fmt::format("version {} is not 1 to 3", header.version));
  }
  if (header.capacity > static_cast<std::uint64_t>(INT64_MAX) / kSectorBytes) {
    return bad(fmt::format("a disk of {} sectors is larger than any", header.capacity));
  }
  if (header.capacity == 0) {
    bad("a disk without a sector: readers take what the descriptor names instead");
  }
  match_.virtual_size_bytes = header.capacity * kSectorBytes;
  if (!is_power_of_two(header.grain) || header.grain < 8 || header.grain > 32'768) {
    bad(fmt::format("grains of {} sectors", header.grain));
  }
  if (header.grains_per_table == 0 || header.grains_per_table > 512) {
    bad(fmt::format("grain tables of {} entries", header.grains_per_table));
  }
  if (header.compression > 1) bad(fmt::format("compression {} is not known", header.compression));
  // What a transfer in text mode would change.
  if (!has_mark(first_, 73, "\n \r\n")) bad("its line ends were changed on the way");
}

void VmdkProbe::got(int /*tag*/, ByteView bytes) {
  if (bytes.size() < header_.descriptor_size * kSectorBytes) {
    return add("vmdk-descriptor", "the file ends within the descriptor");
  }
  const std::string_view text = as_string_view(bytes);
  const std::size_t end = text.find('\0');
  // What stands behind the end is read by nobody who stops there, and by everybody else.
  if (end == std::string_view::npos) {
    add("vmdk-descriptor", "it has no end: readers go on behind it");
  } else if (!all_zero(bytes.subspan(end))) {
    add("vmdk-descriptor", "there is more behind the end of the descriptor");
  }
  read_descriptor(text.substr(0, end));
}

void VmdkProbe::find_text(ByteView head) {
  const std::string_view text = as_string_view(head.first(std::min(head.size(), kTextBytesMax)));
  const std::string_view start = text.substr(0, kSectorBytes);
  const bool named = lower(start).starts_with("# disk descriptorfile");
  const bool typed = is_text(start) && lower(text).find("createtype") != std::string::npos;
  if (!named && !typed && !starts_as_descriptor(text)) return;
  match_.format = "vmdk";
  match_.variant = "descriptor";
  add("vmdk-text", "it is a descriptor, whose disk is in other files");
  read_descriptor(text.substr(0, text.find('\0')));
}

void VmdkProbe::read_descriptor(std::string_view text) {
  if (!is_text(text)) add("vmdk-descriptor", "the descriptor is no text");
  const std::string whole = lower(text);
  // Readers that search the text, comments included, find the first.
  for (const std::string_view word : {"createtype", "parentcid"}) {
    const std::size_t times = count(whole, word);
    if (times > 1) add("vmdk-descriptor", fmt::format("'{}' is there {} times", word, times));
  }
  // They look for these in comments and in the middle of lines as well.
  if (whole.find("parentfilenamehint") != std::string::npos) {
    add("vmdk-parent", "it names the file of a parent");
  }
  if (const std::size_t at = whole.find("parentcid");
      at != std::string::npos &&
      !std::string_view(whole).substr(at).starts_with("parentcid=ffffffff")) {
    add("vmdk-parent", "it holds what differs from another file");
  }
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    read_line(trim(text.substr(0, end)));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  if (!first_.empty()) match_.variant = printable(type_);
  if (type_ != "monolithicsparse" && type_ != "streamoptimized") {
    add("vmdk-type", type_.empty() ? "the descriptor has no type"
                                   : fmt::format("type '{}' is made of other files, or not known",
                                                 printable(type_)));
  } else {
    match_.variant = type_ == "streamoptimized" ? "streamOptimized" : "monolithicSparse";
  }
  if (extents_ != 1) add("vmdk-extents", fmt::format("it has {} extents, not 1", extents_));
}

void VmdkProbe::read_line(std::string_view line) {
  if (line.empty() || line.front() == '#') return;
  const std::string word = lower(line.substr(0, line.find_first_of(" =\t")));
  if (word == "rw" || word == "rdonly" || word == "noaccess") return read_extent(line);
  const std::size_t equals = line.find('=');
  if (equals == std::string_view::npos) {
    return add("vmdk-descriptor", fmt::format("line '{}' is not known", printable(line)));
  }
  const std::string_view value = unquote(line.substr(equals + 1));
  if (word == "createtype") {
    type_ = lower(value);
  } else if (word == "parentcid") {
    if (lower(value) != "ffffffff") add("vmdk-parent", "it holds what differs from another file");
  } else if (word == "parentfilenamehint") {
    add("vmdk-parent", fmt::format("its parent is the file '{}'", printable(value, 256)));
  } else if (word == "changetrackpath") {
    add("vmdk-extents", fmt::format("it names the file '{}'", printable(value, 256)));
  } else if (word != "version" && word != "cid" && word != "encoding" &&
             word != "isnativesnapshot" && !word.starts_with("ddb.")) {
    add("vmdk-descriptor", fmt::format("line '{}' is not known", printable(line)));
  }
}

// RW 4192256 SPARSE "disk.vmdk"
void VmdkProbe::read_extent(std::string_view line) {
  ++extents_;
  const std::size_t quote = line.find('"');
  const std::string_view name =
      quote == std::string_view::npos ? std::string_view() : unquote(line.substr(quote));
  const std::string words = lower(line.substr(0, quote));
  if (words.find(" sparse") == std::string::npos || words.find("rw ") != 0) {
    add("vmdk-extents", fmt::format("extent '{}' is not in this file", printable(line, 128)));
  }
  // It is this file's own name, but readers open what is named.
  if (name.empty() || name.find_first_of("/\\:") != std::string_view::npos || name == "..") {
    add("vmdk-extents",
        fmt::format("the extent's file '{}' is not one beside it", printable(name, 256)));
  }
}

void VmdkProbe::finish(const StreamEnd& end) {
  if (first_.empty()) return;
  if (header_.directory == kTableAtEnd) return check_footer(end);
  if (header_.grain == 0 || header_.grains_per_table == 0) return;
  const std::uint64_t covered = header_.grain * header_.grains_per_table;
  const std::uint64_t tables = header_.capacity / covered + (header_.capacity % covered != 0);
  const bool overflows = header_.directory > UINT64_MAX / kSectorBytes;
  if (overflows || !fits({header_.directory * kSectorBytes, tables * 4}, end.size_bytes)) {
    add("vmdk-tables",
        fmt::format("the grain directory at sector {} is not in the file", header_.directory));
  }
}

// Of a stream, whose header was written before it was known where the tables would be.
void VmdkProbe::check_footer(const StreamEnd& end) {
  if (end.tail.size() < kMarkerAndHeaderBytes || end.size_bytes < 4 * kSectorBytes) {
    return add("vmdk-footer", "the file ends before its footer");
  }
  const ByteView last = end.tail.last(kMarkerAndHeaderBytes);
  const ByteView footer = last.subspan(kSectorBytes, kSectorBytes);
  const bool marked = load_le<std::uint64_t>(last.data()) == 1 &&
                      load_le<std::uint32_t>(&last[8]) == 0 &&
                      load_le<std::uint32_t>(&last[12]) == kFooterMarker &&
                      all_zero(last.subspan(16, kSectorBytes - 16));
  if (!marked || !has_mark(footer, 0, kMark)) {
    return add("vmdk-footer", "there is no footer at the end of the file");
  }
  if (!all_zero(last.last(kSectorBytes))) add("vmdk-footer", "the stream does not end behind it");
  const SparseHeader second = read_header(footer);
  if (second.directory == kTableAtEnd) add("vmdk-footer", "the footer refers to another footer");
  // All but the place of the tables is as in the header.
  Bytes expected = first_;
  std::copy_n(footer.begin() + 56, 8, expected.begin() + 56);
  if (!std::equal(footer.begin(), footer.end(), expected.begin())) {
    add("vmdk-footer", "the footer is not what the header says");
  }
  if (second.directory > end.size_bytes / kSectorBytes) {
    add("vmdk-tables",
        fmt::format("the grain directory at sector {} is not in the file", second.directory));
  }
}

}  // namespace

std::unique_ptr<Probe> make_vmdk_probe() { return std::make_unique<VmdkProbe>(); }

}  // namespace lukskeep::image
