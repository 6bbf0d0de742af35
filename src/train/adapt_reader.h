// What reads the prompt for the maps of `adapt`, and is trained with them: layers that go on from
// the base's own first ones, or an auxiliary that is a model.
#pragma once

#include <memory>

#include "model/forecast_plan.h"
#include "train/data/recipe.h"
#include "train/forecast.h"
#include "train/model_files.h"

namespace kvcast::train {

inline constexpr const char* kAdaptAuxiliary = "auxiliary";  ///< its directory in a bundle

class TrainedReader {
 public:
  virtual ~TrainedReader() = default;
  /// The shape of what is trained.
  [[nodiscard]] virtual const ModelConfig& config() const = 0;
  /// The trained tensors besides the maps; their names are not those of maps.
  [[nodiscard]] virtual std::vector<ParameterSpec> specs() const = 0;
  /// What they start as, f32 on the CPU; and the reader that this is.
  [[nodiscard]] virtual TensorMap start() const = 0;
  [[nodiscard]] virtual Model start_reader() const = 0;
  /// The reader that trained values are; differentiable in them.
  [[nodiscard]] virtual Model bind(const TensorMap& views) const = 0;

  /// What a bundle's auxiliary is: the layers that run and one more, of which nothing but what
  /// enters it is read.
  [[nodiscard]] virtual ModelConfig stored_config() const = 0;
  /// `sources`: for each base layer after the exact ones.
  [[nodiscard]] virtual ForecastPlan plan(const std::vector<int64_t>& sources) const = 0;
  /// Maps of the exact layers, where the bundle needs them; by the predictor file's names.
  [[nodiscard]] virtual TensorMap exact_maps() const { return {}; }
  /// Writes the auxiliary into the bundle's directory, and its keys of kvcast.json.
  virtual void write(const std::filesystem::path& bundle, const TensorMap& values,
                     const StoreOptions& store, Json& manifest) const = 0;
  /// The inverse, of a bundle with f32 or bf16 weights.
  [[nodiscard]] virtual TensorMap read(const std::filesystem::path& bundle) const = 0;
  /// A model that reads as it is: the bundle names it, write() and read() have nothing to do.
  [[nodiscard]] virtual std::filesystem::path given() const { return {}; }
  /// What a reader that answers itself makes of tokens [B, T], behind its final norm, without
  /// gradients, and its head; undefined for others.
  [[nodiscard]] virtual Tensor answering_hidden(const Tensor& /*tokens*/) const { return {}; }
  [[nodiscard]] virtual Tensor lm_head() const { return {}; }
  /// Half a sentence for the bundle's README.md.
  [[nodiscard]] virtual std::string description() const = 0;
};

/// The reader that the recipe asks for. `base` is the base as it runs, on the run's device; its
/// weights in f32 are `values`. Throws TrainError if the recipe does not fit the base.
std::unique_ptr<TrainedReader> make_reader(const AdaptRecipe& recipe, const Model& base,
                                           const TensorMap& values);

}  // namespace kvcast::train
