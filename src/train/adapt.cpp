#include "train/adapt.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string>
#include <utility>

#include "base/mapped_file.h"
#include "model/bundle.h"
#include "model/flops.h"
#include "model/plan_json.h"
#include "train/adapt_reader.h"
#include "train/data/error.h"
#include "train/flops.h"
#include "train/forecast_fit.h"
#include "train/kvp_pass.h"
#include "train/preflight.h"
#include "train/sequence_splits.h"
#include "train/tensor_io.h"

namespace kvcast::train {
namespace {

constexpr const char* kPredictor = "predictor.safetensors";

/// "KIND.{n}.NAME" by other numbers of base layers.
std::string renumbered(const std::string& name, int64_t offset) {
  const size_t first = name.find('.') + 1, end = name.find('.', first);
  const int64_t number = std::stoll(name.substr(first, end - first));
  return fmt::format("{}{}{}", name.substr(0, first), number + offset, name.substr(end));
}
TensorMap renumbered(const TensorMap& maps, int64_t offset) {
  TensorMap moved;
  for (const auto& [name, value] : maps) moved.emplace(renumbered(name, offset), value);
  return moved;
}

bool is_map(const std::string& name) {
  return name.starts_with("key_transforms.") || name.starts_with("value_transforms.");
}

/// README.md of the bundle: what it is, how it was made, how to see what it keeps.
std::string model_card(const AdaptRecipe& recipe, const ModelConfig& base,
                       const TrainedReader& reader, const ForecastPlan& plan,
                       const Json& training) {
  constexpr int64_t kTokens[] = {128, 512, 2048};
  std::string reductions;
  for (const int64_t tokens : kTokens) {
    const double reduction = exact_cost(base, tokens).total() /
                             kv_prediction_cost(base, reader.stored_config(), plan, tokens).total();
    reductions += fmt::format("{}{:.2f} at {}", reductions.empty() ? "" : ", ", reduction, tokens);
  }
  return fmt::format(
      R"(# A forecast for {0}

Lets {0} answer sooner: {1}, read the prompt; maps from
what leaves them give the keys and values of the other layers. Answers are the base's own.

| | |
|---|---|
| operations to the first token, times fewer, by prompt tokens | {2} |
| trained on | {3} tokens, {4} steps of {5}, sequences of {6} |
| last training losses | KL {7:.4f} from the exact distribution, cross-entropy {8:.4f} |

What it keeps on your text and chats:

    kvcast eval . --task nll --data TEXT --prefill exact,kv-prediction,kv-prediction:tail=16
    kvcast eval . --task chats --data CHATS.jsonl --prefill exact,kv-prediction,kv-prediction:tail=16
)",
      recipe.pair.base.filename().string(), reader.description(), reductions,
      training.at("tokens").get<int64_t>(), training.at("steps").get<int64_t>(),
      training.at("tokens_per_step").get<int64_t>(), training.at("sequence_tokens").get<int64_t>(),
      training.at("final_training_losses").value("kl", 0.0),
      training.at("final_training_losses").value("base", 0.0));
}

class AdaptObjective : public Objective {
 public:
  AdaptObjective(const AdaptRecipe& recipe, const LoadedModel& base, const at::Device& device)
      : recipe_(recipe),
        shape_{recipe.exact_layers, recipe.sink_tokens, recipe.beside},
        rope_(rope_table(base.config, recipe.data.sequence_tokens, device)),
        weights_(frozen(base.values,
                        recipe.run.precision == Precision::kBF16 ? at::kBFloat16 : at::kFloat,
                        device)),
        base_(bind_model(base.config, rope_, weights_, "")),
        reader_(make_reader(recipe, base_, base.values)),
        map_specs_(forecast_map_specs(base.config, shape_, map_width(reader_->config(), shape_))) {
    if (recipe.mix > 0.0) both_heads_ = at::cat({base_.lm_head, reader_->lm_head()}, 1);
    options_.lambda_base = recipe.lambda_base;
    options_.lambda_kl = recipe.lambda_kl;
    options_.lambda_auxiliary = recipe.lambda_auxiliary;
    options_.cross_entropy.z_loss = recipe.optimizer.z_loss;
  }

