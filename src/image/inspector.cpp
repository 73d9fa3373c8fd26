#include "image/inspector.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "base/limits.h"

namespace lukskeep::image {
namespace {

constexpr std::array<std::string_view, 21> kFormatNames = {
    "raw",   "qcow2", "qcow",  "qed", "vhd",  "vhdx",      "vmdk",  "vdi",  "iso",  "gpt", "mbr",
    "luks1", "luks2", "ploop", "dmg", "luks", "parallels", "bochs", "gzip", "zstd", "xz"};

bool is_disk(std::string_view format) {
  return format == "raw" || format == "mbr" || format == "gpt";
}

bool is_expected(std::string_view format, std::string_view expected) {
  if (expected.empty() || format == expected) return true;
  if (expected == "luks") return format == "luks1" || format == "luks2";
  return expected == "raw" && is_disk(format);
}

// A part of the stream that a probe wants to see.
struct Capture {
  Probe* probe = nullptr;
  int tag = 0;
  ByteRange range;
  Bytes bytes;

  std::uint64_t end() const { return range.offset_bytes + range.size_bytes; }
};

// What stands at the end of the stream. Appending costs no more than copying twice.
class Tail {
 public:
  void append(ByteView chunk) {
    constexpr std::size_t kBytes = limits::kInspectTailBytes;
    if (chunk.size() >= kBytes) {
      const ByteView last = chunk.last(kBytes);
      bytes_.assign(last.begin(), last.end());
      return;
    }
    if (bytes_.size() + chunk.size() > 2 * kBytes) {
      bytes_.erase(bytes_.begin(), bytes_.end() - static_cast<std::ptrdiff_t>(kBytes));
    }
    bytes_.insert(bytes_.end(), chunk.begin(), chunk.end());
  }
  ByteView last() const {
    return ByteView(bytes_).last(std::min(bytes_.size(), limits::kInspectTailBytes));
  }

 private:
  Bytes bytes_;
};

}  // namespace

bool Report::safe() const noexcept {
  return std::none_of(findings.begin(), findings.end(),
                      [](const Finding& finding) { return finding.dangerous(); }) &&
         (!inner || inner->safe());
}

void check_format_name(std::string_view format) {
  if (std::find(kFormatNames.begin(), kFormatNames.end(), format) != kFormatNames.end()) return;
  throw Error(Code::kUsage, fmt::format("'{}' is no format that is known", printable(format)),
              fmt::format("one of {}", fmt::join(kFormatNames, ", ")));
}

struct Inspector::State {
  InspectorOptions options;
  std::vector<std::unique_ptr<Probe>> probes = make_probes();
  std::vector<Capture> captures;
  Bytes head;
  bool head_judged = false;
  bool finished = false;
  Tail tail;
  std::uint64_t position = 0;

  explicit State(InspectorOptions chosen) : options(std::move(chosen)) {}

