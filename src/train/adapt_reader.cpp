#include "train/adapt_reader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <utility>

#include "model/bundle.h"
#include "model/checkpoint.h"
#include "train/data/error.h"
#include "train/low_rank.h"

namespace kvcast::train {
namespace {

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

/// Layers that go on from the base's first ones. A bundle's auxiliary is then the base's first
/// layers, the trained ones, and a last one of the base's (docs/FORMAT.md): the base's exact layers
/// have maps too, their own projections.
class BasesLayers : public TrainedReader {
 public:
  BasesLayers(const AdaptRecipe& recipe, const Model& base, const TensorMap& values)
      : recipe_(recipe),
        shape_{recipe.exact_layers, recipe.sink_tokens},
        base_(base),
        config_(config_of_layers(base.config, recipe.trained_layers)),
        layer_specs_(layer_parameter_specs(config_)),
        start_(copied_layers(values, recipe.trained_layers)),
        given_(
            frozen(start_, base.token_embeddings.scalar_type(), base.token_embeddings.device())) {
    for (int64_t i = 0; i < shape_.start(); ++i) shared_.push_back(i);
    shared_.insert(shared_.end(), recipe.trained_layers.size(), kOwnLayer);
    shared_.push_back(std::min(recipe.trained_layers.back() + 1, base.config.n_layers() - 1));
  }

  [[nodiscard]] const ModelConfig& config() const override { return config_; }
  [[nodiscard]] std::vector<ParameterSpec> specs() const override {
    return is_low_rank() ? low_rank_specs(layer_specs_, recipe_.rank) : layer_specs_;
  }
  [[nodiscard]] TensorMap start() const override {
    return is_low_rank() ? low_rank_start(layer_specs_, start_, recipe_.rank, recipe_.run.seed)
                         : start_;
  }
  [[nodiscard]] Model start_reader() const override {
    return bind_layers(config_, base_.rope, given_, "");
  }
  [[nodiscard]] Model bind(const TensorMap& views) const override {
    const TensorMap merged =
        is_low_rank() ? merged_layers(layer_specs_, given_, views) : TensorMap();
    return bind_layers(config_, base_.rope, is_low_rank() ? merged : views, "");
  }

  [[nodiscard]] ModelConfig stored_config() const override {
    std::vector<int64_t> kept = adapted_layers();
    for (size_t i = 0; i < kept.size(); ++i) {
      if (shared_[i] != kOwnLayer) kept[i] = shared_[i];
    }
    return config_of_layers(base_.config, kept);
  }
  [[nodiscard]] ForecastPlan plan(const std::vector<int64_t>& sources) const override {
    ForecastPlan plan;
    plan.sink_tokens = shape_.sink_tokens;
    for (int64_t i = 0; i < base_.config.n_layers(); ++i) {
      const int64_t n = i - shape_.exact_layers;
      ForecastInput input{.layer = i, .kind = InputKind::kResidual};
      if (n >= 0) {
        input.layer = shape_.start() + sources.at(static_cast<size_t>(n));
        for (const int64_t each : recipe_.beside) input.earlier.push_back(shape_.start() + each);
      }
      plan.inputs.push_back(std::move(input));
    }
    return plan;
  }

