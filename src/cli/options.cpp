#include "cli/options.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/units.h"

namespace lukskeep::cli {
namespace {

void check_choice(const Options::Info& info, const std::string& value) {
  if (info.choices.empty()) return;
  if (std::find(info.choices.begin(), info.choices.end(), value) != info.choices.end()) return;
  throw Error(Code::kUsage,
              fmt::format("'{}' is none of {}", printable(value), fmt::join(info.choices, ", ")));
}

void set_value(const Options::Info& info, const std::vector<std::string>& values) {
  if (values.size() > 1 && !info.value_name.empty() && !info.repeated) {
    throw Error(Code::kUsage, fmt::format("{} is given twice", info.name));
  }
  try {
    for (const std::string& value : values) {
      check_choice(info, value);
      info.set(value);
      if (!info.repeated) break;
    }
  } catch (const Error& error) {
    if (error.code() != Code::kUsage) throw;
    throw Error(Code::kUsage, fmt::format("{}: {}", info.name, error.message()), error.hint());
  }
}

// One App per run: a command's options and nothing else.
void declare(CLI::App& app, const Options::Info& info) {
  CLI::Option* option = nullptr;
  if (!info.positional && info.value_name.empty()) {
    option = app.add_flag_callback(info.name, [&info] { info.set({}); });
  } else {
    option = app.add_option(info.name, [&info](const CLI::results_t& values) {
      set_value(info, values);
      return true;
    });
    option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->expected(1)
        ->allow_extra_args(false);
    if (info.repeated && info.positional) {
      option->expected(1, CLI::detail::expected_max_vector_size)->allow_extra_args(true);
    }
  }
  if (info.positional && info.required) option->required();
}

[[noreturn]] void refuse_extra(const std::string& argument) {
  const bool option = argument.size() > 1 && argument[0] == '-';
  throw Error(Code::kUsage,
              fmt::format("{} '{}'", option ? "unknown option" : "unexpected argument",
                          printable(argument.substr(0, argument.find('=')))));
}

}  // namespace

Options::Info& Options::declare(const OptionText& text) {
  Info info;
  info.name = text.name;
  info.value_name = text.value;
  info.help = text.help;
  info.heading = heading_;
  info.choices.assign(text.choices.begin(), text.choices.end());
  return all_.emplace_back(std::move(info));
}

void Options::flag(const OptionText& text, bool& target) {
  declare(text).set = [&target](const std::string&) { target = true; };
}

void Options::add(const OptionText& text, std::string& target) {
  declare(text).set = [&target](const std::string& value) { target = value; };
}

void Options::add(const OptionText& text, std::optional<std::string>& target) {
  declare(text).set = [&target](const std::string& value) { target = value; };
}

void Options::add(const OptionText& text, std::optional<std::uint32_t>& target) {
  declare(text).set = [&target](const std::string& value) { target = parse_number(value); };
}

void Options::add(const OptionText& text, std::optional<int>& target) {
  declare(text).set = [&target](const std::string& value) {
    // Keyslots and tokens: the header says which of them exist.
    target = static_cast<int>(std::min<std::uint32_t>(parse_number(value), 1'000'000));
  };
}

void Options::add_size(const OptionText& text, std::optional<std::uint64_t>& target) {
  declare(text).set = [&target](const std::string& value) { target = parse_size(value); };
}

void Options::add(const OptionText& text, std::function<void(const std::string&)> set) {
  declare(text).set = std::move(set);
}

void Options::add_each(const OptionText& text, std::function<void(const std::string&)> take) {
  Info& info = declare(text);
  info.repeated = true;
  info.set = std::move(take);
}

void Options::positional(const OptionText& text, std::string& target) {
  Info& info = declare(text);
  info.positional = true;
  info.required = true;
  info.set = [&target](const std::string& value) { target = value; };
}

void Options::optional_positional(const OptionText& text, std::string& target) {
  positional(text, target);
  all_.back().required = false;
}

void Options::positionals(const OptionText& text, std::vector<std::string>& target) {
  Info& info = declare(text);
  info.positional = true;
  info.repeated = true;
  info.set = [&target](const std::string& value) { target.push_back(value); };
}

void Options::parse(std::span<const std::string> arguments) const {
  CLI::App app;
  app.set_help_flag();
  for (const Info& info : all_) cli::declare(app, info);
  // CLI11 takes the arguments last first.
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  try {
    app.parse(reversed);
  } catch (const CLI::ExtrasError&) {
    refuse_extra(reversed.empty() ? std::string() : reversed.front());
  } catch (const CLI::RequiredError&) {
    const auto extra = app.remaining();
    if (!extra.empty()) refuse_extra(extra.front());
    for (const Info& info : all_) {
      if (info.required && app.get_option(info.name)->count() == 0) {
        throw Error(Code::kUsage, fmt::format("{} is missing", info.name));
      }
    }
    throw Error(Code::kUsage, "an argument is missing");
  } catch (const CLI::ArgumentMismatch&) {
    // The only mismatch left: CLI11 found no value behind the last option.
    throw Error(Code::kUsage,
                fmt::format("{} wants a value",
                            arguments.empty() ? std::string_view("an option") : arguments.back()));
  } catch (const CLI::ParseError& error) {
    throw Error(Code::kUsage, printable(error.what(), 256));
  }
}

}  // namespace lukskeep::cli
