// Typed access to the keys of one JSON object, for the readers of config.json and kvcast.json.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "kvcast/result.h"

namespace kvcast {

/// Every getter returns the value, or an error "FILE: key "KEY": expected ..., found ...".
/// Does not own the object.
class JsonFields {
 public:
  using KeyNames = std::map<std::string, std::string>;

  /// `where` names the file in errors. `names`, if given: what keys are called there, where the
  /// object was made from a file of another format.
  JsonFields(const Json& object, std::string where, const KeyNames* names = nullptr)
      : object_(object), where_(std::move(where)), names_(names) {}

  [[nodiscard]] bool contains(const std::string& key) const { return object_.contains(key); }
  /// The key is there and not null.
  [[nodiscard]] bool has(const std::string& key) const {
    return contains(key) && !object_[key].is_null();
  }
  [[nodiscard]] bool is_object(const std::string& key) const {
    return contains(key) && object_[key].is_object();
  }
  [[nodiscard]] bool is_list(const std::string& key) const {
    return contains(key) && object_[key].is_array();
  }
  /// A whole number in [low, high]; 5.0 is not one.
  [[nodiscard]] Result<int64_t> integer(const std::string& key, int64_t low, int64_t high) const;
  /// A finite number in [low, high].
  [[nodiscard]] Result<double> number(const std::string& key, double low, double high) const;
  [[nodiscard]] Result<bool> boolean(const std::string& key) const;
  [[nodiscard]] Result<std::string> string(const std::string& key) const;
  /// The object under `key`; errors about it name both keys. Does not own it.
  [[nodiscard]] Result<JsonFields> object(const std::string& key) const;
  /// Fails unless the key holds exactly `expected`.
  [[nodiscard]] Status require(const std::string& key, const Json& expected) const;
  /// Exactly `count` whole numbers in [low, high].
  [[nodiscard]] Result<std::vector<int64_t>> integers(const std::string& key, int64_t count,
                                                      int64_t low, int64_t high) const;
  /// At most `most` whole numbers in [low, high].
  [[nodiscard]] Result<std::vector<int64_t>> integers_up_to(const std::string& key, int64_t most,
                                                            int64_t low, int64_t high) const;
  /// Exactly `count` finite numbers in [low, high].
  [[nodiscard]] Result<std::vector<double>> numbers(const std::string& key, int64_t count,
                                                    double low, double high) const;

  /// The error for `key`, e.g. expectation "a multiple of 2".
  [[nodiscard]] tl::unexpected<Error> wrong(const std::string& key,
                                            std::string_view expectation) const;

 private:
  [[nodiscard]] Result<const Json*> array(const std::string& key, int64_t count) const;

  [[nodiscard]] const std::string& shown(const std::string& key) const;

  const Json& object_;
  std::string where_;
  const KeyNames* names_;
};

}  // namespace kvcast
