// A KV-prediction bundle: two model directories, a predictor file and kvcast.json (docs/FORMAT.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kvcast/result.h"
#include "model/config.h"
#include "model/forecast_plan.h"

namespace kvcast {

inline constexpr const char* kManifestName = "kvcast.json";

/// kvcast.json with its paths resolved and its plan checked against both configs.
struct BundleManifest {
  std::filesystem::path base;       ///< model directory
  std::filesystem::path auxiliary;  ///< model directory; empty: the base alone reads the prompt
  /// [auxiliary layers] the base's layer that stands there, or kOwnLayer; empty: all are its own.
  /// Such an auxiliary has the base's embeddings and head too, and only reads.
  std::vector<int64_t> shared_layers;
  /// [auxiliary layers] the base's layer that one of its own differs from by low rank, or
  /// kOwnLayer; empty: none does (model/adapted_layers.h).
  std::vector<int64_t> adapted_layers;
  std::filesystem::path predictor;  ///< safetensors file
  ForecastPlan plan;
  std::optional<double> gate;   ///< threshold below which a forecast is not to be trusted
  std::string default_prefill;  ///< strategy spec to use when none is asked for; may be empty
};

/// A base or auxiliary that is shipped apart from its bundle, as kvcast.json names it.
struct NamedModel {
  std::string file;
  int64_t bytes = 0;
  std::string sha256;  ///< of the file; for people and for who fetches it
};
/// The folders of KVCAST_MODELS, several with ':' between them.
std::vector<std::filesystem::path> chosen_model_folders();
/// Where such a file is looked for: these, the folder that the bundle is in, and its hub/.
std::vector<std::filesystem::path> named_model_folders(const std::filesystem::path& bundle);

/// True if `directory` holds a kvcast.json.
bool is_bundle(const std::filesystem::path& directory);
Result<BundleManifest> read_bundle_manifest(const std::filesystem::path& directory);

/// Checks length and range of a layer map; `where` names the file in errors.
Status check_layer_map(const std::vector<int64_t>& layer_map, const ModelConfig& base,
                       const ModelConfig& auxiliary, const std::string& where);

}  // namespace kvcast
