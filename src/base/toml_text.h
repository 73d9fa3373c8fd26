// What toml++ 3.3 can be given of a text that a stranger wrote.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace lukskeep {

// `text` without comments and without what toml++ 3.3 cannot be trusted with. It bounds how deep
// values nest, but not the tables that dotted keys make, which it takes apart by recursion; and it
// asserts what input decides: that a header has a name, that no character of some ranges of Unicode
// stands where space could. Without strings of many lines each line can be looked at by itself.
// Calls `refuse`, which must throw, with the number of the line and what is wrong with it.
std::string fit_for_toml_parser(
    std::string_view text,
    const std::function<void(std::uint64_t line, const std::string& problem)>& refuse);

}  // namespace lukskeep
