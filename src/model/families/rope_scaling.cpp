#include "model/families/rope_scaling.h"

#include <algorithm>
#include <numbers>
#include <string>

#include "base/macros.h"
#include "model/config_limits.h"

namespace kvcast {
namespace {

constexpr double kMaxFactor = 1e6;

/// Llama 3.1: waves that are long beside the first training's context are stretched by `factor`,
/// short ones are left alone, those between are mixed.
Result<std::vector<float>> llama3_factors(const JsonFields& scaling, const Rope& rope,
                                          int64_t head_dim) {
  KVCAST_TRY(const double factor, scaling.number("factor", 1.0, kMaxFactor));
  KVCAST_TRY(const double low, scaling.number("low_freq_factor", 1e-6, kMaxFactor));
  KVCAST_TRY(const double high, scaling.number("high_freq_factor", 1e-6, kMaxFactor));
  KVCAST_TRY(const int64_t original,
             scaling.integer("original_max_position_embeddings", 1, kMaxContext));
  if (high <= low) return scaling.wrong("high_freq_factor", "more than low_freq_factor");
  std::vector<float> factors;
  for (const double frequency : rope.frequencies(head_dim)) {
    const double waves = static_cast<double>(original) * frequency / (2.0 * std::numbers::pi);
    const double kept = std::clamp((waves - low) / (high - low), 0.0, 1.0);
    factors.push_back(static_cast<float>(1.0 / ((1.0 - kept) / factor + kept)));
  }
  return factors;
}

Result<std::vector<float>> listed_factors(const JsonFields& scaling, int64_t head_dim) {
  KVCAST_TRY(const auto values, scaling.numbers("long_factor", head_dim / 2, 1e-3, kMaxFactor));
  KVCAST_TRY(const auto short_values,
             scaling.numbers("short_factor", head_dim / 2, 1e-3, kMaxFactor));
  if (values != short_values) return scaling.wrong("short_factor", "the same list as long_factor");
  KVCAST_CHECK(scaling.require("attention_factor", 1.0));
  return std::vector<float>(values.begin(), values.end());
}

Result<std::vector<float>> read_factors(const JsonFields& scaling, const Rope& rope,
                                        int64_t head_dim) {
  // Older configs say "type".
  const std::string key = scaling.has("rope_type") ? "rope_type" : "type";
  KVCAST_TRY(const std::string type, scaling.string(key));
  if (type == "default") return std::vector<float>();
  if (type == "llama3") return llama3_factors(scaling, rope, head_dim);
  if (type == "longrope") return listed_factors(scaling, head_dim);
  if (type == "linear") {
    KVCAST_TRY(const double factor, scaling.number("factor", 1.0, kMaxFactor));
    return std::vector<float>(static_cast<size_t>(head_dim / 2), static_cast<float>(factor));
  }
  return scaling.wrong(key, R"("default", "linear", "llama3" or "longrope")");
}

}  // namespace

Result<Rope> read_rope(const JsonFields& fields, int64_t head_dim) {
  constexpr const char* kTheta = "rope_theta";
  const bool is_new = fields.has("rope_parameters");
  const char* const key = is_new ? "rope_parameters" : "rope_scaling";
  Rope rope;
  const bool scaled = fields.has(key);
  KVCAST_TRY(const JsonFields scaling, scaled ? fields.object(key) : fields);
  const JsonFields& with_theta = is_new && scaling.has(kTheta) ? scaling : fields;
  if (with_theta.has(kTheta)) {
    KVCAST_TRY(const double theta, with_theta.number(kTheta, 1.0, 1e12));
    rope.theta = static_cast<float>(theta);
  }
  if (fields.has("partial_rotary_factor")) {
    KVCAST_CHECK(fields.require("partial_rotary_factor", 1.0));
  }
  if (scaled) {
    KVCAST_TRY(rope.factors, read_factors(scaling, rope, head_dim));
  }
  return rope;
}

void write_rope(const ModelConfig& config, Json& json) {
  json["rope_theta"] = config.rope.theta;
  if (config.rope.factors.empty()) return;
  json["rope_scaling"] = {{"rope_type", "longrope"},
                          {"short_factor", config.rope.factors},
                          {"long_factor", config.rope.factors},
                          {"attention_factor", 1.0},
                          {"original_max_position_embeddings", config.max_context_tokens}};
}

}  // namespace kvcast
