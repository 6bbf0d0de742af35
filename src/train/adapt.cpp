#include "train/adapt.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/mapped_file.h"
#include "model/bundle.h"
#include "model/flops.h"
#include "model/plan_json.h"
#include "model/weights.h"
#include "train/data/error.h"
#include "train/flops.h"
#include "train/forecast_fit.h"
#include "train/kvp_pass.h"
#include "train/low_rank.h"
#include "train/model_files.h"
#include "train/preflight.h"
#include "train/tensor_io.h"

namespace kvcast::train {
namespace {

constexpr const char* kAuxiliary = "auxiliary";
constexpr const char* kPredictor = "predictor.safetensors";

/// The base's shape with so many of its layers.
ModelConfig config_of_layers(const ModelConfig& base, const std::vector<int64_t>& kept) {
  ModelConfig config = base;
  config.layers.clear();
  for (const int64_t layer : kept) config.layers.push_back(base.layers.at(layer));
  return config;
}

/// Copies of the base's layers, renumbered.
TensorMap copied_layers(const TensorMap& base, const std::vector<int64_t>& kept) {
  TensorMap layers;
  for (size_t i = 0; i < kept.size(); ++i) {
    add_with_prefix(layers, fmt::format("layers.{}.", i),
                    without_prefix(base, fmt::format("layers.{}.", kept[i])));
  }
  return layers;
}

/// `values` with the numbers of layers, or of maps, moved by `offset`: "KIND.{n}.NAME".
TensorMap renumbered(const TensorMap& values, int64_t offset) {
  TensorMap moved;
  for (const auto& [name, value] : values) {
    const size_t first = name.find('.') + 1, end = name.find('.', first);
    const int64_t number = std::stoll(name.substr(first, end - first));
    moved.emplace(fmt::format("{}{}{}", name.substr(0, first), number + offset, name.substr(end)),
                  value);
  }
  return moved;
}

/// The tensors of a file whose numbers are larger by `offset`.
TensorMap read_renumbered(const std::filesystem::path& path,
                          const std::vector<ParameterSpec>& specs, int64_t offset) {
  const auto file = unwrap(Safetensors::open(path));
  TensorMap values;
  for (const ParameterSpec& spec : specs) {
    ParameterSpec stored = spec;
    stored.name = renumbered({{spec.name, Tensor()}}, offset).begin()->first;
    values.emplace(spec.name, read_parameters(*file, {stored}).begin()->second);
  }
  return values;
}

/// The bundle that runs what was trained (docs/FORMAT.md, format 2): an auxiliary of the base's
/// first layers, the trained ones, and a last one of the base's of which nothing but what enters it
/// is read. The base's exact layers have maps too: their own projections.
class AdaptedBundle {
 public:
  AdaptedBundle(const ModelConfig& base, const ForecastShape& shape,
                const std::vector<int64_t>& trained, const std::vector<int64_t>& sources)
      : shape_(shape), base_(base), config_(base) {
    for (int64_t i = 0; i < shape.start(); ++i) shared_.push_back(i);
    shared_.insert(shared_.end(), trained.size(), kOwnLayer);
    shared_.push_back(std::min(trained.back() + 1, base.n_layers() - 1));
    config_.layers.clear();
    for (size_t i = 0; i < shared_.size(); ++i) {
      const int64_t kept =
          shared_[i] == kOwnLayer ? trained[i - static_cast<size_t>(shape.start())] : shared_[i];
      config_.layers.push_back(base.layers.at(static_cast<size_t>(kept)));
      adapted_.push_back(shared_[i] == kOwnLayer ? kept : kOwnLayer);
    }
    plan_.sink_tokens = shape.sink_tokens;
    for (int64_t i = 0; i < base.n_layers(); ++i) {
      const int64_t n = i - shape.exact_layers;
      const int64_t layer = n < 0 ? i : shape.start() + sources.at(static_cast<size_t>(n));
      plan_.inputs.push_back({.layer = layer, .kind = InputKind::kResidual});
    }
  }

