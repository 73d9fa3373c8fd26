#include "cli/help_text.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace lukskeep::cli {
namespace {

constexpr std::size_t kNameColumns = 27;
constexpr std::size_t kTextColumns = 96 - kNameColumns;

// `text` in lines of at most kTextColumns, all but the first indented to the text column.
std::string wrap(std::string_view text) {
  std::string out;
  std::size_t line = 0;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    if (line != 0 && line + 1 + word.size() > kTextColumns) {
      out += '\n' + std::string(kNameColumns, ' ');
      line = 0;
    }
    if (line != 0) {
      out += ' ';
      ++line;
    }
    out += word;
    line += word.size();
  }
  return out;
}

std::string row(const std::string& name, std::string_view help) {
  std::string out = "  " + name;
  if (out.size() + 2 > kNameColumns) {
    out += '\n' + std::string(kNameColumns, ' ');
  } else {
    out.resize(kNameColumns, ' ');
  }
  return out + wrap(help) + '\n';
}

std::string help_of(const Options::Info& info) {
  if (info.choices.empty() || info.help.find(info.choices.front()) != std::string::npos) {
    return info.help;
  }
  return fmt::format("{}: {}", info.help, fmt::join(info.choices, ", "));
}

// A command with its options, alive together.
struct Declared {
  explicit Declared(const CommandEntry& entry)
      : command(entry.make()), options(options_of(entry, *command, session)) {}
  Session session;
  std::unique_ptr<Command> command;
  Options options;
};

std::string usage_line(const CommandEntry& entry, const Options& options) {
  std::string line = fmt::format("Usage: lukskeep {}", entry.name);
  for (const Options::Info& info : options.all()) {
    if (!info.positional) continue;
    line += info.required ? " " + info.name : " [" + info.name + "]";
    if (info.repeated) line += "...";
  }
  return line + " [OPTION…]\n";
}

OrderedJson command_json(const CommandEntry& entry) {
  const Declared declared(entry);
  OrderedJson json = {{"name", entry.name}, {"summary", entry.summary}};
  json["arguments"] = OrderedJson::array();
  json["options"] = OrderedJson::array();
  for (const Options::Info& info : declared.options.all()) {
    OrderedJson one = {{"name", info.name}, {"help", info.help}};
    if (info.positional) one["required"] = info.required;
    if (!info.value_name.empty()) one["value"] = info.value_name;
    if (!info.choices.empty()) one["choices"] = info.choices;
    json[info.positional ? "arguments" : "options"].push_back(one);
  }
  return json;
}

std::string_view noun_of(const CommandEntry& entry) {
  return entry.name.substr(0, entry.name.find(' '));
}

// The words that may follow `lukskeep` (an empty noun), or a noun.
std::vector<std::string_view> words_after(std::string_view noun) {
  std::vector<std::string_view> words;
  for (const CommandEntry& entry : all_commands()) {
    std::string_view word = noun_of(entry);
    if (!noun.empty()) {
      if (word != noun || word.size() == entry.name.size()) continue;
      word = entry.name.substr(noun.size() + 1);
    }
    if (words.empty() || words.back() != word) words.push_back(word);
  }
  return words;
}

std::string bash_cases_of_nouns() {
  std::string text;
  for (const std::string_view noun : words_after({})) {
    const auto verbs = words_after(noun);
    if (verbs.empty()) continue;
    text += fmt::format("      {})\n        words='{}'\n        ;;\n", noun, fmt::join(verbs, " "));
  }
  return text;
}

std::string bash_cases_of_commands() {
  std::string options_text;
  for (const CommandEntry& entry : all_commands()) {
    const Declared declared(entry);
    std::vector<std::string> names;
    for (const Options::Info& info : declared.options.all()) {
      if (!info.positional) names.push_back(info.name);
    }
    names.emplace_back("--help");
    options_text +=
        fmt::format("    '{}')\n      options='{}'\n      ;;\n", entry.name, fmt::join(names, " "));
  }
  return options_text;
}

// Options with a list of values mean the same in every command, so one case each is enough.
std::string bash_cases_of_values() {
  std::vector<std::string> seen;
  std::string text;
  for (const CommandEntry& entry : all_commands()) {
    const Declared declared(entry);
    for (const Options::Info& info : declared.options.all()) {
      if (info.positional || info.choices.empty()) continue;
      if (std::find(seen.begin(), seen.end(), info.name) != seen.end()) continue;
      seen.push_back(info.name);
      text += fmt::format("    {})\n      values='{}'\n      ;;\n", info.name,
                          fmt::join(info.choices, " "));
    }
  }
  return text;
}

