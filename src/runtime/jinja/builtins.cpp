#include "runtime/jinja/builtins.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "runtime/jinja/template.h"
#include "runtime/jinja/text_functions.h"

namespace kvcast::jinja {
namespace {

List items_of(const Value& value) {
  if (!value.map()) misuse("items needs a map");
  List items;
  for (const auto& [key, entry] : *value.map()) items.emplace_back(List{Value(key), entry});
  return items;
}

bool is_all(const std::string& text, const std::string& name) {
  if (name == "isupper" || name == "islower") {
    int (*const other)(int) = name == "isupper" ? ::tolower : ::toupper;
    const bool has_letters = mapped(text, std::tolower) != mapped(text, std::toupper);
    return has_letters && std::ranges::none_of(text, [&](unsigned char c) {
             return std::isalpha(c) && other(c) == c;
           });
  }
  int (*const is_one)(int) = name == "isdigit"   ? ::isdigit
                             : name == "isalpha" ? ::isalpha
                             : name == "isalnum" ? ::isalnum
                                                 : ::isspace;
  return !text.empty() &&
         std::ranges::all_of(text, [&](unsigned char c) { return is_one(c) != 0; });
}

/// startswith and endswith, with one string or any of several.
bool has_end(const std::string& text, const Value& wanted, const std::string& name) {
  if (wanted.list()) {
    return std::ranges::any_of(*wanted.list(),
                               [&](const Value& one) { return has_end(text, one, name); });
  }
  const std::string& end = text_of(wanted, name);
  return name == "startswith" ? text.starts_with(end) : text.ends_with(end);
}

std::string repeated(const std::string& text, const Value& times) {
  const auto count = static_cast<size_t>(std::max<int64_t>(0, integer_of(times, "*")));
  if (count > 0 && text.size() > kMaxTextBytes / count) misuse("a string is too long");
  std::string out;
  for (size_t i = 0; i < count && !text.empty(); ++i) out += text;
  return out;
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
    case '^':
      result = std::pow(a, b);
      break;
    default:
      result = std::floor(a / b);
  }
  if (!integers) return result;
  if (std::abs(result) > 0x1p52) misuse("a number is too large");
  return static_cast<int64_t>(result);
}

}  // namespace

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
  if (name == "callable") return false;
  if (name == "lower" || name == "upper") {
    return value.text() &&
           mapped(*value.text(), name == "lower" ? ::tolower : ::toupper) == *value.text();
  }
  if (name == "divisibleby") {
    const int64_t by = integer_of(argument(arguments, 0), "divisibleby");
    if (by == 0) misuse("division by zero");
    return integer_of(value, "divisibleby") % by == 0;
  }
  if (name == "true") return value.is<bool>() && value.truthy();
  if (name == "false") return value.is<bool>() && !value.truthy();
  if (name == "even") return integer_of(value, "even") % 2 == 0;
  if (name == "odd") return integer_of(value, "odd") % 2 != 0;
  if (name == "equalto" || name == "eq" || name == "==")
    return value.equals(argument(arguments, 0));
  if (name == "sameas") return value.equals(argument(arguments, 0));
  static constexpr std::pair<std::string_view, const char*> kOrders[] = {
      {"ne", "!="}, {"lt", "<"},          {"lessthan", "<"}, {"le", "<="},
      {"gt", ">"},  {"greaterthan", ">"}, {"ge", ">="}};
  for (const auto& [order, symbol] : kOrders) {
    if (name == order) return binary(symbol, value, argument(arguments, 0)).truthy();
  }
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
    if (name == "split" || name == "rsplit") {
      return split_text(text, first, argument(arguments, 1), name == "rsplit");
    }
    if (name == "splitlines") return lines_of(text);
    if (name == "removeprefix" || name == "removesuffix") {
      const std::string& end = text_of(first, name);
      const bool is_prefix = name == "removeprefix";
      if (!(is_prefix ? text.starts_with(end) : text.ends_with(end))) return text;
      return is_prefix ? text.substr(end.size()) : text.substr(0, text.size() - end.size());
    }
    if (name == "count") {
      const std::string& wanted = text_of(first, "count");
      if (wanted.empty()) misuse("count: nothing to count");
      int64_t count = 0;
      for (size_t at = 0; (at = text.find(wanted, at)) != std::string::npos; at += wanted.size()) {
        ++count;
      }
      return count;
    }
    if (name == "isdigit" || name == "isalpha" || name == "isalnum" || name == "isspace" ||
        name == "isupper" || name == "islower") {
      return is_all(text, name);
    }
    if (name == "join") return joined(first, object);
    if (name == "startswith" || name == "endswith") return has_end(text, first, name);
    if (name == "replace") {
      return replaced(text, text_of(first, "replace"), text_of(argument(arguments, 1), "replace"),
                      argument(arguments, 2));
    }
    if (name == "find" || name == "rfind") {
      const std::string& wanted = text_of(first, name);
      const size_t at = name == "find" ? text.find(wanted) : text.rfind(wanted);
      if (at == std::string::npos) return int64_t{-1};
      return static_cast<int64_t>(characters(text.substr(0, at)).size());
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

bool has_function(const std::string& name) {
  return name == "raise_exception" || name == "namespace" || name == "dict" || name == "range" ||
         name == "strftime_now";
}

Value call_function(const std::string& name, Arguments arguments, const Map& named) {
  if (name == "raise_exception") {
    throw TemplateError{std::string(kRefusal) + argument(arguments, 0).to_text()};
  }
  if (name == "namespace" || name == "dict") {
    Map made = arguments.empty() || !arguments[0].map() ? Map() : *arguments[0].map();
    const Value map(std::move(made));
    for (const auto& [key, value] : named) map.set(key, value);
    return map;
  }
  if (name == "strftime_now") return now_as(text_of(argument(arguments, 0), "strftime_now"));
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
  if (symbol == "*" && left.text()) return repeated(*left.text(), right);
  if (symbol == "*" && right.text()) return repeated(*right.text(), left);
  return arithmetic(symbol == "//" ? 'd' : symbol == "**" ? '^' : symbol[0], left, right);
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
