#include "model/bundle.h"

#include <fmt/format.h>

#include "base/macros.h"
#include "io/json.h"
#include "model/json_fields.h"
#include "model/model_text.h"

namespace kvcast {
namespace {

constexpr int64_t kFormat = 1;

/// Resolves a path relative to the bundle. "../" may lead to a shared model directory, but not to
/// a predictor outside the bundle.
Result<std::filesystem::path> relative_path(const JsonFields& fields, const std::string& key,
                                            const std::filesystem::path& bundle, bool may_leave) {
  KVCAST_TRY(const std::string text, fields.string(key));
  if (text.empty() || text.find('\0') != std::string::npos) {
    return fields.wrong(key, "a path relative to the bundle");
  }
  const auto path = std::filesystem::path(text).lexically_normal();
  if (path.is_absolute()) return fields.wrong(key, "a path relative to the bundle");
  if (!may_leave && *path.begin() == "..") return fields.wrong(key, "a path inside the bundle");
  return (bundle / path).lexically_normal();
}

}  // namespace

bool is_bundle(const std::filesystem::path& directory) {
  std::error_code ignored;
  return std::filesystem::exists(directory / kManifestName, ignored);
}

Status check_layer_map(const std::vector<int64_t>& layer_map, const ModelConfig& base,
                       const ModelConfig& auxiliary, const std::string& where) {
  if (static_cast<int64_t>(layer_map.size()) != base.n_layers()) {
    return fail(fmt::format(
        "{}: key \"layer_map\": expected {} entries, one per layer of the base, found {}", where,
        base.n_layers(), layer_map.size()));
  }
  for (size_t i = 0; i < layer_map.size(); ++i) {
    if (layer_map[i] >= 0 && layer_map[i] < auxiliary.n_layers()) continue;
    return fail(fmt::format(
        "{}: key \"layer_map\" entry {}: expected an auxiliary layer from 0 to {}, found {}", where,
        i, auxiliary.n_layers() - 1, layer_map[i]));
  }
  return {};
}

Result<BundleManifest> read_bundle_manifest(const std::filesystem::path& directory) {
  const auto path = directory / kManifestName;
  KVCAST_TRY(const Json json, read_json_object(path));
  const JsonFields fields(json, path.string());
  KVCAST_CHECK(fields.require("format", kFormat));

  BundleManifest manifest;
  KVCAST_TRY(manifest.base, relative_path(fields, "base", directory, true));
  KVCAST_TRY(manifest.auxiliary, relative_path(fields, "auxiliary", directory, true));
  KVCAST_TRY(manifest.predictor, relative_path(fields, "predictor", directory, false));
  if (fields.contains("default_prefill")) {
    KVCAST_TRY(manifest.default_prefill, fields.string("default_prefill"));
  }

  KVCAST_TRY(const ModelConfig base, read_model_config(manifest.base));
  KVCAST_TRY(const ModelConfig auxiliary, read_model_config(manifest.auxiliary));
  KVCAST_CHECK(check_same_tokens({manifest.base, base.vocab_size},
                                 {manifest.auxiliary, auxiliary.vocab_size},
                                 path.string() + ": key \"auxiliary\""));
  KVCAST_TRY(manifest.layer_map,
             fields.integers("layer_map", base.n_layers(), 0, auxiliary.n_layers() - 1));
  KVCAST_CHECK(check_layer_map(manifest.layer_map, base, auxiliary, path.string()));
  return manifest;
}

}  // namespace kvcast
