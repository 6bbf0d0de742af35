// Reading typed fields from a request's JSON object. Only for the server's JSON edge.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "server/api_error.h"

namespace kvcast {

/// A JSON object with typed getters; `null` counts as absent. The first wrong field is kept as the
/// error, and getters after it give nothing.
class JsonObject {
 public:
  explicit JsonObject(const Json& object) : object_(object) {}

  [[nodiscard]] const std::optional<ApiError>& error() const { return error_; }
  void refuse(std::string_view field, std::string_view expected);

  /// Null if absent.
  [[nodiscard]] const Json* find(std::string_view field) const;
  std::optional<std::string> text(std::string_view field);
  std::optional<bool> boolean(std::string_view field);
  /// A whole number in [low, high].
  std::optional<int64_t> integer(std::string_view field, int64_t low, int64_t high);
  /// A whole number of at least `low`; greater ones than `high` count as `high`.
  std::optional<int64_t> clamped_integer(std::string_view field, int64_t low, int64_t high);
  /// A finite number in [low, high].
  std::optional<double> number(std::string_view field, double low, double high);
  /// Refuses the request if the field is there and is not one of the values that change nothing.
  void unsupported(std::string_view field, const std::vector<Json>& harmless);

 private:
  const Json& object_;
  std::optional<ApiError> error_;
};

/// A list of token ids, each within 32 bits and not negative.
std::optional<std::vector<int32_t>> token_ids(const Json& value);

}  // namespace kvcast
