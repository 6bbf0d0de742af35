#include "runtime/jinja/builtins.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "base/utf8.h"
#include "runtime/jinja/template.h"

namespace kvcast::jinja {
namespace {

[[noreturn]] void misuse(std::string message) { throw TemplateError{std::move(message)}; }

const std::string& text_of(const Value& value, const char* what) {
  if (!value.text()) misuse(fmt::format("{} needs a string", what));
  return *value.text();
}

Value argument(Arguments arguments, size_t i) {
  return i < arguments.size() ? arguments[i] : Value();
}

int64_t integer_of(const Value& value, const char* what) {
  if (const auto* integer = value.get<int64_t>()) return *integer;
  misuse(fmt::format("{} needs a whole number", what));
}

std::string bounded(std::string text) {
  if (text.size() > kMaxTextBytes) misuse("a string is too long");
  return text;
}

std::string mapped(std::string text, int (*change)(int)) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x80) c = static_cast<char>(change(c));
  }
  return text;
}

std::string capitalized(std::string text) {
  text = mapped(std::move(text), std::tolower);
  if (!text.empty()) text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  return text;
}

std::string titled(std::string text) {
  bool start = true;
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) c = static_cast<char>(start ? std::toupper(byte) : std::tolower(byte));
    start = !std::isalnum(byte) && byte < 0x80;
  }
  return text;
}

std::string stripped(const std::string& text, const Value& characters, bool left, bool right) {
  const std::string set = characters.text() ? *characters.text() : " \t\r\n\f\v";
  const size_t begin = left ? text.find_first_not_of(set) : 0;
  if (begin == std::string::npos || text.empty()) return {};
  const size_t last = right ? text.find_last_not_of(set) : text.size() - 1;
  return last == std::string::npos ? std::string() : text.substr(begin, last - begin + 1);
}

std::string replaced(const std::string& text, const std::string& from, const std::string& to) {
  if (from.empty()) misuse("replace: nothing to replace");
  std::string out;
  size_t at = 0;
  while (true) {
    const size_t found = text.find(from, at);
    out += text.substr(at, found - at);
    if (out.size() > kMaxTextBytes) misuse("a string is too long");
    if (found == std::string::npos) return out;
    out += to;
    at = found + from.size();
  }
}

List split_text(const std::string& text, const Value& separator) {
  List parts;
  const std::string by = separator.text() ? *separator.text() : "";
  size_t at = 0;
  while (at <= text.size()) {
    if (by.empty()) {
      at = std::min(text.find_first_not_of(" \t\r\n", at), text.size());
      if (at == text.size()) break;
    }
    const size_t end =
        std::min(by.empty() ? text.find_first_of(" \t\r\n", at) : text.find(by, at), text.size());
    parts.emplace_back(text.substr(at, end - at));
    if (parts.size() > kMaxItems) misuse("a list is too long");
    if (end == text.size()) break;
    at = end + std::max<size_t>(by.size(), 1);
  }
  return parts;
}

std::vector<std::string> characters(const std::string& text) {
  std::vector<std::string> out;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t bytes = std::max<size_t>(1, first_utf8_character(rest).bytes);
    out.emplace_back(rest.substr(0, bytes));
    rest.remove_prefix(bytes);
    if (out.size() > kMaxItems) misuse("a string is too long to go through");
  }
  return out;
}

int64_t length_of(const Value& value) {
  if (value.text()) {
    return std::ranges::count_if(*value.text(), [](char c) { return (c & 0xC0) != 0x80; });
  }
  if (value.list()) return static_cast<int64_t>(value.list()->size());
  if (value.map()) return static_cast<int64_t>(value.map()->size());
  misuse("length needs a string, a list or a map");
}

std::string joined(const Value& value, const Value& separator) {
  std::string out;
  bool first = true;
  for (const Value& item : iterate(value)) {
    if (!first && separator.text()) out += *separator.text();
    first = false;
    out = bounded(std::move(out) + item.to_text());
  }
  return out;
}

List items_of(const Value& value) {
  if (!value.map()) misuse("items needs a map");
  List items;
  for (const auto& [key, entry] : *value.map()) items.emplace_back(List{Value(key), entry});
  return items;
}

Value arithmetic(char symbol, const Value& left, const Value& right) {
  const auto is_number = [](const Value& v) { return v.is_number() || v.is<bool>(); };
  if (!is_number(left) || !is_number(right)) misuse(fmt::format("{} needs two numbers", symbol));
  const bool integers = !left.is<double>() && !right.is<double>() && symbol != '/';
  const double a = left.number(), b = right.number();
  if ((symbol == '/' || symbol == '%' || symbol == 'd') && b == 0) misuse("division by zero");
  double result = 0;
  switch (symbol) {
    case '+':
      result = a + b;
      break;
    case '-':
      result = a - b;
      break;
    case '*':
      result = a * b;
      break;
    case '/':
      result = a / b;
      break;
    case '%':
      result = a - b * std::floor(a / b);
      break;
    default:
      result = std::floor(a / b);
  }
  if (!integers) return result;
  if (std::abs(result) > 0x1p52) misuse("a number is too large");
  return static_cast<int64_t>(result);
}

}  // namespace

