// help, version, completion: what needs no volume.
#include <string>

#include <fmt/format.h>

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/help_text.h"

namespace lukskeep::cli {
namespace {

class Help final : public Command {
 public:
  void declare(Options& options) override {
    options.optional_positional({.name = "COMMAND", .help = "the command to explain"}, first_);
    options.optional_positional({.name = "VERB", .help = "its second word"}, second_);
  }

  void run(const Session& session) override {
    if (session.json) return print_json(help_json());
    if (first_.empty()) return print(program_help());
    const std::string name = second_.empty() ? first_ : fmt::format("{} {}", first_, second_);
    if (const CommandEntry* entry = find_command(name)) return print(command_help(*entry));
    const std::string text = second_.empty() ? noun_help(first_) : std::string();
    if (text.empty()) {
      throw Error(Code::kUsage, fmt::format("there is no command '{}'", printable(name)),
                  "'lukskeep help' lists the commands");
    }
    print(text);
  }

 private:
  std::string first_;
  std::string second_;
};

class Version final : public Command {
 public:
  void declare(Options&) override {}
  void run(const Session& session) override {
    show(session, {{"version", LUKSKEEP_VERSION}}, "lukskeep " LUKSKEEP_VERSION "\n");
  }
};

class Completion final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "SHELL", .help = "the shell: bash"}, shell_);
  }
  void run(const Session& session) override {
    if (shell_ != "bash") {
      throw Error(Code::kUsage, fmt::format("no completion for '{}'", printable(shell_)),
                  "the shell it knows is bash");
    }
    const std::string script = bash_completion();
    show(session, {{"shell", shell_}, {"script", script}}, script);
  }

 private:
  std::string shell_;
};

}  // namespace

std::unique_ptr<Command> make_help() { return std::make_unique<Help>(); }
std::unique_ptr<Command> make_version() { return std::make_unique<Version>(); }
std::unique_ptr<Command> make_completion() { return std::make_unique<Completion>(); }

}  // namespace lukskeep::cli
