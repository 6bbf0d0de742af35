// Reading and writing what result files have in common.
#pragma once

#include <string>
#include <vector>

#include "io/json.h"
#include "model/json_fields.h"
#include "report/statistics.h"

namespace kvcast::report {

/// A number with five significant digits, so that files stay small; NaN becomes null.
Json rounded(double value);
Json rounded(const std::vector<double>& values);
/// {"value", "low", "high"}
Json to_json(const Estimate& estimate);

/// A finite number, or NaN for null.
Result<double> number_or_nan(const Json& object, const std::string& key, const std::string& where);
Result<std::vector<double>> numbers_or_nan(const Json& object, const std::string& key, size_t count,
                                           const std::string& where);
/// {"value", "low", "high"}: a value, and an interval unless both are null.
Result<Estimate> parse_estimate(const Json& object, const std::string& key,
                                const std::string& where);
/// The object or list under `key`.
Result<const Json*> object_at(const Json& object, const std::string& key, const std::string& where);
Result<const Json*> list_at(const Json& object, const std::string& key, const std::string& where);

}  // namespace kvcast::report
