#include "model/json_fields.h"

#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "base/macros.h"

namespace kvcast {
namespace {

// A value as one short line; the file may hold anything, so bad UTF-8 is replaced.
std::string describe(const Json& value) {
  constexpr size_t kLongest = 60;
  if (value.is_array()) return fmt::format("a list of {} entries", value.size());
  if (value.is_object()) return "an object";
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  return text;
}

std::optional<int64_t> as_integer(const Json& value, int64_t low, int64_t high) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX}) {
    return std::nullopt;
  }
  const auto number = value.get<int64_t>();
  if (number < low || number > high) return std::nullopt;
  return number;
}

std::optional<double> as_number(const Json& value, double low, double high) {
  if (!value.is_number()) return std::nullopt;
  const auto number = value.get<double>();
  if (!std::isfinite(number) || number < low || number > high) return std::nullopt;
  return number;
}

}  // namespace

const std::string& JsonFields::shown(const std::string& key) const {
  if (names_ == nullptr) return key;
  const auto found = names_->find(key);
  return found == names_->end() ? key : found->second;
}

tl::unexpected<Error> JsonFields::wrong(const std::string& key,
                                        std::string_view expectation) const {
  const auto found = object_.find(key);
  if (found == object_.end()) {
    return fail(
        fmt::format("{}: key \"{}\" is missing: expected {}", where_, shown(key), expectation));
  }
  return fail(fmt::format("{}: key \"{}\": expected {}, found {}", where_, shown(key), expectation,
                          describe(*found)));
}

Result<int64_t> JsonFields::integer(const std::string& key, int64_t low, int64_t high) const {
  const auto found = object_.find(key);
  if (found != object_.end()) {
    if (auto value = as_integer(*found, low, high)) return *value;
  }
  return wrong(key, fmt::format("a whole number from {} to {}", low, high));
}

Result<double> JsonFields::number(const std::string& key, double low, double high) const {
  const auto found = object_.find(key);
  if (found != object_.end()) {
    if (auto value = as_number(*found, low, high)) return *value;
  }
  return wrong(key, fmt::format("a number from {:g} to {:g}", low, high));
}

Result<bool> JsonFields::boolean(const std::string& key) const {
  const auto found = object_.find(key);
  if (found == object_.end() || !found->is_boolean()) return wrong(key, "true or false");
  return found->get<bool>();
}

Result<std::string> JsonFields::string(const std::string& key) const {
  const auto found = object_.find(key);
  if (found == object_.end() || !found->is_string()) return wrong(key, "a string");
  return found->get<std::string>();
}

Result<JsonFields> JsonFields::object(const std::string& key) const {
  const auto found = object_.find(key);
  if (found == object_.end() || !found->is_object()) return wrong(key, "an object");
  return JsonFields(*found, fmt::format("{}: key \"{}\"", where_, shown(key)));
}

Status JsonFields::require(const std::string& key, const Json& expected) const {
  const auto found = object_.find(key);
  if (found == object_.end() || *found != expected) return wrong(key, describe(expected));
  return {};
}

Result<const Json*> JsonFields::array(const std::string& key, int64_t count) const {
  const auto found = object_.find(key);
  if (found == object_.end() || !found->is_array() || found->size() != static_cast<size_t>(count)) {
    return wrong(key, fmt::format("a list of {} entries", count));
  }
  return &*found;
}

Result<std::vector<int64_t>> JsonFields::integers(const std::string& key, int64_t count,
                                                  int64_t low, int64_t high) const {
  KVCAST_TRY(const Json* list, array(key, count));
  std::vector<int64_t> values;
  for (const Json& entry : *list) {
    const auto value = as_integer(entry, low, high);
    if (!value) {
      return fail(
          fmt::format("{}: key \"{}\" entry {}: expected a whole number from {} to {}, "
                      "found {}",
                      where_, shown(key), values.size(), low, high, describe(entry)));
    }
    values.push_back(*value);
  }
  return values;
}

Result<std::vector<int64_t>> JsonFields::integers_up_to(const std::string& key, int64_t most,
                                                        int64_t low, int64_t high) const {
  const auto found = object_.find(key);
  if (found == object_.end() || !found->is_array() || found->size() > static_cast<size_t>(most)) {
    return wrong(key, fmt::format("a list of at most {} entries", most));
  }
  return integers(key, static_cast<int64_t>(found->size()), low, high);
}

Result<std::vector<double>> JsonFields::numbers(const std::string& key, int64_t count, double low,
                                                double high) const {
  KVCAST_TRY(const Json* list, array(key, count));
  std::vector<double> values;
  for (const Json& entry : *list) {
    const auto value = as_number(entry, low, high);
    if (!value) {
      return fail(
          fmt::format("{}: key \"{}\" entry {}: expected a number from {:g} to {:g}, "
                      "found {}",
                      where_, shown(key), values.size(), low, high, describe(entry)));
    }
    values.push_back(*value);
  }
  return values;
}

}  // namespace kvcast
