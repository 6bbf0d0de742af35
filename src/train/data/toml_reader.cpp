#include "train/data/toml_reader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "base/mapped_file.h"
#include "train/data/error.h"

namespace kvcast::train {
namespace {

/// Sets "table.key" to a value written as TOML; what is not TOML is taken as a string.
void override_key(toml::table& root, const std::string& name, const std::string& value) {
  const size_t dot = name.find('.');
  const std::string table_name = name.substr(0, dot), key = name.substr(dot + 1);
  if (!root.contains(table_name)) root.insert(table_name, toml::table{});
  toml::table* table = root[table_name].as_table();
  if (table == nullptr || key.empty() || key.find('.') != std::string::npos) {
    throw TrainError(fmt::format("--set {}: expected TABLE.KEY of the recipe", name));
  }
  try {
    const toml::table parsed = toml::parse("value = " + value);
    table->insert_or_assign(key, *parsed.get("value"));
  } catch (const toml::parse_error&) {
    table->insert_or_assign(key, value);
  }
}

/// What `from` has and `into` lacks, tables key by key.
void add_missing(toml::table& into, const toml::table& from) {
  for (const auto& [key, value] : from) {
    toml::node* here = into.get(key.str());
    if (here == nullptr) {
      into.insert(key.str(), value);
    } else if (here->is_table() && value.is_table()) {
      add_missing(*here->as_table(), *value.as_table());
    }
  }
}

}  // namespace

bool TomlTable::has(const std::string& key) const {
  return table_ != nullptr && table_->contains(key);
}

bool TomlTable::is_text(const std::string& key) const {
  return has(key) && table_->get(key)->is_string();
}

void TomlTable::fail(const std::string& key, const std::string& expectation) const {
  throw TrainError(fmt::format("{}: {}.{}: expected {}", file_, name_, key, expectation));
}

const toml::node* TomlTable::find(const std::string& key) {
  asked_.insert(key);
  return table_ == nullptr ? nullptr : table_->get(key);
}

const toml::node& TomlTable::find_required(const std::string& key, const std::string& expectation) {
  const toml::node* node = find(key);
  if (node == nullptr) fail(key, expectation + ", found nothing");
  return *node;
}

std::string TomlTable::substituted(const std::string& key, const std::string& value) const {
  std::string result;
  size_t from = 0;
  while (true) {
    const size_t open = value.find("${", from);
    result += value.substr(from, open - from);
    if (open == std::string::npos) return result;
    const size_t close = value.find('}', open);
    if (close == std::string::npos) fail(key, "a closing brace after ${");
    const std::string name = value.substr(open + 2, close - open - 2);
    const auto variable = variables_->find(name);
    if (variable == variables_->end()) {
      fail(key, fmt::format("a value for ${{{}}} (give --set {}=...)", name, name));
    }
    result += variable->second;
    from = close + 1;
  }
}

std::string TomlTable::text(const std::string& key) {
  const auto value = find_required(key, "a string").value_exact<std::string>();
  if (!value || value->empty()) fail(key, "a string that is not empty");
  return substituted(key, *value);
}

std::string TomlTable::text(const std::string& key, const std::string& fallback) {
  return has(key) ? text(key) : (find(key), fallback);
}

int64_t TomlTable::integer(const std::string& key, int64_t low, int64_t high) {
  const std::string expectation = fmt::format("a whole number in {}..{}", low, high);
  const auto value = find_required(key, expectation).value_exact<int64_t>();
  if (!value || *value < low || *value > high) fail(key, expectation);
  return *value;
}

int64_t TomlTable::integer(const std::string& key, int64_t fallback, int64_t low, int64_t high) {
  return has(key) ? integer(key, low, high) : (find(key), fallback);
}

double TomlTable::number(const std::string& key, double fallback, double low, double high) {
  const toml::node* node = find(key);
  if (node == nullptr) return fallback;
  const auto value = node->is_number() ? node->value<double>() : std::nullopt;
  if (!value || !std::isfinite(*value) || *value < low || *value > high) {
    fail(key, fmt::format("a number in {}..{}", low, high));
  }
  return *value;
}

bool TomlTable::boolean(const std::string& key, bool fallback) {
  const toml::node* node = find(key);
  if (node == nullptr) return fallback;
  const auto value = node->value_exact<bool>();
  if (!value) fail(key, "true or false");
  return *value;
}

std::vector<int64_t> TomlTable::integers(const std::string& key) {
  const toml::node* node = find(key);
  if (node == nullptr) return {};
  std::vector<int64_t> values;
  const toml::array* array = node->as_array();
  if (array == nullptr) fail(key, "a list of whole numbers");
  for (const auto& element : *array) {
    const auto value = element.value_exact<int64_t>();
    if (!value) fail(key, "a list of whole numbers");
    values.push_back(*value);
  }
  return values;
}

std::vector<std::string> TomlTable::texts(const std::string& key) {
  const char* const expected = "a list of strings";
  const toml::array* array = find_required(key, expected).as_array();
  if (array == nullptr || array->empty()) fail(key, expected);
  std::vector<std::string> values;
  for (const auto& element : *array) {
    const auto value = element.value_exact<std::string>();
    if (!value) fail(key, expected);
    values.push_back(substituted(key, *value));
  }
  return values;
}

Precision TomlTable::precision(const std::string& key, Precision fallback) {
  const std::string value = text(key, fallback == Precision::kF32 ? "f32" : "bf16");
  if (value != "f32" && value != "bf16") fail(key, R"("f32" or "bf16")");
  return value == "f32" ? Precision::kF32 : Precision::kBF16;
}

Recompute TomlTable::recompute(const std::string& key) {
  const toml::node* node = find(key);
  if (node == nullptr) return Recompute::kAuto;
  if (const auto all = node->value_exact<bool>()) return *all ? Recompute::kAll : Recompute::kNone;
  if (node->value_exact<std::string>() == "auto") return Recompute::kAuto;
  fail(key, R"("auto", true or false)");
}

void TomlTable::reject_unknown_keys() const {
  if (table_ == nullptr) return;
  for (const auto& [key, value] : *table_) {
    if (asked_.contains(std::string(key.str()))) continue;
    throw TrainError(fmt::format("{}: {}.{}: unknown key; known here: {}", file_, name_,
                                 std::string(key.str()), fmt::join(asked_, ", ")));
  }
}

toml::table TomlFile::parse(const std::filesystem::path& file) {
  const std::string contents = unwrap(read_text_file(file));
  try {
    return toml::parse(contents);
  } catch (const toml::parse_error& error) {
    throw TrainError(fmt::format("{}: line {}: not TOML: {}", file.string(),
                                 error.source().begin.line, error.description()));
  }
}

void TomlFile::add_variables(const toml::table& root) {
  const auto* defaults = root["variables"].as_table();
  if (defaults == nullptr) return;
  for (const auto& [key, value] : *defaults) {
    const auto text = value.value_exact<std::string>();
    if (!text) {
      throw TrainError(
          fmt::format("{}: variables.{}: expected a string", file_, std::string(key.str())));
    }
    variables_.emplace(std::string(key.str()), *text);
  }
}

TomlFile::TomlFile(const std::filesystem::path& file, const Settings& settings)
    : file_(file.string()), root_(parse(file)) {
  for (const auto& [name, value] : settings) {
    if (name.find('.') == std::string::npos) variables_.insert_or_assign(name, value);
  }
  add_variables(root_);
  asked_ = {"variables", "include"};
  if (root_.contains("include")) {
    TomlTable top(&root_, file_, "the file", &variables_);
    const toml::table included = parse(file.parent_path() / top.text("include"));
    add_variables(included);
    add_missing(root_, included);
  }
  for (const auto& [name, value] : settings) {
    if (name.find('.') != std::string::npos) override_key(root_, name, value);
  }
}

TomlTable TomlFile::table(const std::string& name, bool required) {
  asked_.insert(name);
  const toml::node* node = root_.get(name);
  if (node == nullptr && required) {
    throw TrainError(fmt::format("{}: expected a table [{}]", file_, name));
  }
  if (node != nullptr && !node->is_table()) {
    throw TrainError(fmt::format("{}: {}: expected a table", file_, name));
  }
  return {node == nullptr ? nullptr : node->as_table(), file_, name, &variables_};
}

std::vector<TomlTable> TomlFile::tables(const std::string& name) {
  asked_.insert(name);
  const toml::array* array = root_[name].as_array();
  if (array == nullptr || array->empty()) {
    throw TrainError(fmt::format("{}: expected at least one [[{}]]", file_, name));
  }
  std::vector<TomlTable> result;
  for (const auto& element : *array) {
    if (!element.is_table()) throw TrainError(fmt::format("{}: {}: expected tables", file_, name));
    result.emplace_back(element.as_table(), file_, name, &variables_);
  }
  return result;
}

void TomlFile::reject_unknown_tables(const std::set<std::string>& others) const {
  for (const auto& [key, value] : root_) {
    const std::string name(key.str());
    if (asked_.contains(name) || others.contains(name)) continue;
    throw TrainError(
        fmt::format("{}: {}: unknown key; known: {}", file_, name, fmt::join(asked_, ", ")));
  }
}

}  // namespace kvcast::train
