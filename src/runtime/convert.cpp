#include "runtime/convert.h"

#include <fmt/format.h>

#include "base/atomic_directory.h"
#include "base/macros.h"
#include "base/mapped_file.h"
#include "io/json.h"
#include "model/bundle.h"
#include "prefill/predictor.h"
#include "prefill/sequence.h"

namespace kvcast {
namespace {

namespace fs = std::filesystem;

/// What a model directory holds beside its weights, as far as kvcast and Hugging Face know it.
constexpr const char* kCompanions[] = {"config.json",
                                       "generation_config.json",
                                       "tokenizer.model",
                                       "tokenizer.json",
                                       "tokenizer_config.json",
                                       "special_tokens_map.json",
                                       "chat_template.jinja",
                                       "README.md",
                                       "LICENSE"};
constexpr const char* kBase = "base";
constexpr const char* kAuxiliary = "auxiliary";
constexpr const char* kPredictor = "predictor.safetensors";

class Converter {
 public:
  Converter(const ConvertOptions& options, WeightType type) : options_(options), type_(type) {}

  Status model(const fs::path& from, const fs::path& to) const {
    KVCAST_CHECK(check_stop());
    KVCAST_CHECK(copy_companions(from, to));
    KVCAST_TRY(const ModelConfig config, read_model_config(from));
    KVCAST_TRY(auto checkpoint, Safetensors::open_checkpoint(from));
    KVCAST_TRY(ModelWeights weights,
               load_weights(std::move(checkpoint), config, type_, options_.threads));
    KVCAST_CHECK(check_stop());
    return write_checkpoint(to, packed_tensors(weights, config), packed_metadata(),
                            options_.shard_bytes);
  }

  Status bundle(const fs::path& from, const fs::path& to) const {
    KVCAST_TRY(const BundleManifest manifest, read_bundle_manifest(from));
    KVCAST_TRY(const ModelConfig base, read_model_config(manifest.base));
    KVCAST_TRY(const ModelConfig auxiliary, read_model_config(manifest.auxiliary));
    KVCAST_TRY(const auto predictor, Predictor::load(manifest.predictor, base, auxiliary,
                                                     manifest.layer_map, type_, options_.threads));
    KVCAST_CHECK(
        write_safetensors(to / kPredictor, predictor->packed_tensors(), packed_metadata()));
    KVCAST_CHECK(model(manifest.base, to / kBase));
    KVCAST_CHECK(model(manifest.auxiliary, to / kAuxiliary));
    return write_manifest(from / kManifestName, to / kManifestName);
  }

 private:
  Status check_stop() const {
    if (options_.stop.stop_requested()) return fail("interrupted");
    return {};
  }

  static std::map<std::string, std::string> packed_metadata() {
    return {{kPackedKey, kPackedVersion}};
  }

  static Status copy_companions(const fs::path& from, const fs::path& to) {
    std::error_code error;
    fs::create_directories(to, error);
    if (error) return fail(fmt::format("{}: cannot create: {}", to.string(), error.message()));
    for (const char* name : kCompanions) {
      if (!fs::exists(from / name, error)) continue;
      KVCAST_TRY(const std::string contents, read_text_file(from / name));
      KVCAST_CHECK(write_file_atomically(to / name, contents));
    }
    return {};
  }

  static Status write_manifest(const fs::path& from, const fs::path& to) {
    KVCAST_TRY(Json json, read_json_object(from));
    json["base"] = kBase;
    json["auxiliary"] = kAuxiliary;
    json["predictor"] = kPredictor;
    return write_file_atomically(to,
                                 json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
  }

  const ConvertOptions& options_;
  WeightType type_;
};

}  // namespace

Status convert(const ConvertOptions& options) {
  std::error_code ignored;
  if (fs::exists(fs::symlink_status(options.output, ignored))) {
    return fail(
        fmt::format("{}: exists already; expected a name that is free", options.output.string()));
  }
  const bool bundle = is_bundle(options.source);
  std::optional<WeightType> type = options.type;
  if (!type) {
    KVCAST_TRY(type, stored_type(options.source));
  }
  KVCAST_TRY(const auto directory, AtomicDirectory::create(options.output));
  const Converter converter(options, *type);
  KVCAST_CHECK(bundle ? converter.bundle(options.source, directory->staging())
                      : converter.model(options.source, directory->staging()));
  return directory->commit();
}

}  // namespace kvcast
