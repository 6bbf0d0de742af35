#include "runtime/jinja/value.h"

#include <fmt/format.h>

#include <algorithm>

namespace kvcast::jinja {
namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\r':
        out += "\\r";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
        } else {
          out += c;
        }
    }
  }
  return out + "\"";
}

/// As Python's repr of a string; double quotes where it holds single ones alone.
std::string python_quoted(const std::string& text) {
  const bool single = text.find('\'') == std::string::npos || text.find('"') != std::string::npos;
  const char quote = single ? '\'' : '"';
  std::string out(1, quote);
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      if (c == quote || c == '\\') out += '\\';
      out += c;
    }
  }
  return out + quote;
}

std::string float_text(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".einf") == std::string::npos) text += ".0";
  return text;
}

}  // namespace

double Value::number() const {
  if (const auto* integer = get<int64_t>()) return static_cast<double>(*integer);
  if (const auto* real = get<double>()) return *real;
  if (const auto* flag = get<bool>()) return *flag ? 1 : 0;
  return 0;
}

bool Value::truthy() const {
  if (const auto* string = text()) return !string->empty();
  if (const List* items = list()) return !items->empty();
  if (const Map* entries = map()) return !entries->empty();
  return number() != 0;
}

std::string Value::to_text() const {
  if (const auto* string = text()) return *string;
  if (is<Undefined>()) return {};
  if (is<None>()) return "None";
  if (const auto* flag = get<bool>()) return *flag ? "True" : "False";
  if (const auto* integer = get<int64_t>()) return fmt::format("{}", *integer);
  if (const auto* real = get<double>()) return float_text(*real);
  return to_repr(0);
}

std::string Value::to_repr(int depth) const {
  if (depth > kMaxDepth) throw TemplateError{"a value is nested too deeply"};
  if (const auto* string = text()) return python_quoted(*string);
  std::string out;
  if (const List* items = list()) {
    for (const Value& item : *items) out += (out.empty() ? "" : ", ") + item.to_repr(depth + 1);
    return "[" + out + "]";
  }
  if (const Map* entries = map()) {
    for (const auto& [key, value] : *entries) {
      out += (out.empty() ? "" : ", ") + python_quoted(key) + ": " + value.to_repr(depth + 1);
    }
    return "{" + out + "}";
  }
  return is<Undefined>() ? "Undefined" : to_text();
}

std::string Value::to_json(int indent, int depth) const {
  if (depth > kMaxDepth) throw TemplateError{"a value is nested too deeply"};
  if (const auto* string = text()) return quoted(*string);
  if (const auto* flag = get<bool>()) return *flag ? "true" : "false";
  if (is_number()) return to_text();
  const auto line = [&](int level) {
    return indent < 0 ? std::string()
                      : "\n" + std::string(static_cast<size_t>(indent * level), ' ');
  };
  const std::string begin = line(depth + 1), between = indent < 0 ? ", " : "," + begin;
  std::string out;
  if (const List* items = list()) {
    if (items->empty()) return "[]";
    for (const Value& item : *items) {
      out += (out.empty() ? begin : between) + item.to_json(indent, depth + 1);
    }
    return "[" + out + line(depth) + "]";
  }
  if (const Map* entries = map()) {
    if (entries->empty()) return "{}";
    for (const auto& [key, value] : *entries) {
      out +=
          (out.empty() ? begin : between) + quoted(key) + ": " + value.to_json(indent, depth + 1);
    }
    return "{" + out + line(depth) + "}";
  }
  return "null";
}

bool Value::equals(const Value& other, int depth) const {
  if (depth > kMaxDepth) throw TemplateError{"a value is nested too deeply"};
  const auto numeric = [](const Value& value) { return value.is_number() || value.is<bool>(); };
  if (numeric(*this) && numeric(other)) return number() == other.number();
  if (text() && other.text()) return *text() == *other.text();
  if (list() && other.list()) {
    return std::ranges::equal(*list(), *other.list(), [&](const Value& a, const Value& b) {
      return a.equals(b, depth + 1);
    });
  }
  if (map() && other.map()) {
    return map()->size() == other.map()->size() &&
           std::ranges::all_of(*map(), [&](const auto& entry) {
             return entry.second.equals(other.at(entry.first), depth + 1);
           });
  }
  return (is<None>() && other.is<None>()) || (is<Undefined>() && other.is<Undefined>());
}

Value Value::at(const std::string& key) const {
  if (const Map* entries = map()) {
    for (const auto& [name, value] : *entries) {
      if (name == key) return value;
    }
  }
  return {};
}

void Value::set(const std::string& key, Value value) const {
  for (auto& [name, existing] : *map()) {
    if (name == key) {
      existing = std::move(value);
      return;
    }
  }
  map()->emplace_back(key, std::move(value));
}

}  // namespace kvcast::jinja
