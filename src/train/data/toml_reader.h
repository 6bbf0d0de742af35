// Typed access to a TOML file's tables, for recipe.cpp only.
#pragma once

#include <toml++/toml.h>

#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "train/data/recipe.h"

namespace kvcast::train {

/// One table. Every getter throws TrainError "FILE: TABLE.KEY: expected ..." on a wrong type or
/// range, and returns `fallback` (or throws, for the required ones) where the key is missing.
class TomlTable {
 public:
  TomlTable(const toml::table* table, std::string file, std::string name,
            const std::map<std::string, std::string>* variables)
      : table_(table), file_(std::move(file)), name_(std::move(name)), variables_(variables) {}

  [[nodiscard]] bool has(const std::string& key) const;
  [[nodiscard]] bool is_text(const std::string& key) const;
  std::string text(const std::string& key);
  std::string text(const std::string& key, const std::string& fallback);
  int64_t integer(const std::string& key, int64_t low, int64_t high);
  int64_t integer(const std::string& key, int64_t fallback, int64_t low, int64_t high);
  double number(const std::string& key, double fallback, double low, double high);
  bool boolean(const std::string& key, bool fallback);
  std::vector<int64_t> integers(const std::string& key);
  /// At least one.
  std::vector<std::string> texts(const std::string& key);
  Precision precision(const std::string& key, Precision fallback);
  Recompute recompute(const std::string& key);
  /// One of the named values; the first where the key is missing.
  template <typename T>
  T choice(const std::string& key, const std::vector<std::pair<std::string, T>>& named) {
    const std::string value = text(key, named.front().first);
    std::string names;
    for (const auto& [name, result] : named) {
      if (name == value) return result;
      names += (names.empty() ? "\"" : ", \"") + name + '"';
    }
    fail(key, "one of " + names);
  }

  /// Throws if the table holds a key that no getter asked for.
  void reject_unknown_keys() const;
  [[noreturn]] void fail(const std::string& key, const std::string& expectation) const;

 private:
  const toml::node* find(const std::string& key);
  const toml::node& find_required(const std::string& key, const std::string& expectation);
  std::string substituted(const std::string& key, const std::string& value) const;

  const toml::table* table_;  // may be null: a table that is not there
  std::string file_, name_;
  const std::map<std::string, std::string>* variables_;
  std::set<std::string> asked_;
};

/// A parsed file with the settings applied. `include = "FILE"` (relative to it) gives what the file
/// itself does not say.
class TomlFile {
 public:
  TomlFile(const std::filesystem::path& file, const Settings& settings);
  [[nodiscard]] bool has_table(const std::string& name) const { return root_.contains(name); }
  /// A missing table is an error if `required`, otherwise an empty one.
  TomlTable table(const std::string& name, bool required);
  /// The entries of [[name]]; at least one.
  std::vector<TomlTable> tables(const std::string& name);
  /// Throws if there is a top-level key other than those asked for and `others`.
  void reject_unknown_tables(const std::set<std::string>& others = {}) const;

 private:
  static toml::table parse(const std::filesystem::path& file);
  /// [variables] that have no value yet.
  void add_variables(const toml::table& root);

  std::string file_;
  toml::table root_;
  std::map<std::string, std::string> variables_;
  std::set<std::string> asked_;
};

}  // namespace kvcast::train
