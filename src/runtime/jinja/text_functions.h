// What Python's strings can do, for filters and methods.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/jinja/value.h"

namespace kvcast::jinja {

[[noreturn]] void misuse(std::string message);
/// The argument of that place, or undefined.
[[nodiscard]] Value argument(std::span<const Value> arguments, size_t i);
[[nodiscard]] const std::string& text_of(const Value& value, std::string_view what);
[[nodiscard]] int64_t integer_of(const Value& value, std::string_view what);
/// `text`, if it is not too long.
[[nodiscard]] std::string bounded(std::string text);

/// Letters of ASCII alone change.
[[nodiscard]] std::string mapped(std::string text, int (*change)(int));
[[nodiscard]] std::string capitalized(std::string text);
[[nodiscard]] std::string titled(std::string text);
[[nodiscard]] std::string stripped(const std::string& text, const Value& characters, bool left,
                                   bool right);
[[nodiscard]] std::string replaced(const std::string& text, const std::string& from,
                                   const std::string& to, const Value& count);
/// At white space without a separator; `most` cuts at most, from the right if `from_right`.
[[nodiscard]] List split_text(const std::string& text, const Value& separator, const Value& most,
                              bool from_right);
[[nodiscard]] List lines_of(const std::string& text);
[[nodiscard]] std::vector<std::string> characters(const std::string& text);
[[nodiscard]] std::string joined(const Value& value, const Value& separator);
/// "  " before every line but the first (unless `first`) and those that are empty (unless `blank`).
[[nodiscard]] std::string indented(const std::string& text, const std::string& by, bool first,
                                   bool blank);
/// The present, as Python's strftime writes it.
[[nodiscard]] std::string now_as(const std::string& format);

}  // namespace kvcast::jinja