  [[nodiscard]] const ModelConfig& base() const { return base_; }
  [[nodiscard]] const ModelConfig& config() const { return config_; }  ///< the auxiliary's
  [[nodiscard]] const std::vector<int64_t>& shared_layers() const { return shared_; }
  /// Of its own layers, which of the base's they started as.
  [[nodiscard]] const std::vector<int64_t>& adapted_layers() const { return adapted_; }
  [[nodiscard]] const ForecastPlan& plan() const { return plan_; }

  /// Keys and values of the exact layers from the residual stream over its RMS: the layer's own
  /// projections with its norm's weights in them.
  [[nodiscard]] TensorMap exact_maps(const Model& base) const {
    TensorMap maps;
    for (int64_t i = 0; i < shape_.exact_layers; ++i) {
      const LayerTensors& layer = base.layers[static_cast<size_t>(i)];
      int64_t row = base.config.query_width(i);
      for (const char* kind : {"key_transforms", "value_transforms"}) {
        const int64_t width = base.config.kv_width(i);
        const auto part = [&](const Tensor& whole) {
          return whole.narrow(0, row, width).to(at::kCPU, at::kFloat);
        };
        const std::string name = fmt::format("{}.{}", kind, i);
        maps.emplace(name + ".weight",
                     part(layer.qkv_proj) * layer.attn_norm.to(at::kCPU, at::kFloat));
        maps.emplace(name + ".bias",
                     layer.qkv_bias.defined() ? part(layer.qkv_bias) : at::zeros({width}));
        row += width;
      }
    }
    return maps;
  }

 private:
  ForecastShape shape_;
  ModelConfig base_, config_;
  std::vector<int64_t> shared_, adapted_;
  ForecastPlan plan_;
};

/// README.md of the bundle: what it is, how it was made, how to see what it keeps.
std::string model_card(const std::string& base, const AdaptedBundle& bundle, const Json& training) {
  constexpr int64_t kTokens[] = {128, 512, 2048};
  std::string reductions;
  for (const int64_t tokens : kTokens) {
    const double reduction =
        exact_cost(bundle.base(), tokens).total() /
        kv_prediction_cost(bundle.base(), bundle.config(), bundle.plan(), tokens).total();
    reductions += fmt::format("{}{:.2f} at {}", reductions.empty() ? "" : ", ", reduction, tokens);
  }
  return fmt::format(
      R"(# A forecast for {0}

Lets {0} answer sooner: its own first {1} layers and copies of layers {2}, trained, read the prompt; maps from
what leaves them give the keys and values of the other layers. Answers are the base's own.

| | |
|---|---|
| operations to the first token, times fewer, by prompt tokens | {3} |
| trained on | {4} tokens, {5} steps of {6}, sequences of {7} |
| last training losses | KL {8:.4f} from the exact distribution, cross-entropy {9:.4f} |

What it keeps on your text and chats:

    kvcast eval . --task nll --data TEXT --prefill exact,kv-prediction,kv-prediction:tail=16
    kvcast eval . --task chats --data CHATS.jsonl --prefill exact,kv-prediction,kv-prediction:tail=16
)",
      base, training.at("exact_layers").get<int64_t>() - 1,
      fmt::join(training.at("trained_layers").get<std::vector<int64_t>>(), ", "), reductions,
      training.at("tokens").get<int64_t>(), training.at("steps").get<int64_t>(),
      training.at("tokens_per_step").get<int64_t>(), training.at("sequence_tokens").get<int64_t>(),
      training.at("final_training_losses").value("kl", 0.0),
      training.at("final_training_losses").value("base", 0.0));
}

class AdaptObjective : public Objective {
 public:
  AdaptObjective(const AdaptRecipe& recipe, const LoadedModel& base, const at::Device& device)
      : recipe_(recipe),
        shape_{recipe.exact_layers, recipe.sink_tokens},
        layers_config_(config_of_layers(base.config, recipe.trained_layers)),
        layer_specs_(layer_parameter_specs(layers_config_)),
        rope_(rope_table(base.config, recipe.data.sequence_tokens, device)) {
    const auto compute = recipe.run.precision == Precision::kBF16 ? at::kBFloat16 : at::kFloat;
    const TensorMap weights = frozen(base.values, compute, device);
    base_ = bind_model(base.config, rope_, weights, "");
    given_ = copied_layers(weights, recipe.trained_layers);
    options_.lambda_base = recipe.lambda_base;
    options_.lambda_kl = recipe.lambda_kl;
    options_.cross_entropy.z_loss = recipe.optimizer.z_loss;
  }

