// The options of one command, declared once: parsing, help, completion and the check of the manual
// pages all use this list. Hides the parser (CLI11), which is slow to compile.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lukskeep::cli {

// What an option is called and says of itself.
struct OptionText {
  std::string_view name;   // "--size", or of a positional "VOLUME"
  std::string_view value;  // "SIZE"; empty for a flag
  std::string_view help;
  std::vector<std::string_view> choices;  // the only values allowed; empty: any
};

class Options {
 public:
  struct Info {
    std::string name;
    std::string value_name;
    std::string help;
    std::string heading;
    std::vector<std::string> choices;
    bool positional = false;
    bool required = false;
    bool repeated = false;  // of positionals: takes all that are left; of options: may come again
    // Takes the text of the value; throws Error.
    std::function<void(const std::string&)> set;
  };

  // The options declared from here on stand under `text` in the help.
  void heading(std::string_view text) { heading_ = text; }

  void flag(const OptionText& text, bool& target);
  void add(const OptionText& text, std::string& target);
  void add(const OptionText& text, std::optional<std::string>& target);
  void add(const OptionText& text, std::optional<std::uint32_t>& target);
  void add(const OptionText& text, std::optional<int>& target);
  void add_size(const OptionText& text, std::optional<std::uint64_t>& target);
  // Any other kind of value.
  void add(const OptionText& text, std::function<void(const std::string&)> set);
  // One that may be given several times.
  void add_each(const OptionText& text, std::function<void(const std::string&)> take);

  void positional(const OptionText& text, std::string& target);
  void optional_positional(const OptionText& text, std::string& target);
  // Any number of them; the last positional of a command.
  void positionals(const OptionText& text, std::vector<std::string>& target);

  // Sets the targets. Throws Error{kUsage} naming the option that is unknown, repeated, without its
  // value, or wrong; errors of a value are prefixed with the option's name.
  void parse(std::span<const std::string> arguments) const;

  const std::vector<Info>& all() const noexcept { return all_; }

 private:
  Info& declare(const OptionText& text);

  std::string heading_ = "Options";
  std::vector<Info> all_;
};

}  // namespace lukskeep::cli
