#include "fit/bundle_writer.h"

#include <fmt/format.h>

#include "base/atomic_directory.h"
#include "base/half.h"
#include "base/macros.h"
#include "base/mapped_file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "model/bundle.h"
#include "model/plan_json.h"

namespace kvcast {
namespace {

constexpr const char* kPredictorFile = "predictor.safetensors";

/// Relative to the bundle, so that both can move together.
std::string relative_to(const std::filesystem::path& model, const std::filesystem::path& bundle) {
  return std::filesystem::absolute(model)
      .lexically_normal()
      .lexically_relative(std::filesystem::absolute(bundle).lexically_normal())
      .string();
}

Json manifest(const FitOptions& options, const FitResult& result) {
  Json json = {{"format", 2},
               {"base", relative_to(options.base_path, options.output)},
               {"predictor", kPredictorFile}};
  if (options.auxiliary) {
    json["auxiliary"] = relative_to(options.auxiliary_path, options.output);
  }
  write_plan(result.plan, json);
  Json layers = Json::array();
  for (const FittedLayer& layer : result.layers) {
    layers.push_back({{"layer", layer.layer},
                      {"key_ridge", layer.key_ridge},
                      {"value_ridge", layer.value_ridge},
                      {"key_error", layer.key_error},
                      {"value_error", layer.value_error}});
  }
  json["fit"] = {{"rows", result.fitted_rows},
                 {"held_out_rows", result.held_out_rows},
                 {"layers", std::move(layers)}};
  return json;
}

}  // namespace

Status write_fitted_bundle(const FitOptions& options, const FitResult& result,
                           const std::vector<LayerMaps>& maps) {
  std::vector<std::vector<uint16_t>> weights;
  weights.reserve(2 * maps.size());  // views of them are taken
  std::vector<TensorToWrite> tensors;
  const auto add = [&](std::string_view kind, int64_t layer, const LinearMaps& map) {
    const auto rows = std::ssize(map.intercept), columns = std::ssize(map.weight) / rows;
    auto& rounded = weights.emplace_back(map.weight.size());
    for (size_t i = 0; i < rounded.size(); ++i) rounded[i] = float_to_bf16(map.weight[i]);
    const std::string name = fmt::format("{}_transforms.{}", kind, layer);
    tensors.push_back(
        {name + ".weight", DType::kBF16, {rows, columns}, std::as_bytes(std::span(rounded))});
    tensors.push_back(
        {name + ".bias", DType::kF32, {rows}, std::as_bytes(std::span(map.intercept))});
  };
  for (const LayerMaps& layer : maps) {
    add("key", layer.chosen.layer, layer.keys);
    add("value", layer.chosen.layer, layer.values);
  }
  KVCAST_TRY(const auto directory, AtomicDirectory::create(options.output));
  KVCAST_CHECK(write_safetensors(directory->staging() / kPredictorFile, tensors));
  KVCAST_CHECK(write_file_atomically(directory->staging() / kManifestName,
                                     manifest(options, result).dump(1) + "\n"));
  return directory->commit();
}

}  // namespace kvcast