  [[nodiscard]] std::vector<ParameterSpec> specs() const {
    auto specs = is_low_rank() ? low_rank_specs(layer_specs_, recipe_.rank) : layer_specs_;
    const auto maps = forecast_map_specs(base_.config, shape_);
    specs.insert(specs.end(), maps.begin(), maps.end());
    return specs;
  }

  /// Copies of the base's layers, and the maps in closed form.
  TensorMap start(const TensorMap& base, const WindowSampler& sampler, const at::Device& device) {
    const TensorMap layers = copied_layers(base, recipe_.trained_layers);
    const Model reader = bind_layers(
        layers_config_, rope_, frozen(layers, base_.token_embeddings.scalar_type(), device), "");
    ForecastFit fit = fit_forecast(base_, reader, shape_, recipe_.ridge, sampler, device);
    sources_ = fit.sources;
    held_out_error_ = fit.held_out_error;
    TensorMap values = std::move(fit.maps);
    add_with_prefix(values, "",
                    is_low_rank()
                        ? low_rank_start(layer_specs_, layers, recipe_.rank, recipe_.run.seed)
                        : layers);
    return values;
  }
  /// A resumed run reads its values from the checkpoint; here only the sources.
  TensorMap start_resumed() {
    const Json json = unwrap(read_json_object(recipe_.output.checkpoint / kManifestName));
    sources_ = json.at("training").at("sources").get<std::vector<int64_t>>();
    return read(recipe_.output.checkpoint);
  }

  ObjectiveLoss loss(const TensorMap& views, const MicroBatch& batch) override {
    const TensorMap layers =
        is_low_rank() ? merged_layers(layer_specs_, given_, views) : TensorMap();
    const Forecaster forecaster{
        bind_layers(layers_config_, rope_, is_low_rank() ? layers : views, ""),
        bind_predictor(sources_, views, "")};
    const ForecastLosses losses =
        forecast_loss(base_, shape_, forecaster, batch.input_ids, batch.targets, options_,
                      kvp_pass_at(recipe_, batch.step));
    return {losses.total,
            losses.base.cross_entropy,
            {{"loss", losses.total}, {"base", losses.base.cross_entropy}, {"kl", losses.kl}}};
  }

  void write(const std::filesystem::path& directory, const std::filesystem::path& final_directory,
             const TensorMap& values, const StoreOptions& store, bool checkpoint,
             const Json& about) const override {
    TensorMap layers, maps;
    for (const auto& [name, value] : values) {
      (name.starts_with("layers.") ? layers : maps).emplace(name, value);
    }
    const AdaptedBundle bundle = adapted();
    const TensorMap own = renumbered(layers, shape_.start());
    if (is_low_rank()) {
      write_adapted_layers(directory / kAuxiliary, bundle.config(), bundle.shared_layers(), own,
                           store.dtype);
    } else {
      write_own_layers(directory / kAuxiliary, bundle.config(), bundle.shared_layers(), own, store);
    }
    TensorMap all_maps = bundle.exact_maps(base_);
    all_maps.merge(renumbered(maps, shape_.exact_layers));
    write_tensors(directory / kPredictor, all_maps, store.dtype, {{"format", "pt"}});
    const auto normal = [](const std::filesystem::path& path) {
      return std::filesystem::absolute(path).lexically_normal();
    };
    Json training = about;
    training["method"] = "adapt";
    training["exact_layers"] = shape_.exact_layers;
    training["trained_layers"] = recipe_.trained_layers;
    training["sources"] = sources_;
    training["lambda_base"] = options_.lambda_base;
    training["lambda_kl"] = options_.lambda_kl;
    training["split_share"] = recipe_.split_share;
    if (is_low_rank()) training["rank"] = recipe_.rank;
    Json manifest = {
        {"format", 2},
        {"base", normal(recipe_.pair.base).lexically_proximate(normal(final_directory))},
        {"auxiliary", kAuxiliary},
        {"shared_layers", bundle.shared_layers()},
        {"predictor", kPredictor},
        {"training", training}};
    if (is_low_rank()) manifest["adapted_layers"] = bundle.adapted_layers();
    write_plan(bundle.plan(), manifest);
    write_json(directory / kManifestName, manifest);
    if (checkpoint) return;
    unwrap(
        write_file_atomically(directory / "README.md",
                              model_card(recipe_.pair.base.filename().string(), bundle, training)));
  }

