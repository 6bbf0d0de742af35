// What a KV-prediction bundle computes exactly, what it forecasts, and from what (docs/FORMAT.md).
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "kvcast/result.h"
#include "model/config.h"

namespace kvcast {

/// What a layer of a model that reads the prompt offers to a linear map.
enum class InputKind {
  kKeyValue,  ///< keys from its keys (before k_norm and RoPE), values from its values
  kJoint,     ///< both from keys and values, one after the other
  kResidual,  ///< both from the residual stream that enters the layer, divided by its RMS
};
std::string_view input_kind_name(InputKind kind);

enum class PromptReader { kAuxiliary, kBase };
std::string_view prompt_reader_name(PromptReader reader);

/// Where a base layer's forecast comes from.
struct ForecastInput {
  PromptReader reader = PromptReader::kAuxiliary;
  int64_t layer = 0;
  InputKind kind = InputKind::kKeyValue;
  /// kResidual: layers before it, ascending, whose streams stand before its own in the input.
  std::vector<int64_t> earlier = {};
  bool operator==(const ForecastInput&) const = default;
};
/// Elements of one token's input for keys; values have as many.
int64_t input_width(const ForecastInput& input, const ModelConfig& base,
                    const ModelConfig& auxiliary);

/// The first `exact_layers` of the base's layers run on the prompt; the last of them gives keys and
/// values only. The other layers' are forecast, each from its input. The first `sink_tokens`
/// positions of a context, whose keys and values are like no others', the base runs itself.
struct ForecastPlan {
  int64_t sink_tokens = 0;
  int64_t exact_layers = 0;
  std::vector<ForecastInput> inputs;  // [base layers]; those of the exact layers say nothing

  ForecastPlan() = default;
  /// Format 1: base layer i reads keys and values of auxiliary layer layer_map[i].
  ForecastPlan(const std::vector<int64_t>& layer_map);  // NOLINT: a layer map is a plan

  /// Of format 1; empty for any other plan.
  [[nodiscard]] std::vector<int64_t> layer_map() const;

  [[nodiscard]] int64_t base_layers() const { return static_cast<int64_t>(inputs.size()); }
  /// How many auxiliary layers have to run: one past the last that is read; 0: no auxiliary.
  [[nodiscard]] int64_t auxiliary_layers() const;
  /// The prompt is read in stages, one for each layer that runs: the auxiliary's, then the exact
  /// ones. The stage after which base layer i has its rows.
  [[nodiscard]] int64_t ready_stage(int64_t base_layer) const;
  [[nodiscard]] int64_t stage(PromptReader reader, int64_t layer) const {
    return reader == PromptReader::kAuxiliary ? layer : auxiliary_layers() + layer;
  }
};

/// That the plan fits both models; `where` names the file in errors. `auxiliary` has no layers
/// where there is none.
Status check_plan(const ForecastPlan& plan, const ModelConfig& base, const ModelConfig& auxiliary,
                  const std::string& where);

}  // namespace kvcast
