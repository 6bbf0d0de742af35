#include "train/model_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "base/mapped_file.h"
#include "model/adapted_layers.h"
#include "model/checkpoint.h"
#include "model/family.h"
#include "model/weight_reader.h"
#include "model/weights.h"
#include "prefill/predictor.h"
#include "train/data/error.h"

namespace kvcast::train {

namespace fs = std::filesystem;

namespace {

LoadedModel load_checkpoint(const Checkpoint& checkpoint, const LoadOptions& options) {
  const auto reader =
      unwrap(WeightReader::open(checkpoint.weights, WeightType::kF32, at::get_num_threads()));
  LoadedModel model{.config = checkpoint.config, .values = {}};
  for (const auto& entry : tensor_layout(model.config, kTrainedForm, checkpoint.form)) {
    const auto& layers = options.layers;
    if (layers && entry.layer >= 0 && std::ranges::count(*layers, entry.layer) == 0) continue;
    std::vector<float> values = unwrap(reader.floats(entry));
    const Tensor read = at::from_blob(values.data(), entry.shape(), at::kFloat);
    model.values.emplace(entry.name, read.to(options.device, options.dtype, false, /*copy=*/true));
  }
  return model;
}

}  // namespace

LoadedModel load_model(const fs::path& path, const LoadOptions& options) {
  Checkpoint checkpoint = unwrap(open_checkpoint(path));
  if (options.tokens > 0) checkpoint.config.use_tokens(options.tokens);
  return load_checkpoint(checkpoint, options);
}

LoadedModels load_models(const fs::path& base, const fs::path& auxiliary,
                         const LoadOptions& base_options) {
  Checkpoint first = unwrap(open_checkpoint(base)), second = unwrap(open_checkpoint(auxiliary));
  const int64_t tokens = std::min(first.config.vocab_size, second.config.vocab_size);
  first.config.use_tokens(tokens);
  second.config.use_tokens(tokens);
  return {load_checkpoint(first, base_options), load_checkpoint(second, {})};
}

TensorMap read_predictor(const fs::path& path, const ModelConfig& base,
                         const ModelConfig& auxiliary, const ForecastPlan& plan,
                         const std::vector<ParameterSpec>& specs) {
  const auto file = unwrap(Safetensors::open(path));
  if (!is_packed(*file)) return read_parameters(*file, specs);
  const int threads = at::get_num_threads();
  const auto predictor =
      unwrap(kvcast::Predictor::load(path, base, auxiliary, plan, WeightType::kF32, threads));
  return read_parameters(predictor->unpacked(threads), specs);
}

LoadedBundle load_bundle(const fs::path& directory) {
  LoadedBundle bundle{.manifest = unwrap(read_bundle_manifest(directory)),
                      .base = {},
                      .auxiliary = {},
                      .predictor = {}};
  if (bundle.manifest.plan.layer_map().empty()) {
    throw TrainError(
        fmt::format("{}: a bundle of format 2: expected a layer map (format 1), as kvp and ridge "
                    "write it; `kvcast eval --task nll` scores any bundle",
                    directory.string()));
  }
  auto models = load_models(bundle.manifest.base, bundle.manifest.auxiliary);
  bundle.base = std::move(models.base);
  bundle.auxiliary = std::move(models.auxiliary);
  const ModelConfig &base = bundle.base.config, &auxiliary = bundle.auxiliary.config;
  bundle.predictor =
      read_predictor(bundle.manifest.predictor, base, auxiliary, bundle.manifest.plan,
                     predictor_parameter_specs(base, auxiliary, bundle.manifest.plan.layer_map()));
  return bundle;
}

StoreOptions stored_as(const OutputRecipe& output) {
  return {output.dtype == Precision::kBF16 ? DType::kBF16 : DType::kF32, output.shard_bytes};
}

namespace {

/// The tensors of `layout` that `wanted` takes, under the family's names, and the config.
void write_tensors_of(const fs::path& directory, const ModelConfig& config, const TensorMap& values,
                      const StoreOptions& store,
                      const std::function<bool(const LayoutEntry&)>& wanted) {
  fs::create_directories(directory);
  TensorMap stored;
  for (const auto& entry : tensor_layout(config, family_of(config).checkpoint, kTrainedForm)) {
    if (!wanted(entry)) continue;
    std::vector<Tensor> parts;
    for (const TensorPart& part : entry.parts) {
      parts.push_back(values.at(part.name).narrow(0, part.first_row, part.rows));
    }
    stored.emplace(entry.name, parts.size() == 1 ? parts.front() : at::cat(parts));
  }
  write_sharded_tensors(directory, "model", stored, store.dtype, store.shard_bytes,
                        {{"format", "pt"}});
  unwrap(write_file_atomically(directory / "config.json", to_config_json(config)));
}

bool is_own(const LayoutEntry& entry, const std::vector<int64_t>& shared_layers) {
  return entry.layer >= 0 && shared_layers.at(static_cast<size_t>(entry.layer)) == kOwnLayer;
}

}  // namespace

void write_model(const fs::path& directory, const ModelConfig& config, const TensorMap& values,
                 const StoreOptions& store, const fs::path& companions_from) {
  write_tensors_of(directory, config, values, store, [](const auto&) { return true; });
  if (!companions_from.empty()) unwrap(copy_companions(companions_from, directory));
}

void write_own_layers(const fs::path& directory, const ModelConfig& config,
                      const std::vector<int64_t>& shared_layers, const TensorMap& values,
                      const StoreOptions& store) {
  write_tensors_of(directory, config, values, store,
                   [&](const LayoutEntry& entry) { return is_own(entry, shared_layers); });
}

// Queries, keys and values, which the trainer changes by one product, are apart in files: each has
// its rows of NAME.up and all of NAME.down.
void write_adapted_layers(const fs::path& directory, const ModelConfig& config,
                          const std::vector<int64_t>& shared_layers, const TensorMap& values,
                          DType dtype) {
  fs::create_directories(directory);
  TensorMap stored;
  for (const auto& entry : tensor_layout(config, kPackedForm, kTrainedForm)) {
    if (!is_own(entry, shared_layers)) continue;
    const TensorPart& part = entry.parts.front();
    const auto rows = [&](const std::string& name) {
      return values.at(name).narrow(0, part.first_row, part.rows);
    };
    if (entry.is_matrix()) {
      stored.emplace(entry.name + kUpSuffix, rows(part.name + kUpSuffix));
      stored.emplace(entry.name + kDownSuffix, values.at(part.name + kDownSuffix));
    } else {
      stored.emplace(entry.name, rows(part.name));
    }
  }
  write_tensors(directory / "model.safetensors", stored, dtype, {{kPackedKey, kPackedVersion}});
  unwrap(write_file_atomically(directory / "config.json", to_config_json(config)));
}

TensorMap read_adapted_layers(const fs::path& directory,
                              const std::vector<int64_t>& shared_layers) {
  const Checkpoint checkpoint = unwrap(open_checkpoint(directory));
  const auto read = [&](const std::string& name) {
    return to_tensor(unwrap(checkpoint.weights->find(name))).to(at::kFloat);
  };
  TensorMap values;
  for (const auto& entry : tensor_layout(checkpoint.config, kTrainedForm, kPackedForm)) {
    if (!is_own(entry, shared_layers)) continue;
    std::vector<Tensor> parts;
    for (const TensorPart& part : entry.parts) {
      parts.push_back(read(part.name + (entry.is_matrix() ? kUpSuffix : "")));
    }
    values.emplace(entry.name + (entry.is_matrix() ? kUpSuffix : ""), at::cat(parts));
    if (!entry.is_matrix()) continue;
    values.emplace(entry.name + kDownSuffix, read(entry.parts.front().name + kDownSuffix));
  }
  return values;
}

TensorMap read_own_layers(const fs::path& directory, const std::vector<int64_t>& shared_layers) {
  const Checkpoint checkpoint = unwrap(open_checkpoint(directory));
  const auto reader =
      unwrap(WeightReader::open(checkpoint.weights, WeightType::kF32, at::get_num_threads()));
  TensorMap values;
  for (const auto& entry : tensor_layout(checkpoint.config, kTrainedForm, checkpoint.form)) {
    if (!is_own(entry, shared_layers)) continue;
    std::vector<float> floats = unwrap(reader.floats(entry));
    values.emplace(entry.name, at::from_blob(floats.data(), entry.shape(), at::kFloat).clone());
  }
  return values;
}

void write_manifest(const fs::path& directory, const ManifestToWrite& manifest) {
  Json json = manifest.extra;
  json["format"] = 1;
  json["base"] = manifest.base;
  json["auxiliary"] = manifest.auxiliary;
  json["predictor"] = manifest.predictor;
  json["layer_map"] = manifest.layer_map;
  write_json(directory / "kvcast.json", json);
}

void write_json(const fs::path& file, const Json& json) {
  unwrap(write_file_atomically(file, json.dump(1) + "\n"));
}

void check_fits(const ModelConfig& config, const DataRecipe& data, const ShardIndex& index) {
  if (config.vocab_size < index.vocab_size) {
    throw TrainError(fmt::format("{}: tokens of a vocabulary of {}, the model has {}",
                                 data.shards.string(), index.vocab_size, config.vocab_size));
  }
  if (data.sequence_tokens > config.max_context_tokens) {
    throw TrainError(fmt::format("data.sequence_tokens: expected at most the model's context of {}",
                                 config.max_context_tokens));
  }
}

TensorMap without_prefix(const TensorMap& values, std::string_view prefix) {
  TensorMap result;
  for (const auto& [name, value] : values) {
    if (name.starts_with(prefix)) result.emplace(name.substr(prefix.size()), value);
  }
  return result;
}

void add_with_prefix(TensorMap& into, std::string_view prefix, const TensorMap& values) {
  for (const auto& [name, value] : values) into.emplace(std::string(prefix) + name, value);
}

TensorMap frozen(const TensorMap& values, at::ScalarType dtype, const at::Device& device) {
  TensorMap result;
  for (const auto& [name, value] : values) {
    result.emplace(name, value.to(device, dtype));
  }
  return result;
}

AtomicDirectory::AtomicDirectory(const fs::path& path)
    : directory_(unwrap(kvcast::AtomicDirectory::create(path))) {}

void AtomicDirectory::commit() { unwrap(directory_->commit()); }

}  // namespace kvcast::train
