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
  return to_json();
}

std::string Value::to_json(int depth) const {
  if (depth > kMaxDepth) throw TemplateError{"a value is nested too deeply"};
  if (const auto* string = text()) return quoted(*string);
  if (const auto* flag = get<bool>()) return *flag ? "true" : "false";
  if (is_number()) return to_text();
  std::string out;
  if (const List* items = list()) {
    for (const Value& item : *items) out += (out.empty() ? "" : ", ") + item.to_json(depth + 1);
    return "[" + out + "]";
  }
  if (const Map* entries = map()) {
    for (const auto& [key, value] : *entries) {
      out += (out.empty() ? "" : ", ") + quoted(key) + ": " + value.to_json(depth + 1);
    }
    return "{" + out + "}";
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
