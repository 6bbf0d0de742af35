#include "server/json_object.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace kvcast {
namespace {

/// Integers and whole floating-point numbers ("16.0") that fit 64 bits.
std::optional<int64_t> whole_number(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    constexpr auto kLargest = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    return static_cast<int64_t>(std::min(number, kLargest));
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const auto number = value.get<double>();
  if (!std::isfinite(number) || number != std::floor(number) || std::abs(number) > 0x1p62) {
    return std::nullopt;
  }
  return static_cast<int64_t>(number);
}

}  // namespace

void JsonObject::refuse(std::string_view field, std::string_view expected) {
  if (!error_) error_ = bad_request(fmt::format("{}: expected {}", field, expected), field);
}

const Json* JsonObject::find(std::string_view field) const {
  if (error_) return nullptr;
  const auto found = object_.find(field);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<std::string> JsonObject::text(std::string_view field) {
  const Json* value = find(field);
  if (!value) return std::nullopt;
  if (!value->is_string()) {
    refuse(field, "a string");
    return std::nullopt;
  }
  return value->get<std::string>();
}

std::optional<bool> JsonObject::boolean(std::string_view field) {
  const Json* value = find(field);
  if (!value) return std::nullopt;
  if (!value->is_boolean()) {
    refuse(field, "true or false");
    return std::nullopt;
  }
  return value->get<bool>();
}

std::optional<int64_t> JsonObject::integer(std::string_view field, int64_t low, int64_t high) {
  const Json* value = find(field);
  if (!value) return std::nullopt;
  const auto number = whole_number(*value);
  if (!number || *number < low || *number > high) {
    refuse(field, fmt::format("a whole number within {}..{}", low, high));
    return std::nullopt;
  }
  return number;
}

std::optional<int64_t> JsonObject::clamped_integer(std::string_view field, int64_t low,
                                                   int64_t high) {
  const Json* value = find(field);
  if (!value) return std::nullopt;
  const auto number = whole_number(*value);
  if (!number || *number < low) {
    refuse(field, fmt::format("a whole number of at least {}", low));
    return std::nullopt;
  }
  return std::min(*number, high);
}

std::optional<double> JsonObject::number(std::string_view field, double low, double high) {
  const Json* value = find(field);
  if (!value) return std::nullopt;
  const double number =
      value->is_number() ? value->get<double>() : std::numeric_limits<double>::quiet_NaN();
  if (!(number >= low && number <= high)) {
    refuse(field, fmt::format("a number within {}..{}", low, high));
    return std::nullopt;
  }
  return number;
}

void JsonObject::unsupported(std::string_view field, const std::vector<Json>& harmless) {
  const Json* value = find(field);
  if (!value || std::ranges::find(harmless, *value) != harmless.end()) return;
  ApiError error = bad_request(fmt::format("{}: not supported by this server", field), field);
  error.code = "unsupported_parameter";
  error_ = error;
}

std::optional<std::vector<int32_t>> token_ids(const Json& value) {
  if (!value.is_array()) return std::nullopt;
  std::vector<int32_t> ids;
  ids.reserve(value.size());
  for (const Json& id : value) {
    if (!id.is_number_unsigned() ||
        id.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int32_t>::max())) {
      return std::nullopt;
    }
    ids.push_back(static_cast<int32_t>(id.get<uint64_t>()));
  }
  return ids;
}

}  // namespace kvcast
