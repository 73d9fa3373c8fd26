#include "image/probe.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/limits.h"

namespace lukskeep::image {

void Match::add(std::string_view name, std::string what) {
  // Of each kind, so that what is allowed does not keep out what is not.
  const auto same = std::ranges::count(findings, name, &Finding::name);
  if (std::cmp_greater_equal(same, limits::kInspectFindingsMax)) return;
  const FindingKind* kind = find_finding_kind(name);
  findings.push_back({.name = kind->name,
                      .severity = kind->severity,
                      .format = format,
                      .what = std::move(what),
                      .remedy = kind->remedy});
}

void Probe::got(int /*tag*/, ByteView /*bytes*/) {}
void Probe::finish(const StreamEnd& /*end*/) {}

bool has_mark(ByteView bytes, std::uint64_t offset, std::string_view mark) noexcept {
  return fits({offset, mark.size()}, bytes.size()) &&
         as_string_view(bytes.subspan(offset, mark.size())) == mark;
}

std::vector<std::unique_ptr<Probe>> make_probes() {
  std::vector<std::unique_ptr<Probe>> probes;
  // In the order in which a polyglot is named.
  probes.push_back(make_qcow2_probe());
  probes.push_back(make_vmdk_probe());
  probes.push_back(make_vhd_probe());
  probes.push_back(make_vhdx_probe());
  probes.push_back(make_vdi_probe());
  probes.push_back(make_ploop_probe());
  for (auto& probe : make_mark_probes()) probes.push_back(std::move(probe));
  probes.push_back(make_luks_probe());
  probes.push_back(make_iso_probe());
  probes.push_back(make_partition_probe());
  return probes;
}

}  // namespace lukskeep::image