  [[nodiscard]] TensorMap read(const std::filesystem::path& directory) const override {
    const std::vector<int64_t> shared = adapted().shared_layers();
    TensorMap values =
        renumbered(is_low_rank() ? read_adapted_layers(directory / kAuxiliary, shared)
                                 : read_own_layers(directory / kAuxiliary, shared),
                   -shape_.start());
    values.merge(read_renumbered(directory / kPredictor, forecast_map_specs(base_.config, shape_),
                                 shape_.exact_layers));
    return values;
  }

  [[nodiscard]] double flops_per_token() const override {
    const int64_t tokens = recipe_.data.sequence_tokens;
    const auto whole = forward_flops(base_.config, tokens);
    const auto trained = forward_flops(layers_config_, tokens);
    double maps = 0;
    for (const auto& spec : forecast_map_specs(base_.config, shape_)) {
      if (spec.is_matrix()) maps += 2.0 * static_cast<double>(spec.size());
    }
    const double resumed = whole.layers * static_cast<double>(sources_.size()) /
                           static_cast<double>(base_.config.n_layers());
    return whole.layers + 3.0 * mean_read_share(recipe_) * (trained.layers + maps) +
           mean_base_share(recipe_) * (2.0 * resumed + 3.0 * whole.lm_head);
  }

  [[nodiscard]] const std::vector<int64_t>& sources() const { return sources_; }
  [[nodiscard]] double held_out_error() const { return held_out_error_; }

 private:
  [[nodiscard]] bool is_low_rank() const { return recipe_.rank > 0; }
  [[nodiscard]] AdaptedBundle adapted() const {
    return {base_.config, shape_, recipe_.trained_layers, sources_};
  }

  const AdaptRecipe& recipe_;
  ForecastShape shape_;
  ModelConfig layers_config_;
  std::vector<ParameterSpec> layer_specs_;  ///< of the trained layers, whole
  TensorMap given_;                         ///< the base's layers that they start as, frozen
  RopeTable rope_;
  KvpLossOptions options_;
  Model base_;
  std::vector<int64_t> sources_;
  double held_out_error_ = 0.0;
};

void check_layers(const AdaptRecipe& recipe, const ModelConfig& base) {
  const int64_t layers = base.n_layers();
  if (recipe.exact_layers >= layers) {
    throw TrainError(
        fmt::format("adapt.exact_layers: expected fewer than the base's {} layers", layers));
  }
  for (const int64_t layer : recipe.trained_layers) {
    if (layer >= 0 && layer < layers) continue;
    throw TrainError(fmt::format("adapt.trained_layers: layer {}: the base has layers 0 to {}",
                                 layer, layers - 1));
  }
}

}  // namespace

TrainOutcome train_adapt(const AdaptRecipe& recipe, const TrainControl& control) {
  const WindowSampler sampler(recipe.data, recipe.run.seed);
  check_model(recipe.pair.base, recipe.data, sampler.index());
  const LoadedModel base = load_model(recipe.pair.base);
  check_layers(recipe, base.config);
  AdaptObjective objective(recipe, base, control.device);
  const bool resumed = control.resume && std::filesystem::exists(recipe.output.checkpoint);
  const TensorMap values =
      resumed ? objective.start_resumed() : objective.start(base.values, sampler, control.device);
  FlatParameters parameters(objective.specs(), values, control.device,
                            control.parameters(recipe.run));
  if (!control.quiet) {
    fmt::print(stderr, "adapt   {} exact layers, sources {}  closed form leaves {:.4f}  on {}\n",
               recipe.exact_layers, fmt::join(objective.sources(), " "), objective.held_out_error(),
               control.device.str());
  }
  return train(objective, parameters,
               {recipe.run, recipe.optimizer, recipe.output, sampler, control});
}

}  // namespace kvcast::train