  [[nodiscard]] std::vector<ParameterSpec> specs() const {
    std::vector<ParameterSpec> specs = reader_->specs();
    specs.insert(specs.end(), map_specs_.begin(), map_specs_.end());
    return specs;
  }

  /// The reader as it is given, and the maps in closed form.
  TensorMap start(const WindowSampler& sampler, const at::Device& device) {
    ForecastFit fit =
        fit_forecast(base_, reader_->start_reader(), shape_, recipe_.ridge, sampler, device);
    sources_ = fit.sources;
    held_out_error_ = fit.held_out_error;
    TensorMap values = std::move(fit.maps);
    add_with_prefix(values, "", reader_->start());
    return values;
  }
  /// What an earlier run left: its checkpoint, or a bundle to go on from.
  TensorMap start_from(const std::filesystem::path& bundle) {
    const Json manifest = unwrap(read_json_object(bundle / kManifestName));
    const Json training = manifest.value("training", Json::object());
    if (training.value("method", "") != "adapt" ||
        training.value("exact_layers", int64_t{0}) != recipe_.exact_layers ||
        training.value("trained_layers", std::vector<int64_t>()) != recipe_.trained_layers ||
        training.value("beside", std::vector<int64_t>()) != recipe_.beside) {
      throw TrainError(
          fmt::format("{}: expected a bundle that adapt wrote with the same exact_layers, "
                      "trained_layers, beside and auxiliary",
                      bundle.string()));
    }
    sources_ = training.at("sources").get<std::vector<int64_t>>();
    return read(bundle);
  }

  ObjectiveLoss loss(const TensorMap& views, const MicroBatch& batch) override {
    const Forecaster forecaster{reader_->bind(views), bind_predictor(sources_, views, "")};
    SequenceSplits splits;
    if (recipe_.sequence_splits) {
      splits = {sequence_splits(recipe_, batch.step, batch.input_ids), recipe_.prefix_weight};
    }
    Companion companion{.lm_head = both_heads_, .share = recipe_.mix};
    if (recipe_.mix > 0.0) companion.hidden = reader_->answering_hidden(batch.input_ids);
    const ForecastLosses losses =
        forecast_loss(base_, shape_, forecaster, batch.input_ids, batch.targets, options_,
                      kvp_pass_at(recipe_, batch.step), splits, companion);
    ObjectiveLoss reported{
        losses.total,
        losses.base.cross_entropy,
        {{"loss", losses.total}, {"base", losses.base.cross_entropy}, {"kl", losses.kl}}};
    if (losses.auxiliary.total.defined()) {
      reported.terms.emplace_back("auxiliary", losses.auxiliary.cross_entropy);
    }
    return reported;
  }

  void write(const std::filesystem::path& directory, const std::filesystem::path& final_directory,
             const TensorMap& values, const StoreOptions& store, bool checkpoint,
             const Json& about) const override {
    TensorMap own, maps;
    for (const auto& [name, value] : values) (is_map(name) ? maps : own).emplace(name, value);
    TensorMap all_maps = reader_->exact_maps();
    all_maps.merge(renumbered(maps, shape_.exact_layers));
    write_tensors(directory / kPredictor, all_maps, store.dtype, {{"format", "pt"}});
    const auto beside = [&](const std::filesystem::path& model) {
      const auto normal = [](const std::filesystem::path& path) {
        return std::filesystem::absolute(path).lexically_normal();
      };
      return normal(model).lexically_proximate(normal(final_directory)).string();
    };
    Json training = about;
    training["method"] = "adapt";
    training["exact_layers"] = shape_.exact_layers;
    training["sources"] = sources_;
    if (!recipe_.beside.empty()) training["beside"] = recipe_.beside;
    training["lambda_base"] = options_.lambda_base;
    training["lambda_kl"] = options_.lambda_kl;
    if (recipe_.lambda_auxiliary > 0.0) training["lambda_auxiliary"] = recipe_.lambda_auxiliary;
    if (recipe_.mix > 0.0) training["mix"] = recipe_.mix;
    if (recipe_.sequence_splits) {
      training["splits"] = "sequence";
      training["prefix_weight"] = recipe_.prefix_weight;
      training["prompt_end_share"] = recipe_.prompt_end.empty() ? 0.0 : recipe_.prompt_end_share;
    } else {
      training["split_share"] = recipe_.split_share;
    }
    Json manifest = {
        {"format", 2},
        {"base", beside(recipe_.pair.base)},
        {"auxiliary", reader_->given().empty() ? kAdaptAuxiliary : beside(reader_->given())},
        {"predictor", kPredictor},
        {"training", training}};
    reader_->write(directory, own, store, manifest);
    const ForecastPlan plan = reader_->plan(sources_);
    write_plan(plan, manifest);
    write_json(directory / kManifestName, manifest);
    if (checkpoint) return;
    unwrap(write_file_atomically(directory / "README.md",
                                 model_card(recipe_, base_.config, *reader_, plan, training)));
  }

