#include "report/json_values.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

#include "base/macros.h"

namespace kvcast::report {
namespace {

bool is_number_or_null(const Json& value) {
  return value.is_null() || (value.is_number() && std::isfinite(value.get<double>()));
}

double value_or_nan(const Json& value) { return value.is_null() ? NAN : value.get<double>(); }

}  // namespace

Json rounded(double value) {
  if (!std::isfinite(value)) return nullptr;
  return std::strtod(fmt::format("{:.5g}", value).c_str(), nullptr);
}

Json rounded(const std::vector<double>& values) {
  Json list = Json::array();
  for (const double value : values) list.push_back(rounded(value));
  return list;
}

Json to_json(const Estimate& estimate) {
  return {{"value", rounded(estimate.value)},
          {"low", rounded(estimate.low)},
          {"high", rounded(estimate.high)}};
}

Result<double> number_or_nan(const Json& object, const std::string& key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || !is_number_or_null(*found)) {
    return JsonFields(object, where).wrong(key, "a number or null");
  }
  return value_or_nan(*found);
}

Result<std::vector<double>> numbers_or_nan(const Json& object, const std::string& key, size_t count,
                                           const std::string& where) {
  KVCAST_TRY(const Json* list, list_at(object, key, where));
  std::vector<double> values;
  for (const Json& value : *list) {
    if (!is_number_or_null(value)) return JsonFields(object, where).wrong(key, "a list of numbers");
    values.push_back(value_or_nan(value));
  }
  if (values.size() != count) {
    return JsonFields(object, where).wrong(key, fmt::format("a list of {} numbers", count));
  }
  return values;
}

Result<Estimate> parse_estimate(const Json& object, const std::string& key,
                                const std::string& where) {
  KVCAST_TRY(const Json* found, object_at(object, key, where));
  const std::string inside = fmt::format("{}: key \"{}\"", where, key);
  Estimate estimate;
  KVCAST_TRY(estimate.value, number_or_nan(*found, "value", inside));
  KVCAST_TRY(estimate.low, number_or_nan(*found, "low", inside));
  KVCAST_TRY(estimate.high, number_or_nan(*found, "high", inside));
  return estimate;
}

Result<const Json*> object_at(const Json& object, const std::string& key,
                              const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_object()) {
    return JsonFields(object, where).wrong(key, "an object");
  }
  return &*found;
}

Result<const Json*> list_at(const Json& object, const std::string& key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array()) {
    return JsonFields(object, where).wrong(key, "a list");
  }
  return &*found;
}

}  // namespace kvcast::report
