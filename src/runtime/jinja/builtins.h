// Filters, tests, string methods and functions of the template language.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "runtime/jinja/value.h"

namespace kvcast::jinja {

using Arguments = std::span<const Value>;

/// All throw TemplateError for unknown names and wrong arguments.
Value apply_filter(const std::string& name, const Value& value, Arguments arguments,
                   const Map& named);
bool apply_test(const std::string& name, const Value& value, Arguments arguments);
/// Methods of strings and maps: strip, split, startswith, items, get, ...
Value call_method(const Value& object, const std::string& name, Arguments arguments);
[[nodiscard]] bool has_function(const std::string& name);
/// range, namespace, dict, raise_exception, strftime_now.
Value call_function(const std::string& name, Arguments arguments, const Map& named);
Value binary(const std::string& symbol, const Value& left, const Value& right);
Value index(const Value& object, const Value& key);
Value slice(const Value& object, const Value& from, const Value& to, const Value& step);
/// What a for loop goes through: items, keys of a map, characters.
List iterate(const Value& value);

/// No list or string made by an operation may be longer.
inline constexpr size_t kMaxItems = 100'000;
inline constexpr size_t kMaxTextBytes = 4 << 20;

}  // namespace kvcast::jinja