Value apply_filter(const std::string& name, const Value& value, Arguments arguments) {
  if (name == "trim") return stripped(value.to_text(), argument(arguments, 0), true, true);
  if (name == "length" || name == "count") return length_of(value);
  if (name == "upper") return mapped(value.to_text(), std::toupper);
  if (name == "lower") return mapped(value.to_text(), std::tolower);
  if (name == "capitalize") return capitalized(value.to_text());
  if (name == "title") return titled(value.to_text());
  if (name == "tojson") return bounded(value.to_json());
  if (name == "string") return value.to_text();
  if (name == "safe" || name == "e" || name == "escape") return value;  // no HTML here
  if (name == "join") return joined(value, argument(arguments, 0));
  if (name == "items") return items_of(value);
  if (name == "list") return iterate(value);
  if (name == "default" || name == "d") {
    const bool missing =
        value.is<Undefined>() || (argument(arguments, 1).truthy() && !value.truthy());
    return missing ? argument(arguments, 0) : value;
  }
  if (name == "replace") {
    return replaced(value.to_text(), text_of(argument(arguments, 0), "replace"),
                    text_of(argument(arguments, 1), "replace"));
  }
  if (name == "int") {
    if (value.is_number()) return static_cast<int64_t>(std::clamp(value.number(), -0x1p52, 0x1p52));
    return static_cast<int64_t>(std::atoll(value.to_text().c_str()));
  }
  if (name == "abs") return binary("*", value, value.number() < 0 ? int64_t{-1} : int64_t{1});
  if (name == "first" || name == "last" || name == "reverse") {
    List items = iterate(value);
    if (name == "reverse") return List(items.rbegin(), items.rend());
    if (items.empty()) return {};
    return name == "first" ? items.front() : items.back();
  }
  misuse(fmt::format("unknown filter \"{}\"", name));
}

bool apply_test(const std::string& name, const Value& value, Arguments arguments) {
  if (name == "defined") return !value.is<Undefined>();
  if (name == "undefined") return value.is<Undefined>();
  if (name == "none") return value.is<None>();
  if (name == "string") return value.text() != nullptr;
  if (name == "number") return value.is_number();
  if (name == "integer") return value.is<int64_t>();
  if (name == "float") return value.is<double>();
  if (name == "boolean") return value.is<bool>();
  if (name == "mapping") return value.map() != nullptr;
  if (name == "iterable" || name == "sequence") return value.text() || value.list() || value.map();
  if (name == "true") return value.is<bool>() && value.truthy();
  if (name == "false") return value.is<bool>() && !value.truthy();
  if (name == "even") return integer_of(value, "even") % 2 == 0;
  if (name == "odd") return integer_of(value, "odd") % 2 != 0;
  if (name == "equalto" || name == "eq") return value.equals(argument(arguments, 0));
  if (name == "in") return binary("in", value, argument(arguments, 0)).truthy();
  misuse(fmt::format("unknown test \"{}\"", name));
}

Value call_method(const Value& object, const std::string& name, Arguments arguments) {
  const Value first = argument(arguments, 0);
  if (object.text()) {
    const std::string& text = *object.text();
    if (name == "strip") return stripped(text, first, true, true);
    if (name == "lstrip") return stripped(text, first, true, false);
    if (name == "rstrip") return stripped(text, first, false, true);
    if (name == "upper") return mapped(text, std::toupper);
    if (name == "lower") return mapped(text, std::tolower);
    if (name == "title") return titled(text);
    if (name == "capitalize") return capitalized(text);
    if (name == "split") return split_text(text, first);
    if (name == "join") return joined(first, object);
    if (name == "startswith") return text.starts_with(text_of(first, "startswith"));
    if (name == "endswith") return text.ends_with(text_of(first, "endswith"));
    if (name == "replace") {
      return replaced(text, text_of(first, "replace"), text_of(argument(arguments, 1), "replace"));
    }
    if (name == "find") {
      const size_t at = text.find(text_of(first, "find"));
      return at == std::string::npos ? int64_t{-1} : static_cast<int64_t>(at);
    }
  }
  if (object.map()) {
    if (name == "items") return items_of(object);
    if (name == "keys") return iterate(object);
    if (name == "values") {
      List values;
      for (const auto& entry : *object.map()) values.push_back(entry.second);
      return values;
    }
    if (name == "get") {
      Value found = object.at(text_of(first, "get"));
      if (!found.is<Undefined>()) return found;
      return arguments.size() > 1 ? arguments[1] : Value(None{});
    }
  }
  misuse(fmt::format("unknown method \"{}\"", name));
}

