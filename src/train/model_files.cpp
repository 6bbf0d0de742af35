#include "train/model_files.h"

#include <fmt/format.h>

#include "base/mapped_file.h"
#include "model/weights.h"
#include "prefill/predictor.h"
#include "train/data/error.h"

namespace kvcast::train {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kTransformerPrefix = "transformer.";

std::string stored_model_name(std::string_view name) {
  if (name == kLmHeadTensor) return std::string(name);
  return std::string(kTransformerPrefix) + std::string(name);
}
std::string stored_predictor_name(std::string_view name) { return std::string(name); }

}  // namespace

LoadedModel load_model(const fs::path& directory) {
  LoadedModel model{.config = unwrap(read_model_config(directory)), .values = {}};
  const std::shared_ptr<const Safetensors> file = unwrap(Safetensors::open_checkpoint(directory));
  const auto specs = model_parameter_specs(model.config);
  if (is_packed(*file)) {
    const int threads = at::get_num_threads();
    ModelWeights weights = unwrap(load_weights(file, model.config, WeightType::kF32, threads));
    const auto tensors = unpack_weights(weights, model.config, threads);
    model.values = read_parameters(tensors, specs, stored_model_name);
  } else {
    model.values = read_parameters(*file, specs, stored_model_name);
  }
  return model;
}

namespace {

TensorMap load_predictor(const BundleManifest& manifest, const ModelConfig& base,
                         const ModelConfig& auxiliary) {
  const auto file = unwrap(Safetensors::open(manifest.predictor));
  const auto specs = predictor_parameter_specs(base, auxiliary, manifest.layer_map);
  if (!is_packed(*file)) return read_parameters(*file, specs, stored_predictor_name);
  const int threads = at::get_num_threads();
  const auto predictor = unwrap(kvcast::Predictor::load(
      manifest.predictor, base, auxiliary, manifest.layer_map, WeightType::kF32, threads));
  return read_parameters(predictor->unpacked(threads), specs, stored_predictor_name);
}

}  // namespace

LoadedBundle load_bundle(const fs::path& directory) {
  LoadedBundle bundle{.manifest = unwrap(read_bundle_manifest(directory)),
                      .base = {},
                      .auxiliary = {},
                      .predictor = {}};
  bundle.base = load_model(bundle.manifest.base);
  bundle.auxiliary = load_model(bundle.manifest.auxiliary);
  bundle.predictor = load_predictor(bundle.manifest, bundle.base.config, bundle.auxiliary.config);
  return bundle;
}

StoreOptions stored_as(const OutputRecipe& output) {
  return {output.dtype == Precision::kBF16 ? DType::kBF16 : DType::kF32, output.shard_bytes};
}

void write_model(const fs::path& directory, const ModelConfig& config, const TensorMap& values,
                 const StoreOptions& store, const fs::path& tokenizer_from) {
  fs::create_directories(directory);
  TensorMap stored;
  for (const auto& [name, value] : values) stored.emplace(stored_model_name(name), value);
  write_sharded_tensors(directory, "model", stored, store.dtype, store.shard_bytes,
                        {{"format", "pt"}});
  unwrap(write_file_atomically(directory / "config.json", to_config_json(config)));
  if (tokenizer_from.empty()) return;
  for (const char* name : {"tokenizer.model", "tokenizer.json"}) {
    const fs::path source = tokenizer_from / name;
    if (!fs::exists(source)) continue;
    unwrap(write_file_atomically(directory / name, unwrap(read_text_file(source))));
  }
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
  if (config.vocab_size != index.vocab_size) {
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