  void judge_head();
  void admit(Probe& probe);
  void complete(bool at_end);
  std::size_t piece(std::size_t available) const;
  void take(ByteView piece);
  Report report() const;
  static void add_findings(Report& report, const std::vector<const Match*>& matches);
  static void add_polyglot(Report& report, const std::vector<const Match*>& matches);
  void add_unexpected(Report& report) const;
};

void Inspector::State::judge_head() {
  head_judged = true;
  for (const auto& probe : probes) {
    probe->head(head);
    admit(*probe);
  }
}

// What is wanted and has passed is taken from the head if it is there, and is empty otherwise.
void Inspector::State::admit(Probe& probe) {
  for (const Probe::Want& want : probe.take_wants()) {
    Capture capture{.probe = &probe, .tag = want.tag, .range = want.range, .bytes = {}};
    if (!fits(want.range, UINT64_MAX)) {
      capture.range = {position, 0};
    } else if (want.range.offset_bytes < position) {
      if (position > head.size() && !fits(want.range, head.size())) {
        capture.range = {position, 0};
      } else {
        const std::uint64_t size =
            std::min<std::uint64_t>(want.range.size_bytes, head.size() - want.range.offset_bytes);
        const ByteView there = ByteView(head).subspan(want.range.offset_bytes, size);
        capture.bytes.assign(there.begin(), there.end());
      }
    }
    captures.push_back(std::move(capture));
  }
}

// Gives probes what they wanted, as far as the stream has come.
void Inspector::State::complete(bool at_end) {
  for (;;) {
    const auto ready = std::find_if(captures.begin(), captures.end(), [&](const Capture& capture) {
      return at_end || capture.bytes.size() == capture.range.size_bytes;
    });
    if (ready == captures.end()) return;
    const Capture capture = std::move(*ready);
    captures.erase(ready);
    capture.probe->got(capture.tag, capture.bytes);
    admit(*capture.probe);
  }
}

// How many of the next bytes can be taken before somebody is to be told.
std::size_t Inspector::State::piece(std::size_t available) const {
  std::uint64_t size = available;
  if (!head_judged) size = std::min(size, limits::kInspectHeadBytes - position);
  for (const Capture& capture : captures) size = std::min(size, capture.end() - position);
  return static_cast<std::size_t>(size);
}

void Inspector::State::take(ByteView piece) {
  if (!head_judged) head.insert(head.end(), piece.begin(), piece.end());
  for (Capture& capture : captures) {
    const std::uint64_t begin = std::max(capture.range.offset_bytes, position);
    const std::uint64_t end = std::min(capture.end(), position + piece.size());
    if (begin >= end) continue;
    const ByteView part = piece.subspan(begin - position, end - begin);
    capture.bytes.insert(capture.bytes.end(), part.begin(), part.end());
  }
  position += piece.size();
  if (!head_judged && position == limits::kInspectHeadBytes) judge_head();
  complete(false);
}

void Inspector::State::add_polyglot(Report& report, const std::vector<const Match*>& matches) {
  const auto has = [&](std::string_view format) {
    return std::find(report.formats.begin(), report.formats.end(), format) != report.formats.end();
  };
  // A hybrid ISO has a partition table, and what wraps a disk may wrap one with partitions.
  const auto others = std::count_if(matches.begin(), matches.end(), [&](const Match* match) {
    return match->format != "gpt" && match->format != "mbr" &&
           !(match->format == "iso" && matches.front()->is_wrapper);
  });
  const bool tables = has("gpt") || has("mbr");
  const bool may_have_table = others == 0 || has("iso") || matches.front()->is_wrapper;
  if (others <= 1 && (!tables || may_have_table)) return;
  Match match{.format = report.format};
  match.add("polyglot", fmt::format("the file is {} at once", fmt::join(report.formats, " and ")));
  report.findings.insert(report.findings.begin(), match.findings.front());
}

void Inspector::State::add_unexpected(Report& report) const {
  if (is_expected(report.format, options.expected)) return;
  // A fixed VHD shows itself at its end only.
  if (!finished && (is_disk(report.format) || options.expected == "vhd")) return;
  Match match{.format = report.format};
  match.add("unexpected-format",
            fmt::format("the file is {}, not {}", report.format, options.expected));
  report.findings.insert(report.findings.begin(), match.findings.front());
}

Report Inspector::State::report() const {
  Report report;
  report.size_bytes = position;
  std::vector<const Match*> matches;
  for (const auto& probe : probes) {
    if (probe->matched()) matches.push_back(&probe->match());
  }
  if (matches.size() > 1)
    std::erase_if(matches, [](const Match* match) { return match->is_trace; });
  for (const Match* match : matches) report.formats.push_back(match->format);
  if (matches.empty()) {
    report.formats = {"raw"};
    report.virtual_size_bytes = position;
  } else {
    const Match& first = *matches.front();
    report.format = first.format;
    report.variant = first.variant;
    report.virtual_size_bytes = first.virtual_size_bytes;
    report.payload_size_bytes = first.payload_size_bytes;
    report.encrypted = first.encrypted;
  }
  if (!report.payload_size_bytes) report.payload_size_bytes = report.virtual_size_bytes;
  add_findings(report, matches);
  if (matches.size() > 1) add_polyglot(report, matches);
  if (head_judged) add_unexpected(report);
  for (Finding& finding : report.findings) finding.allowed = options.allow.contains(finding.name);
  return report;
}

void Inspector::State::add_findings(Report& report, const std::vector<const Match*>& matches) {
  const bool iso =
      std::find(report.formats.begin(), report.formats.end(), "iso") != report.formats.end();
  for (const Match* match : matches) {
    for (Finding finding : match->findings) {
      // Tools that make bootable ISO images write tables that no other program would.
      if (iso && (match->format == "gpt" || match->format == "mbr")) {
        const FindingKind* kind = find_finding_kind("gpt-on-iso");
        finding.name = kind->name;
        finding.severity = kind->severity;
        finding.remedy = kind->remedy;
      }
      report.findings.push_back(std::move(finding));
    }
  }
}

Inspector::Inspector(InspectorOptions options)
    : state_(std::make_unique<State>(std::move(options))) {}
Inspector::~Inspector() = default;
Inspector::Inspector(Inspector&&) noexcept = default;
Inspector& Inspector::operator=(Inspector&&) noexcept = default;

void Inspector::feed(ByteView chunk) {
  while (!chunk.empty()) {
    const ByteView piece = chunk.first(state_->piece(chunk.size()));
    state_->take(piece);
    state_->tail.append(piece);
    chunk = chunk.subspan(piece.size());
  }
}

std::uint64_t Inspector::skippable(std::uint64_t size_bytes) const {
  if (!state_->head_judged || size_bytes <= limits::kInspectTailBytes) return 0;
  std::uint64_t next = size_bytes - limits::kInspectTailBytes;
  for (const Capture& capture : state_->captures) {
    next = std::min(next, std::max(capture.range.offset_bytes, state_->position));
  }
  return next > state_->position ? next - state_->position : 0;
}

void Inspector::skip(std::uint64_t bytes) { state_->position += bytes; }

bool Inspector::dangerous() const { return state_->head_judged && !state_->report().safe(); }

Report Inspector::so_far() const { return state_->report(); }

Report Inspector::finish() {
  if (!state_->head_judged) state_->judge_head();
  state_->complete(false);
  state_->complete(true);
  const StreamEnd end{.size_bytes = state_->position, .tail = state_->tail.last()};
  for (const auto& probe : state_->probes) probe->finish(end);
  state_->finished = true;
  return state_->report();
}

}  // namespace lukskeep::image
