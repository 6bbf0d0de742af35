// Model directories and bundles (docs/FORMAT.md) as the trainer reads and writes them.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/atomic_directory.h"
#include "io/json.h"
#include "model/bundle.h"
#include "train/data/recipe.h"
#include "train/data/shard_index.h"
#include "train/model.h"
#include "train/predictor.h"
#include "train/tensor_io.h"

namespace kvcast::train {

/// A model's config and weights, named as model_parameter_specs names them.
struct LoadedModel {
  ModelConfig config;
  TensorMap values;
};

/// Where its weights go, one after another: the host never holds more than one of them besides.
struct LoadOptions {
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  /// Only these, and what is of no layer; none: all.
  std::optional<std::vector<int64_t>> layers = std::nullopt;
  int64_t tokens = 0;  ///< embeddings of so many tokens; 0: all
};
LoadedModel load_model(const std::filesystem::path& path, const LoadOptions& options = {});

/// A base and an auxiliary of one tokenizer, both with the tokens that both have embeddings for.
struct LoadedModels {
  LoadedModel base, auxiliary;
};
LoadedModels load_models(const std::filesystem::path& base, const std::filesystem::path& auxiliary,
                         const LoadOptions& base_options = {});

/// A bundle in memory; the predictor's names as predictor_parameter_specs has them.
struct LoadedBundle {
  BundleManifest manifest;
  LoadedModel base, auxiliary;
  TensorMap predictor;
};
LoadedBundle load_bundle(const std::filesystem::path& directory);
/// The tensors that `specs` name of a predictor's file, which `kvcast convert` may have packed; in
/// f32, on the CPU. Throws TrainError naming file and tensor.
TensorMap read_predictor(const std::filesystem::path& path, const ModelConfig& base,
                         const ModelConfig& auxiliary, const ForecastPlan& plan,
                         const std::vector<ParameterSpec>& specs);

/// How weights are stored.
struct StoreOptions {
  DType dtype = DType::kF32;               ///< or kBF16
  int64_t shard_bytes = int64_t{4} << 30;  ///< of one file; models larger than this get an index
};

StoreOptions stored_as(const OutputRecipe& output);

/// Writes config.json and model.safetensors (or shards of it), under the family's names, into an
/// existing directory, and copies the companions (tokenizer, chat template, ...) of the model
/// `companions_from` (may be empty: none).
void write_model(const std::filesystem::path& directory, const ModelConfig& config,
                 const TensorMap& values, const StoreOptions& store,
                 const std::filesystem::path& companions_from);

/// Model directories that hold some layers alone: those of an auxiliary that are not its base's
/// (BundleManifest::shared_layers). `values` has them as layers.{i}, numbered as in `config`.
void write_own_layers(const std::filesystem::path& directory, const ModelConfig& config,
                      const std::vector<int64_t>& shared_layers, const TensorMap& values,
                      const StoreOptions& store);
/// The same of layers that differ from the base's by low rank (model/adapted_layers.h), `values`
/// named as low_rank_specs names them.
void write_adapted_layers(const std::filesystem::path& directory, const ModelConfig& config,
                          const std::vector<int64_t>& shared_layers, const TensorMap& values,
                          DType dtype);
TensorMap read_adapted_layers(const std::filesystem::path& directory,
                              const std::vector<int64_t>& shared_layers);
/// f32, on the CPU.
TensorMap read_own_layers(const std::filesystem::path& directory,
                          const std::vector<int64_t>& shared_layers);

/// kvcast.json with the contract's keys and `extra` ones (how it was trained).
struct ManifestToWrite {
  std::string base = "base", auxiliary = "auxiliary", predictor = "predictor.safetensors";
  std::vector<int64_t> layer_map;
  Json extra = Json::object();
};
void write_manifest(const std::filesystem::path& directory, const ManifestToWrite& manifest);

/// Indented, atomically.
void write_json(const std::filesystem::path& file, const Json& json);

/// Throws TrainError unless a model of this shape can be trained on these shards.
void check_fits(const ModelConfig& config, const DataRecipe& data, const ShardIndex& index);

/// The subset of `values` whose names begin with `prefix`, without it.
TensorMap without_prefix(const TensorMap& values, std::string_view prefix);
/// `into` gets every tensor of `values` under prefix + name.
void add_with_prefix(TensorMap& into, std::string_view prefix, const TensorMap& values);

/// All tensors in `dtype` on `device`: a frozen model's weights.
TensorMap frozen(const TensorMap& values, at::ScalarType dtype, const at::Device& device);

/// kvcast::AtomicDirectory, whose failures are exceptions here.
class AtomicDirectory {
 public:
  explicit AtomicDirectory(const std::filesystem::path& path);
  [[nodiscard]] const std::filesystem::path& staging() const { return directory_->staging(); }
  void commit();

 private:
  std::unique_ptr<kvcast::AtomicDirectory> directory_;
};

}  // namespace kvcast::train
