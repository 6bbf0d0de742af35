#include "model/forecast_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace kvcast {

std::string_view input_kind_name(InputKind kind) {
  switch (kind) {
    case InputKind::kKeyValue:
      return "key-value";
    case InputKind::kJoint:
      return "joint";
    case InputKind::kResidual:
      break;
  }
  return "residual";
}

std::string_view prompt_reader_name(PromptReader reader) {
  return reader == PromptReader::kBase ? "base" : "auxiliary";
}

int64_t input_width(const ForecastInput& input, const ModelConfig& base,
                    const ModelConfig& auxiliary) {
  const ModelConfig& reader = input.reader == PromptReader::kBase ? base : auxiliary;
  if (input.kind == InputKind::kResidual) {
    return reader.model_dim * (std::ssize(input.earlier) + 1);
  }
  return reader.kv_width(input.layer) * (input.kind == InputKind::kJoint ? 2 : 1);
}

ForecastPlan::ForecastPlan(const std::vector<int64_t>& layer_map) {
  for (const int64_t layer : layer_map) inputs.push_back({.layer = layer});
}

std::vector<int64_t> ForecastPlan::layer_map() const {
  std::vector<int64_t> map;
  for (const ForecastInput& input : inputs) {
    if (input != ForecastInput{.layer = input.layer}) return {};
    map.push_back(input.layer);
  }
  return exact_layers == 0 && sink_tokens == 0 ? map : std::vector<int64_t>();
}

int64_t ForecastPlan::auxiliary_layers() const {
  int64_t count = 0;
  for (int64_t i = exact_layers; i < base_layers(); ++i) {
    if (inputs[i].reader == PromptReader::kAuxiliary) count = std::max(count, inputs[i].layer + 1);
  }
  return count;
}

int64_t ForecastPlan::ready_stage(int64_t base_layer) const {
  // A stage is announced before its layer's own rows are in the cache.
  if (base_layer < exact_layers) return stage(PromptReader::kBase, base_layer) + 1;
  return stage(inputs[base_layer].reader, inputs[base_layer].layer);
}

Status check_plan(const ForecastPlan& plan, const ModelConfig& base, const ModelConfig& auxiliary,
                  const std::string& where) {
  if (plan.base_layers() != base.n_layers()) {
    return fail(fmt::format("{}: inputs for {} layers, expected {}, one per layer of the base",
                            where, plan.base_layers(), base.n_layers()));
  }
  if (plan.exact_layers < 0 || plan.exact_layers > base.n_layers() || plan.sink_tokens < 0) {
    return fail(
        fmt::format("{}: exact_layers {}, sink_tokens {}: expected 0 to {}, and not below 0", where,
                    plan.exact_layers, plan.sink_tokens, base.n_layers()));
  }
  for (int64_t i = plan.exact_layers; i < base.n_layers(); ++i) {
    const ForecastInput& input = plan.inputs[i];
    const bool from_base = input.reader == PromptReader::kBase;
    const int64_t layers = from_base ? plan.exact_layers : auxiliary.n_layers();
    if (input.layer < 0 || input.layer >= layers) {
      return fail(fmt::format("{}: the input of base layer {}: {} layer {}, expected 0 to {}",
                              where, i, prompt_reader_name(input.reader), input.layer, layers - 1));
    }
    int64_t before = -1;
    for (const int64_t layer : input.earlier) {
      if (layer <= before || layer >= input.layer || input.kind != InputKind::kResidual) {
        return fail(
            fmt::format("{}: the input of base layer {}: layers {} {}: expected ascending "
                        "layers of kind \"residual\"",
                        where, i, fmt::join(input.earlier, " "), input.layer));
      }
      before = layer;
    }
  }
  return {};
}

}  // namespace kvcast
