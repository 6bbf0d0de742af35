#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "runtime/jinja/builtins.h"
#include "runtime/jinja/text_functions.h"

namespace kvcast::jinja {
namespace {

/// What a filter got besides its value.
struct Call {
  const std::string& name;
  Arguments arguments;
  const Map& named;

  /// The argument of that place or name, or undefined.
  [[nodiscard]] Value get(size_t i, std::string_view as) const {
    if (i < arguments.size()) return arguments[i];
    const auto found = std::ranges::find(named, as, &std::pair<std::string, Value>::first);
    return found == named.end() ? Value() : found->second;
  }
};

using Filter = std::function<Value(const Value&, const Call&)>;

int64_t length_of(const Value& value) {
  if (value.text()) {
    return std::ranges::count_if(*value.text(), [](char c) { return (c & 0xC0) != 0x80; });
  }
  if (value.list()) return static_cast<int64_t>(value.list()->size());
  if (value.map()) return static_cast<int64_t>(value.map()->size());
  if (value.is<Undefined>()) return 0;
  misuse("length needs a string, a list or a map");
}

/// "a.b.0" of an item.
Value attribute_of(const Value& item, const Value& path) {
  if (path.get<int64_t>()) return index(item, path);
  Value found = item;
  for (const Value& name : split_text(text_of(path, "an attribute"), ".", Value(), false)) {
    const std::string& key = *name.text();
    const bool is_number = !key.empty() && key.size() < 10 &&
                           std::ranges::all_of(key, [](char c) { return c >= '0' && c <= '9'; });
    found = index(found, is_number && !found.map() ? Value(int64_t{std::stoi(key)}) : name);
  }
  return found;
}

/// select, reject, selectattr and rejectattr.
Value chosen(const Value& value, const Call& call) {
  const bool by_attribute = call.name.ends_with("attr");
  const bool wanted = call.name.starts_with("select");
  const size_t test_at = by_attribute ? 1 : 0;
  List kept;
  for (const Value& item : iterate(value)) {
    const Value subject = by_attribute ? attribute_of(item, argument(call.arguments, 0)) : item;
    bool holds = subject.truthy();
    if (call.arguments.size() > test_at) {
      holds = apply_test(text_of(call.arguments[test_at], call.name), subject,
                         call.arguments.subspan(test_at + 1));
    }
    if (holds == wanted) kept.push_back(item);
  }
  return kept;
}

/// map(attribute='name', default=...) or map('filter', ...).
Value mapped_items(const Value& value, const Call& call) {
  const Value attribute = call.get(SIZE_MAX, "attribute");
  List items;
  for (const Value& item : iterate(value)) {
    if (attribute.is<Undefined>()) {
      items.push_back(apply_filter(text_of(call.get(0, "filter"), "map"), item,
                                   call.arguments.subspan(1), call.named));
      continue;
    }
    const Value found = attribute_of(item, attribute);
    items.push_back(found.is<Undefined>() ? call.get(SIZE_MAX, "default") : found);
  }
  return items;
}

/// Numbers before each other by size, strings by their letters unless case counts.
bool comes_before(const Value& left, const Value& right, bool case_counts) {
  if (left.text() && right.text() && !case_counts) {
    return mapped(*left.text(), std::tolower) < mapped(*right.text(), std::tolower);
  }
  return binary("<", left, right).truthy();
}

List sorted(List items, const Value& attribute, bool reverse, bool case_counts) {
  std::ranges::stable_sort(items, [&](const Value& a, const Value& b) {
    const bool whole = attribute.is<Undefined>() || attribute.is<None>();
    const Value& first = reverse ? b : a;
    const Value& second = reverse ? a : b;
    return whole ? comes_before(first, second, case_counts)
                 : comes_before(attribute_of(first, attribute), attribute_of(second, attribute),
                                case_counts);
  });
  return items;
}

Value sort(const Value& value, const Call& call) {
  return sorted(iterate(value), call.get(2, "attribute"), call.get(0, "reverse").truthy(),
                call.get(1, "case_sensitive").truthy());
}

Value dictsort(const Value& value, const Call& call) {
  if (!value.map()) misuse("dictsort needs a map");
  List items;
  for (const auto& [key, entry] : *value.map()) items.emplace_back(List{Value(key), entry});
  const Value by = call.get(1, "by");
  const int64_t at = by.text() && *by.text() == "value" ? 1 : 0;
  return sorted(std::move(items), Value(at), call.get(2, "reverse").truthy(),
                call.get(0, "case_sensitive").truthy());
}

Value unique(const Value& value, const Call& call) {
  const bool case_counts = call.get(0, "case_sensitive").truthy();
  const Value attribute = call.get(1, "attribute");
  List kept, seen;
  for (const Value& item : iterate(value)) {
    Value key = attribute.is<Undefined>() ? item : attribute_of(item, attribute);
    if (key.text() && !case_counts) key = Value(mapped(*key.text(), std::tolower));
    if (std::ranges::any_of(seen, [&](const Value& other) { return other.equals(key); })) continue;
    if (seen.size() > 1000) misuse("unique: too many items");
    seen.push_back(std::move(key));
    kept.push_back(item);
  }
  return kept;
}

Value extreme(const Value& value, const Call& call) {
  const List items = sorted(iterate(value), call.get(1, "attribute"), call.name == "max",
                            call.get(0, "case_sensitive").truthy());
  return items.empty() ? Value() : items.front();
}

Value sum(const Value& value, const Call& call) {
  const Value attribute = call.get(0, "attribute");
  Value total = call.get(1, "start").is<Undefined>() ? Value(int64_t{0}) : call.get(1, "start");
  for (const Value& item : iterate(value)) {
    total = binary("+", total, attribute.is<Undefined>() ? item : attribute_of(item, attribute));
  }
  return total;
}

Value to_json(const Value& value, const Call& call) {
  const Value indent = call.get(0, "indent");
  const auto* spaces = indent.get<int64_t>();
  return bounded(
      value.to_json(spaces ? static_cast<int>(std::clamp<int64_t>(*spaces, 0, 16)) : -1));
}

Value indent(const Value& value, const Call& call) {
  const Value width = call.get(0, "width");
  const auto* spaces = width.get<int64_t>();
  const std::string by =
      width.text()
          ? *width.text()
          : std::string(static_cast<size_t>(spaces ? std::clamp<int64_t>(*spaces, 0, 1000) : 4),
                        ' ');
  return indented(value.to_text(), by, call.get(1, "first").truthy(),
                  call.get(2, "blank").truthy());
}

Value rounded(const Value& value, const Call& call) {
  if (!value.is_number()) misuse("round needs a number");
  const Value precision = call.get(0, "precision"), method = call.get(1, "method");
  const auto* digits = precision.get<int64_t>();
  const double scale =
      std::pow(10.0, static_cast<double>(digits ? std::clamp<int64_t>(*digits, -15, 15) : 0));
  const double scaled = value.number() * scale;
  if (method.text() && *method.text() == "ceil") return std::ceil(scaled) / scale;
  if (method.text() && *method.text() == "floor") return std::floor(scaled) / scale;
  return std::nearbyint(scaled) / scale;
}

Value whole(const Value& value, const Call& call) {
  if (value.is_number() || value.is<bool>()) {
    return static_cast<int64_t>(std::clamp(value.number(), -0x1p52, 0x1p52));
  }
  const Value otherwise =
      call.get(0, "default").is<Undefined>() ? Value(int64_t{0}) : call.get(0, "default");
  char* end = nullptr;
  const std::string text = stripped(value.to_text(), Value(), true, true);
  const double number = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !std::isfinite(number)) return otherwise;
  return static_cast<int64_t>(std::clamp(number, -0x1p52, 0x1p52));
}

Value real(const Value& value, const Call& call) {
  if (value.is_number() || value.is<bool>()) return value.number();
  char* end = nullptr;
  const std::string text = stripped(value.to_text(), Value(), true, true);
  const double number = std::strtod(text.c_str(), &end);
  if (!text.empty() && *end == '\0') return number;
  return call.get(0, "default").is<Undefined>() ? Value(0.0) : call.get(0, "default");
}

Value defaulted(const Value& value, const Call& call) {
  const bool is_missing =
      value.is<Undefined>() || (call.get(1, "boolean").truthy() && !value.truthy());
  const Value otherwise = call.get(0, "default_value");
  if (!is_missing) return value;
  return otherwise.is<Undefined>() ? Value("") : otherwise;
}

Value end_of(const Value& value, const Call& call) {
  List items = iterate(value);
  if (items.empty()) return {};
  return call.name == "first" ? items.front() : items.back();
}

Value reversed(const Value& value, const Call&) {
  List items = iterate(value);
  std::ranges::reverse(items);
  return value.text() ? Value(joined(Value(std::move(items)), Value())) : Value(std::move(items));
}

Value joined_items(const Value& value, const Call& call) {
  const Value attribute = call.get(1, "attribute");
  if (attribute.is<Undefined>()) return joined(value, call.get(0, "d"));
  List items;
  for (const Value& item : iterate(value)) items.push_back(attribute_of(item, attribute));
  return joined(Value(std::move(items)), call.get(0, "d"));
}

Value batches(const Value& value, const Call& call) {
  const int64_t size = integer_of(call.get(0, "linecount"), "batch");
  if (size < 1) misuse("batch needs a number above 0");
  List all, batch;
  for (const Value& item : iterate(value)) {
    batch.push_back(item);
    if (std::ssize(batch) == size) all.emplace_back(std::exchange(batch, {}));
  }
  if (!batch.empty()) all.emplace_back(std::move(batch));
  return all;
}

const std::map<std::string, Filter, std::less<>>& filters() {
  const auto same = [](const Value& value, const Call&) { return value; };  // no HTML here
  static const std::map<std::string, Filter, std::less<>> table = {
      {"abs", [](const Value& v,
                 const Call&) { return binary("*", v, int64_t{v.number() < 0 ? -1 : 1}); }},
      {"attr", [](const Value& v, const Call& c) { return index(v, c.get(0, "name")); }},
      {"batch", batches},
      {"capitalize", [](const Value& v, const Call&) { return Value(capitalized(v.to_text())); }},
      {"count", [](const Value& v, const Call&) { return Value(length_of(v)); }},
      {"d", defaulted},
      {"default", defaulted},
      {"dictsort", dictsort},
      {"e", same},
      {"escape", same},
      {"first", end_of},
      {"float", real},
      {"indent", indent},
      {"int", whole},
      {"items", [](const Value& v, const Call&) { return call_method(v, "items", {}); }},
      {"join", joined_items},
      {"last", end_of},
      {"length", [](const Value& v, const Call&) { return Value(length_of(v)); }},
      {"list", [](const Value& v, const Call&) { return Value(iterate(v)); }},
      {"lower",
       [](const Value& v, const Call&) { return Value(mapped(v.to_text(), std::tolower)); }},
      {"map", mapped_items},
      {"max", extreme},
      {"min", extreme},
      {"reject", chosen},
      {"rejectattr", chosen},
      {"replace",
       [](const Value& v, const Call& c) {
         return Value(replaced(v.to_text(), text_of(c.get(0, "old"), "replace"),
                               text_of(c.get(1, "new"), "replace"), c.get(2, "count")));
       }},
      {"reverse", reversed},
      {"round", rounded},
      {"safe", same},
      {"select", chosen},
      {"selectattr", chosen},
      {"sort", sort},
      {"string", [](const Value& v, const Call&) { return Value(v.to_text()); }},
      {"sum", sum},
      {"title", [](const Value& v, const Call&) { return Value(titled(v.to_text())); }},
      {"tojson", to_json},
      {"trim",
       [](const Value& v, const Call& c) {
         return Value(stripped(v.to_text(), c.get(0, "chars"), true, true));
       }},
      {"unique", unique},
      {"upper",
       [](const Value& v, const Call&) { return Value(mapped(v.to_text(), std::toupper)); }},
      {"wordcount",
       [](const Value& v, const Call&) {
         return Value(std::ssize(split_text(v.to_text(), Value(), Value(), false)));
       }},
  };
  return table;
}

}  // namespace

Value apply_filter(const std::string& name, const Value& value, Arguments arguments,
                   const Map& named) {
  const auto found = filters().find(name);
  if (found == filters().end()) misuse(fmt::format("unknown filter \"{}\"", name));
  return found->second(value, {name, arguments, named});
}

}  // namespace kvcast::jinja
