// report: what is wrong with the bindings of volumes, before it is needed.
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/parallel_for.h"
#include "cli/binding_access.h"
#include "cli/binding_view.h"
#include "cli/command.h"
#include "nbde/binding_report.h"

namespace lukskeep::cli {
namespace {

class Report final : public Command {
 public:
  void declare(Options& options) override {
    options.positionals({.name = "VOLUME", .help = "volumes, or files with their headers"},
                        volumes_);
    policy_.declare(options);
    options.flag({.name = "--offline", .help = "say what the headers say, and ask no server"},
                 offline_);
    servers_.declare(options);
  }

  void run(const Session& session) override {
    if (volumes_.empty()) throw Error(Code::kUsage, "VOLUME is missing");
    std::vector<Result> results(volumes_.size());
    parallel_for(volumes_.size(), limits::kUnlockThreadsMax,
                 [&](std::size_t i) { results[i] = look(session, volumes_[i]); });
    OrderedJson list = OrderedJson::array();
    std::string text;
    std::size_t count = 0;
    for (const Result& result : results) {
      list.push_back(to_json(result));
      text += to_text(result);
      count += result.findings.size() + (result.error ? 1 : 0);
    }
    if (count > 0) session.outcome->exit_status = 1;
    show(session, {{"good", count == 0}, {"volumes", list}}, text);
  }

 private:
  struct Result {
    std::string volume;
    std::vector<nbde::BindingFinding> findings;
    std::optional<Error> error;
  };

  Result look(const Session& session, const std::string& volume) const {
    Result result{.volume = volume, .findings = {}, .error = {}};
    try {
      VolumeArgs args;
      args.volume = volume;
      args.policy = policy_;
      const luks::HeaderFile file = open_header(args);
      result.findings = nbde::report_bindings(file, servers_.context(session), !offline_);
    } catch (const Error& error) {
      if (error.code() == Code::kInterrupted) throw;
      result.error = error;
    }
    return result;
  }

  static OrderedJson to_json(const Result& result) {
    OrderedJson json = {{"volume", result.volume}, {"findings", OrderedJson::array()}};
    if (result.error) json["error"] = error_json(*result.error);
    for (const nbde::BindingFinding& finding : result.findings) {
      OrderedJson row = {
          {"code", finding.code},
          {"keyslot", finding.keyslot < 0 ? OrderedJson(nullptr) : OrderedJson(finding.keyslot)}};
      if (!finding.url.empty()) row["url"] = finding.url;
      row["problem"] = finding.problem;
      row["advice"] = finding.advice;
      json["findings"].push_back(std::move(row));
    }
    return json;
  }

  static std::string to_text(const Result& result) {
    const std::string name = printable(result.volume, 256);
    if (result.error) return fmt::format("{}: {}\n", name, result.error->message());
    if (result.findings.empty()) return fmt::format("{}: no problems\n", name);
    std::string text;
    for (const nbde::BindingFinding& finding : result.findings) {
      text += finding.keyslot < 0
                  ? fmt::format("{}: {}\n", name, finding.problem)
                  : fmt::format("{}: keyslot {}: {}\n", name, finding.keyslot, finding.problem);
      if (!finding.advice.empty()) text += fmt::format("    -> {}\n", finding.advice);
    }
    return text;
  }

  std::vector<std::string> volumes_;
  PolicyArgs policy_;
  PinContextArgs servers_;
  bool offline_ = false;
};

}  // namespace

std::unique_ptr<Command> make_report() { return std::make_unique<Report>(); }

}  // namespace lukskeep::cli