Value call_function(const std::string& name, Arguments arguments, const Map& named) {
  if (name == "raise_exception") {
    throw TemplateError{std::string(kRefusal) + argument(arguments, 0).to_text()};
  }
  if (name == "namespace" || name == "dict") return Map(named);
  if (name == "range") {
    const bool one = arguments.size() == 1;
    const int64_t from = one ? 0 : integer_of(argument(arguments, 0), "range");
    const int64_t to = integer_of(argument(arguments, one ? 0 : 1), "range");
    const int64_t step = arguments.size() > 2 ? integer_of(arguments[2], "range") : 1;
    if (step == 0) misuse("range: the step is 0");
    List items;
    for (int64_t i = from; step > 0 ? i < to : i > to; i += step) {
      items.emplace_back(i);
      if (items.size() > kMaxItems) misuse("range: too long");
    }
    return items;
  }
  misuse(fmt::format("unknown function \"{}\"", name));
}

Value binary(const std::string& symbol, const Value& left, const Value& right) {
  if (symbol == "==") return left.equals(right);
  if (symbol == "!=") return !left.equals(right);
  if (symbol == "~") return bounded(left.to_text() + right.to_text());
  if (symbol == "+" && left.text() && right.text()) return bounded(*left.text() + *right.text());
  if (symbol == "+" && left.list() && right.list()) {
    List items = *left.list();
    items.insert(items.end(), right.list()->begin(), right.list()->end());
    if (items.size() > kMaxItems) misuse("a list is too long");
    return items;
  }
  if (symbol == "in") {
    if (right.text()) return right.text()->find(text_of(left, "in")) != std::string::npos;
    if (right.map()) return !right.at(left.to_text()).is<Undefined>();
    const List items = iterate(right);
    return std::ranges::any_of(items, [&](const Value& item) { return item.equals(left); });
  }
  if (symbol == "<" || symbol == ">" || symbol == "<=" || symbol == ">=") {
    double order = 0;
    if (left.text() && right.text()) {
      order = left.text()->compare(*right.text());
    } else if (left.is_number() && right.is_number()) {
      order = left.number() - right.number();
    } else {
      misuse(fmt::format("{} needs two numbers or two strings", symbol));
    }
    const bool or_equal = symbol.size() == 2;
    return symbol[0] == '<' ? order < 0 || (or_equal && order == 0)
                            : order > 0 || (or_equal && order == 0);
  }
  return arithmetic(symbol == "//" ? 'd' : symbol[0], left, right);
}

Value index(const Value& object, const Value& key) {
  if (object.map()) return object.at(key.to_text());
  if (!object.list() && !object.text()) return {};
  const auto* position = key.get<int64_t>();
  if (!position) return {};
  const List items = object.list() ? *object.list() : iterate(object);
  const auto size = static_cast<int64_t>(items.size());
  const int64_t at = *position < 0 ? *position + size : *position;
  return at >= 0 && at < size ? items[static_cast<size_t>(at)] : Value();
}

Value slice(const Value& object, const Value& from, const Value& to, const Value& step) {
  const List items = iterate(object);
  const auto size = static_cast<int64_t>(items.size());
  const int64_t by = step.is<Undefined>() ? 1 : integer_of(step, "a slice");
  if (by == 0) misuse("a slice's step is 0");
  const auto bound = [&](const Value& value, int64_t otherwise) {
    if (value.is<Undefined>() || value.is<None>()) return otherwise;
    const int64_t at = integer_of(value, "a slice");
    return std::clamp(at < 0 ? at + size : at, by > 0 ? int64_t{0} : int64_t{-1},
                      by > 0 ? size : size - 1);
  };
  const int64_t begin = bound(from, by > 0 ? 0 : size - 1), end = bound(to, by > 0 ? size : -1);
  List out;
  for (int64_t i = begin; by > 0 ? i < end : i > end; i += by) {
    out.push_back(items[static_cast<size_t>(i)]);
    if (by > size || by < -size) break;
  }
  return object.text() ? Value(joined(Value(std::move(out)), Value())) : Value(std::move(out));
}

List iterate(const Value& value) {
  if (value.list()) return *value.list();
  List items;
  if (value.map()) {
    for (const auto& entry : *value.map()) items.emplace_back(entry.first);
  } else if (value.text()) {
    for (std::string& character : characters(*value.text()))
      items.emplace_back(std::move(character));
  } else if (!value.is<Undefined>()) {
    misuse("expected something to go through: a list, a map or a string");
  }
  return items;
}

}  // namespace kvcast::jinja
