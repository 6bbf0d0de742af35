#include "runtime/convert.h"

#include <fmt/format.h>

#include "base/atomic_directory.h"
#include "base/macros.h"
#include "base/mapped_file.h"
#include "io/json.h"
#include "model/bundle.h"
#include "model/checkpoint.h"
#include "model/weights.h"
#include "prefill/models.h"
#include "prefill/predictor.h"

namespace kvcast {
namespace {

namespace fs = std::filesystem;

constexpr const char* kBase = "base";
constexpr const char* kAuxiliary = "auxiliary";
constexpr const char* kPredictor = "predictor.safetensors";

class Converter {
 public:
  explicit Converter(const ConvertOptions& options) : options_(options) {}

  /// Returns what most of it is packed as.
  Result<WeightType> model(const fs::path& from, const fs::path& to) const {
    KVCAST_CHECK(check_stop());
    KVCAST_TRY(const Checkpoint checkpoint, open_checkpoint(from));
    KVCAST_CHECK(copy_files(checkpoint, to));
    KVCAST_TRY(ModelWeights weights, load_weights(checkpoint, options_.type, options_.threads));
    KVCAST_CHECK(check_stop());
    KVCAST_CHECK(write_checkpoint(to, packed_tensors(weights, checkpoint.config), packed_metadata(),
                                  options_.shard_bytes));
    return weights.main_type();
  }

  /// An auxiliary that shares the base's layers: its own alone, whose form their tensors have.
  Status own_layers(const BundleManifest& manifest, const ModelConfig& base_config,
                    const fs::path& to) const {
    KVCAST_CHECK(check_stop());
    ModelWeights base;  // of which nothing is written
    base.layers.resize(static_cast<size_t>(base_config.n_layers()));
    KVCAST_TRY(const Checkpoint checkpoint, open_checkpoint(manifest.auxiliary));
    KVCAST_CHECK(copy_files(checkpoint, to));
    // Factors are as small as they can be, and what they change is packed when it is loaded.
    if (!manifest.adapted_layers.empty()) return copy_weights(checkpoint, to);
    KVCAST_TRY(ModelWeights weights, load_weights(checkpoint, {base, manifest.shared_layers},
                                                  options_.type, options_.threads));
    return write_checkpoint(to, packed_tensors(weights, checkpoint.config, manifest.shared_layers),
                            packed_metadata(), options_.shard_bytes);
  }

  Status bundle(const fs::path& from, const fs::path& to) const {
    KVCAST_TRY(const BundleManifest manifest, read_bundle_manifest(from));
    KVCAST_TRY(const ModelConfig base, read_model_config(manifest.base));
    const bool has_auxiliary = !manifest.auxiliary.empty();
    ModelConfig auxiliary;
    if (has_auxiliary) {
      KVCAST_TRY(auxiliary, read_model_config(manifest.auxiliary));
    }
    KVCAST_TRY(const Json json, read_json_object(from / kManifestName));
    KVCAST_TRY(const WeightType type,
               is_apart(json, kBase) ? type_of(manifest.base) : model(manifest.base, to / kBase));
    KVCAST_TRY(const auto map_type, type_of_maps(manifest.predictor, options_.type, type));
    KVCAST_TRY(const auto predictor, Predictor::load(manifest.predictor, base, auxiliary,
                                                     manifest.plan, map_type, options_.threads));
    KVCAST_CHECK(
        write_safetensors(to / kPredictor, predictor->packed_tensors(), packed_metadata()));
    if (has_auxiliary && is_apart(json, kAuxiliary)) {
      // nothing to do
    } else if (!manifest.shared_layers.empty()) {
      KVCAST_CHECK(own_layers(manifest, base, to / kAuxiliary));
    } else if (has_auxiliary) {
      KVCAST_CHECK(model(manifest.auxiliary, to / kAuxiliary).map([](auto) {}));
    }
    return write_manifest(json, to / kManifestName);
  }

 private:
  Status check_stop() const {
    if (options_.stop.stop_requested()) return fail("interrupted");
    return {};
  }

  static std::map<std::string, std::string> packed_metadata() {
    return {{kPackedKey, kPackedVersion}};
  }

  static Status copy_files(const Checkpoint& checkpoint, const fs::path& to) {
    const fs::path& from = checkpoint.path;
    std::error_code error;
    fs::create_directories(to, error);
    if (error) return fail(fmt::format("{}: cannot create: {}", to.string(), error.message()));
    std::string config = to_config_json(checkpoint.config);
    if (const auto file = from / "config.json"; fs::exists(file, error)) {
      KVCAST_TRY(config, read_text_file(file));  // with keys that kvcast does not read
    }
    KVCAST_CHECK(write_file_atomically(to / "config.json", config));
    return copy_companions(from, to);
  }

  static Status copy_weights(const Checkpoint& checkpoint, const fs::path& to) {
    const fs::path from = checkpoint.weights->path();
    std::error_code error;
    if (!fs::copy_file(from, to / from.filename(), error)) {
      return fail(fmt::format("{}: cannot copy: {}", from.string(), error.message()));
    }
    return {};
  }

  /// What most of a model would be packed as.
  Result<WeightType> type_of(const fs::path& path) const {
    if (options_.type) return *options_.type;
    KVCAST_TRY(const Checkpoint checkpoint, open_checkpoint(path));
    return main_type(checkpoint);
  }

  /// What is shipped apart stays so.
  static bool is_apart(const Json& manifest, const char* key) {
    return manifest.contains(key) && manifest[key].is_object();
  }

  static Status write_manifest(Json json, const fs::path& to) {
    for (const char* key : {kBase, kAuxiliary}) {
      if (json.contains(key) && !is_apart(json, key)) json[key] = key;
    }
    json["predictor"] = kPredictor;
    return write_file_atomically(to,
                                 json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
  }

  const ConvertOptions& options_;
};

}  // namespace

Status convert(const ConvertOptions& options) {
  std::error_code ignored;
  if (fs::exists(fs::symlink_status(options.output, ignored))) {
    return fail(
        fmt::format("{}: exists already; expected a name that is free", options.output.string()));
  }
  KVCAST_TRY(const auto directory, AtomicDirectory::create(options.output));
  const Converter converter(options);
  KVCAST_CHECK(is_bundle(options.source)
                   ? converter.bundle(options.source, directory->staging())
                   : converter.model(options.source, directory->staging()).map([](auto) {}));
  return directory->commit();
}

}  // namespace kvcast