std::string bash_options_with_value() {
  std::vector<std::string> names;
  for (const CommandEntry& entry : all_commands()) {
    const Declared declared(entry);
    for (const Options::Info& info : declared.options.all()) {
      if (!info.positional && !info.value_name.empty()) names.push_back(info.name);
    }
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return fmt::format("{}", fmt::join(names, "|"));
}

constexpr std::string_view kBashTemplate =
    R"(# bash completion for lukskeep: printed by `lukskeep completion bash`.

_lukskeep_options() {
  case "$1" in
@COMMANDS@  esac
}

_lukskeep_values() {
  case "$1" in
@VALUES@    --key | --new-key | --volume-key)
      values='file: fd: prompt: volume-key: mapping: keyring: manager: binding:'
      compopt -o nospace
      ;;
    --key-manager)
      values='file: barbican: vault:'
      compopt -o nospace
      ;;
    --policy)
      values='untrusted'
      compopt -o default
      ;;
  esac
}

_lukskeep() {
  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD - 1]}"
  local words='' options='' values='' noun="${COMP_WORDS[1]}"
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W '@WORDS@ --help --version' -- "$current")
    return
  fi
  if ((COMP_CWORD == 2)); then
    case "$noun" in
@NOUNS@    esac
    if [[ -n "$words" ]]; then
      mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
      return
    fi
  fi
  _lukskeep_values "$previous"
  if [[ -n "$values" ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$values" -- "$current")
    return
  fi
  case "$previous" in
    @WITH_VALUE@)
      compopt -o default
      return
      ;;
  esac
  _lukskeep_options "$noun"
  [[ -n "$options" ]] || _lukskeep_options "$noun ${COMP_WORDS[2]}"
  if [[ "$current" == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
  else
    compopt -o default
  fi
}

complete -F _lukskeep lukskeep
)";

void replace(std::string& text, std::string_view mark, const std::string& with) {
  text.replace(text.find(mark), mark.size(), with);
}

}  // namespace

std::string command_help(const CommandEntry& entry) {
  const Declared declared(entry);
  std::string text = usage_line(entry, declared.options);
  text += fmt::format("\nlukskeep {}: {}\n", entry.name, entry.summary);
  // Options of one heading may be declared in several places.
  std::vector<std::string> headings;
  for (const Options::Info& info : declared.options.all()) {
    const std::string& name = info.positional ? "Arguments" : info.heading;
    if (std::find(headings.begin(), headings.end(), name) == headings.end()) {
      headings.push_back(name);
    }
  }
  for (const std::string& name : headings) {
    text += fmt::format("\n{}:\n", name);
    for (const Options::Info& info : declared.options.all()) {
      if ((info.positional ? "Arguments" : info.heading) != name) continue;
      text += row(info.value_name.empty() ? info.name : info.name + " " + info.value_name,
                  help_of(info));
    }
  }
  text += row("--help", "print this text");
  return text;
}

std::string noun_help(std::string_view noun) {
  std::string text;
  for (const CommandEntry& entry : all_commands()) {
    if (noun_of(entry) == noun && entry.name != noun) {
      text += row(std::string(entry.name), entry.summary);
    }
  }
  if (text.empty()) return text;
  return fmt::format(
      "Usage: lukskeep {} VERB …\n\n{}\n'lukskeep {} VERB --help' explains one of "
      "them.\n",
      noun, text, noun);
}

std::string program_help() {
  std::string text =
      "Usage: lukskeep COMMAND …\n\n"
      "Creates, reads, writes and re-keys LUKS volumes in files and on block devices, without "
      "root\n"
      "and without the kernel.\n\n";
  for (const CommandEntry& entry : all_commands()) {
    text += row(std::string(entry.name), entry.summary);
  }
  return text +
         "\n'lukskeep COMMAND --help' explains one of them; 'man lukskeep' tells the rest.\n";
}

OrderedJson help_json() {
  OrderedJson commands = OrderedJson::array();
  for (const CommandEntry& entry : all_commands()) commands.push_back(command_json(entry));
  return {{"commands", commands}};
}

const CommandEntry* find_command(std::string_view name) {
  const auto commands = all_commands();
  const auto found = std::find_if(commands.begin(), commands.end(),
                                  [&](const CommandEntry& entry) { return entry.name == name; });
  return found == commands.end() ? nullptr : &*found;
}

std::string bash_completion() {
  std::string text(kBashTemplate);
  replace(text, "@COMMANDS@", bash_cases_of_commands());
  replace(text, "@VALUES@", bash_cases_of_values());
  replace(text, "@WORDS@", fmt::format("{}", fmt::join(words_after({}), " ")));
  replace(text, "@NOUNS@", bash_cases_of_nouns());
  replace(text, "@WITH_VALUE@", bash_options_with_value());
  return text;
}

}  // namespace lukskeep::cli