  [[nodiscard]] TensorMap read(const std::filesystem::path& directory) const override {
    TensorMap values = reader_->read(directory);
    std::vector<ParameterSpec> stored = map_specs_;
    for (ParameterSpec& spec : stored) spec.name = renumbered(spec.name, shape_.exact_layers);
    values.merge(
        renumbered(read_predictor(directory / kPredictor, base_.config, reader_->stored_config(),
                                  reader_->plan(sources_), stored),
                   -shape_.exact_layers));
    return values;
  }

  [[nodiscard]] double flops_per_token() const override {
    const int64_t tokens = recipe_.data.sequence_tokens;
    const auto whole = forward_flops(base_.config, tokens);
    const auto trained = forward_flops(reader_->config(), tokens);
    double maps = 0;
    for (const auto& spec : map_specs_) {
      if (spec.is_matrix()) maps += 2.0 * static_cast<double>(spec.size());
    }
    const double resumed = whole.layers * static_cast<double>(sources_.size()) /
                           static_cast<double>(base_.config.n_layers());
    const double read = recipe_.sequence_splits ? 1.0 : mean_read_share(recipe_);
    const double run = recipe_.sequence_splits ? 1.0 : mean_base_share(recipe_);
    const double reader = reader_->specs().empty() ? 1.0 : 3.0;
    const double answers = recipe_.lambda_auxiliary > 0.0 ? 3.0 * trained.lm_head : 0.0;
    return whole.layers + read * (reader * trained.layers + answers + 3.0 * maps) +
           run * (2.0 * resumed + 3.0 * whole.lm_head);
  }

  [[nodiscard]] const std::vector<int64_t>& sources() const { return sources_; }
  [[nodiscard]] double held_out_error() const { return held_out_error_; }

 private:
  const AdaptRecipe& recipe_;
  ForecastShape shape_;
  RopeTable rope_;
  TensorMap weights_;  ///< the base's, on the device
  Model base_;
  std::unique_ptr<TrainedReader> reader_;
  std::vector<ParameterSpec> map_specs_;
  KvpLossOptions options_;
  Tensor both_heads_;  ///< Companion::lm_head
  std::vector<int64_t> sources_;
  double held_out_error_ = 0.0;
};

}  // namespace

TrainOutcome train_adapt(const AdaptRecipe& recipe, const TrainControl& control) {
  const WindowSampler sampler(recipe.data, recipe.run.seed);
  if (recipe.pair.auxiliary.empty()) {
    check_model(recipe.pair.base, recipe.data, sampler.index());
  } else {
    check_pair(recipe.pair, recipe.data, sampler.index());
  }
  const LoadedModel base = load_model(recipe.pair.base);
  AdaptObjective objective(recipe, base, control.device);
  const bool resumed = control.resume && std::filesystem::exists(recipe.output.checkpoint);
  TensorMap values;
  if (resumed) {
    values = objective.start_from(recipe.output.checkpoint);
  } else if (!recipe.start.empty()) {
    values = objective.start_from(recipe.start);
  } else {
    values = objective.start(sampler, control.device);
  }
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