  /// Keys and values from the residual stream over its RMS: the layer's own projections with its
  /// norm's weights in them.
  [[nodiscard]] TensorMap exact_maps() const override {
    TensorMap maps;
    for (int64_t i = 0; i < shape_.exact_layers; ++i) {
      const LayerTensors& layer = base_.layers[static_cast<size_t>(i)];
      int64_t row = base_.config.query_width(i);
      for (const char* kind : {"key_transforms", "value_transforms"}) {
        const int64_t width = base_.config.kv_width(i);
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

  void write(const std::filesystem::path& bundle, const TensorMap& values,
             const StoreOptions& store, Json& manifest) const override {
    const TensorMap own = renumbered(values, shape_.start());
    const std::filesystem::path directory = bundle / kAdaptAuxiliary;
    if (is_low_rank()) {
      write_adapted_layers(directory, stored_config(), shared_, own, store.dtype);
      manifest["adapted_layers"] = adapted_layers();
      manifest["training"]["rank"] = recipe_.rank;
    } else {
      write_own_layers(directory, stored_config(), shared_, own, store);
    }
    manifest["shared_layers"] = shared_;
    manifest["training"]["trained_layers"] = recipe_.trained_layers;
  }
  [[nodiscard]] TensorMap read(const std::filesystem::path& bundle) const override {
    const std::filesystem::path directory = bundle / kAdaptAuxiliary;
    return renumbered(is_low_rank() ? read_adapted_layers(directory, shared_)
                                    : read_own_layers(directory, shared_),
                      -shape_.start());
  }
  [[nodiscard]] std::string description() const override {
    return fmt::format("its own first {} layers and copies of layers {}, trained", shape_.start(),
                       fmt::join(recipe_.trained_layers, ", "));
  }

 private:
  [[nodiscard]] bool is_low_rank() const { return recipe_.rank > 0; }
  /// Of the auxiliary's own layers, which of the base's they started as.
  [[nodiscard]] std::vector<int64_t> adapted_layers() const {
    std::vector<int64_t> adapted(shared_.size(), kOwnLayer);
    for (size_t i = 0; i < recipe_.trained_layers.size(); ++i) {
      adapted[static_cast<size_t>(shape_.start()) + i] = recipe_.trained_layers[i];
    }
    return adapted;
  }
  /// "layers.{n}.NAME" with other numbers.
  static TensorMap renumbered(const TensorMap& values, int64_t offset) {
    TensorMap moved;
    for (const auto& [name, value] : values) {
      const size_t first = name.find('.') + 1, end = name.find('.', first);
      const int64_t number = std::stoll(name.substr(first, end - first));
      moved.emplace(fmt::format("layers.{}{}", number + offset, name.substr(end)), value);
    }
    return moved;
  }

  const AdaptRecipe& recipe_;
  ForecastShape shape_;
  const Model& base_;
  ModelConfig config_;
  std::vector<ParameterSpec> layer_specs_;  ///< of the trained layers, whole
  TensorMap start_, given_;                 ///< the base's layers that they start as
  std::vector<int64_t> shared_;
};

/// An auxiliary that reads the tokens itself; of its last layer nothing but what enters it is read:
/// it is not trained, unless the auxiliary's own answers count. The base's exact layers run on the
/// prompt besides.
class WholeAuxiliary : public TrainedReader {
 public:
  WholeAuxiliary(const AdaptRecipe& recipe, const Model& base)
      : recipe_(recipe),
        base_(base),
        answers_(recipe.lambda_auxiliary > 0.0),
        start_(load_model(recipe.pair.auxiliary, {.tokens = base.config.vocab_size})),
        config_(start_.config),
        last_(fmt::format("layers.{}.", start_.config.n_layers() - 1)),
        rope_(
            rope_table(start_.config, recipe.data.sequence_tokens, base.token_embeddings.device())),
        given_(frozen(start_.values, base.token_embeddings.scalar_type(),
                      base.token_embeddings.device())) {
    read_config_ = config_;
    read_config_.layers.pop_back();
    if (!answers_) config_ = read_config_;
  }

  [[nodiscard]] const ModelConfig& config() const override { return config_; }
  [[nodiscard]] std::vector<ParameterSpec> specs() const override {
    return recipe_.train_auxiliary ? model_parameter_specs(config_) : std::vector<ParameterSpec>();
  }
  [[nodiscard]] TensorMap start() const override {
    return recipe_.train_auxiliary ? trained(start_.values) : TensorMap();
  }
  [[nodiscard]] Model start_reader() const override {
    return bind_model(read_config_, rope_, given_, "");
  }
  [[nodiscard]] Model bind(const TensorMap& views) const override {
    return bind_model(config_, rope_, recipe_.train_auxiliary ? views : given_, "");
  }

  [[nodiscard]] ModelConfig stored_config() const override { return start_.config; }
  [[nodiscard]] ForecastPlan plan(const std::vector<int64_t>& sources) const override {
    ForecastPlan plan;
    plan.sink_tokens = recipe_.sink_tokens;
    plan.exact_layers = recipe_.exact_layers;
    for (int64_t i = 0; i < base_.config.n_layers(); ++i) {
      const int64_t n = i - recipe_.exact_layers;
      ForecastInput input{.kind = InputKind::kResidual};
      if (n >= 0) {
        input.layer = sources.at(static_cast<size_t>(n));
        input.earlier = recipe_.beside;
      }
      plan.inputs.push_back(std::move(input));
    }
    return plan;
  }
  void write(const std::filesystem::path& bundle, const TensorMap& values,
             const StoreOptions& store, Json& /*manifest*/) const override {
    if (!recipe_.train_auxiliary) return;
    TensorMap stored = values;
    if (!answers_) add_with_prefix(stored, last_, without_prefix(start_.values, last_));
    write_model(bundle / kAdaptAuxiliary, start_.config, stored, store, recipe_.pair.base);
  }
  [[nodiscard]] TensorMap read(const std::filesystem::path& bundle) const override {
    if (!recipe_.train_auxiliary) return {};
    return trained(load_model(bundle / kAdaptAuxiliary).values);
  }
  [[nodiscard]] std::filesystem::path given() const override {
    return recipe_.train_auxiliary ? std::filesystem::path() : recipe_.pair.auxiliary;
  }
  [[nodiscard]] Tensor answering_hidden(const Tensor& tokens) const override {
    const at::NoGradGuard no_grad;
    const Model whole = whole_model();
    return final_norm(whole,
                      run_layers(whole, embed(whole, tokens), {.last = start_.config.n_layers()}));
  }
  [[nodiscard]] Tensor lm_head() const override { return whole_model().lm_head; }
  [[nodiscard]] std::string description() const override {
    return fmt::format("an auxiliary of {} layers of width {}, {}", read_config_.n_layers(),
                       config_.model_dim, recipe_.train_auxiliary ? "trained" : "as it is");
  }

 private:
  [[nodiscard]] Model whole_model() const { return bind_model(start_.config, rope_, given_, ""); }
  /// The tensors that are trained.
  [[nodiscard]] TensorMap trained(TensorMap values) const {
    if (answers_) return values;
    std::erase_if(values, [&](const auto& value) { return value.first.starts_with(last_); });
    return values;
  }

  const AdaptRecipe& recipe_;
  const Model& base_;
  bool answers_;  ///< by itself too: its last layer is trained with the others
  LoadedModel start_;
  ModelConfig config_;       ///< of the layers that are trained
  ModelConfig read_config_;  ///< of those that maps read
  std::string last_;         ///< prefix of the last layer's names
  RopeTable rope_;
  TensorMap given_;  ///< as it starts, on the device
};

/// `last`: the reader's last stream, which those beside another come before.
void check_beside(const AdaptRecipe& recipe, int64_t last) {
  if (recipe.beside.empty() || recipe.beside.back() < last) return;
  throw TrainError(fmt::format("adapt.beside: stream {}: expected numbers below {}, the last one's",
                               recipe.beside.back(), last));
}

}  // namespace

std::unique_ptr<TrainedReader> make_reader(const AdaptRecipe& recipe, const Model& base,
                                           const TensorMap& values) {
  const int64_t layers = base.config.n_layers();
  if (recipe.exact_layers >= layers) {
    throw TrainError(
        fmt::format("adapt.exact_layers: expected fewer than the base's {} layers", layers));
  }
  if (!recipe.pair.auxiliary.empty()) {
    if (unwrap(open_checkpoint(recipe.pair.auxiliary)).config.n_layers() < 2) {
      throw TrainError("adapt.auxiliary: expected a model of two layers or more");
    }
    auto reader = std::make_unique<WholeAuxiliary>(recipe, base);
    check_beside(recipe, reader->stored_config().n_layers() - 1);
    return reader;
  }
  check_beside(recipe, std::ssize(recipe.trained_layers));
  for (const int64_t layer : recipe.trained_layers) {
    if (layer >= 0 && layer < layers) continue;
    throw TrainError(fmt::format("adapt.trained_layers: layer {}: the base has layers 0 to {}",
                                 layer, layers - 1));
  }
  return std::make_unique<BasesLayers>(recipe, base, values);
}

}  // namespace kvcast::train
