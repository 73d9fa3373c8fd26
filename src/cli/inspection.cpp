#include "cli/inspection.h"

#include <fmt/format.h>

#include "base/bytes.h"
#include "cli/units.h"
#include "cli/volume_access.h"
#include "storage/location.h"

namespace lukskeep::cli {
namespace {

using image::Finding;
using image::Report;

OrderedJson size_json(const std::optional<std::uint64_t>& size_bytes) {
  return size_bytes ? OrderedJson(*size_bytes) : OrderedJson();
}

std::string to_text(const Finding& finding, std::string_view indent) {
  const std::string_view kind =
      finding.allowed ? std::string_view("allowed") : image::severity_name(finding.severity);
  return fmt::format("{0}  {1:<8} {2}: {3}\n{0}           -> {4}\n", indent, kind, finding.name,
                     finding.what, finding.remedy);
}

void append(std::string& text, const Report& report, std::string_view indent) {
  const auto size = [&](std::string_view name, const std::optional<std::uint64_t>& bytes) {
    if (bytes) text += fmt::format("{}  {:<14}{}\n", indent, name, exact_size(*bytes));
  };
  size("size", report.size_bytes);
  size("payload size", report.payload_size_bytes);
  size("virtual size", report.virtual_size_bytes);
  for (const Finding& finding : report.findings) text += to_text(finding, indent);
  if (!report.inner) return;
  const Report& inner = *report.inner;
  text += fmt::format("{}  inside: {}{}\n", indent, inner.format,
                      inner.variant.empty() ? "" : " (" + inner.variant + ")");
  append(text, inner, fmt::format("{}  ", indent));
}

}  // namespace

std::function<std::shared_ptr<Device>()> image_opener(const std::string& path) {
  const NamedFiles& named = allowed_named_files();
  if (!named.backing && !named.data_file) return {};
  if (storage::scheme_of(path) != storage::Scheme::kFile) return {};
  return [path] { return open_to_look("qcow2:" + path); };
}

OrderedJson report_json(const Report& report) {
  OrderedJson findings = OrderedJson::array();
  for (const Finding& finding : report.findings) {
    findings.push_back({{"name", finding.name},
                        {"severity", image::severity_name(finding.severity)},
                        {"allowed", finding.allowed},
                        {"format", finding.format},
                        {"what", finding.what},
                        {"remedy", finding.remedy}});
  }
  return {{"safe", report.safe()},
          {"format", report.format},
          {"variant", report.variant},
          {"formats", report.formats},
          {"encrypted", report.encrypted},
          {"size", report.size_bytes},
          {"payload_size", size_json(report.payload_size_bytes)},
          {"virtual_size", size_json(report.virtual_size_bytes)},
          {"findings", std::move(findings)},
          {"inner", report.inner ? report_json(*report.inner) : OrderedJson()}};
}

std::string report_text(const Report& report, std::string_view name) {
  std::string text =
      fmt::format("{}: {}{}, {}\n", printable(name, 256), report.format,
                  report.variant.empty() ? "" : " (" + printable(report.variant) + ")",
                  report.safe() ? "safe" : "NOT SAFE");
  append(text, report, "");
  return text;
}

std::string danger_text(const Report& report) {
  for (const Finding& finding : report.findings) {
    if (finding.dangerous()) return fmt::format("{}: {}", finding.name, finding.what);
  }
  return report.inner ? danger_text(*report.inner) : std::string();
}

}  // namespace lukskeep::cli
