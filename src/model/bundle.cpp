#include "model/bundle.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <limits>

#include "base/macros.h"
#include "io/json.h"
#include "model/config_limits.h"
#include "model/json_fields.h"
#include "model/model_text.h"
#include "model/plan_json.h"
#include "model/weights.h"

namespace kvcast {
namespace {

constexpr int64_t kNewestFormat = 2;

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

/// `base` or `auxiliary`: a path, or the name, size and sum of a file in one of
/// named_model_folders().
Result<std::filesystem::path> model_path(const JsonFields& fields, const std::string& key,
                                         const std::filesystem::path& bundle) {
  if (!fields.is_object(key)) return relative_path(fields, key, bundle, true);
  KVCAST_TRY(const JsonFields model, fields.object(key));
  NamedModel named;
  KVCAST_TRY(named.file, model.string("file"));
  KVCAST_TRY(named.bytes, model.integer("bytes", 1, std::numeric_limits<int64_t>::max()));
  KVCAST_TRY(named.sha256, model.string("sha256"));
  if (named.file.empty() || named.file.find('/') != std::string::npos ||
      named.file.find('\0') != std::string::npos) {
    return model.wrong("file", "a file's name");
  }
  std::vector<std::string> looked;
  for (const auto& folder : named_model_folders(bundle)) {
    const auto path = folder / named.file;
    std::error_code error;
    const auto bytes = std::filesystem::file_size(path, error);
    if (!error && static_cast<int64_t>(bytes) == named.bytes) return path;
    looked.push_back(
        error ? folder.string()
              : fmt::format("{} ({} bytes, not {})", folder.string(), bytes, named.bytes));
  }
  const std::string name = std::filesystem::path(named.file).stem().string();
  return fail(
      fmt::format("{}: its {} {} is not fetched yet: `make models MODELS={}`, or put it "
                  "where KVCAST_MODELS says; looked in {}",
                  bundle.string(), key, named.file, name, fmt::join(looked, ", ")));
}

}  // namespace

std::vector<std::filesystem::path> chosen_model_folders() {
  std::vector<std::filesystem::path> folders;
  if (const char* listed = std::getenv("KVCAST_MODELS")) {
    const std::string text = listed;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find(':', at), text.size());
      if (end > at) folders.emplace_back(text.substr(at, end - at));
      at = end + 1;
    }
  }
  return folders;
}

std::vector<std::filesystem::path> named_model_folders(const std::filesystem::path& bundle) {
  std::vector<std::filesystem::path> folders = chosen_model_folders();
  std::error_code ignored;
  const auto beside =
      std::filesystem::absolute(bundle / "", ignored).lexically_normal().parent_path();
  folders.push_back(beside.parent_path());
  folders.push_back(beside.parent_path() / "hub");
  return folders;
}

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

namespace {

/// Format 1: a layer map.
Result<ForecastPlan> read_layer_map(const JsonFields& fields, const ModelConfig& base,
                                    const ModelConfig& auxiliary, const std::string& where) {
  KVCAST_TRY(const auto layer_map,
             fields.integers("layer_map", base.n_layers(), 0, auxiliary.n_layers() - 1));
  KVCAST_CHECK(check_layer_map(layer_map, base, auxiliary, where));
  return ForecastPlan(layer_map);
}

Result<ForecastInput> read_input(const JsonFields& fields) {
  ForecastInput input;
  KVCAST_TRY(const std::string reader, fields.string("from"));
  KVCAST_TRY(const std::string kind, fields.string("kind"));
  if (fields.contains("layers")) {
    if (fields.contains("layer")) return fields.wrong("layer", "nothing beside \"layers\"");
    KVCAST_TRY(input.earlier, fields.integers_up_to("layers", kMaxLayers, 0, kMaxLayers));
    if (input.earlier.empty()) return fields.wrong("layers", "one layer or more");
    input.layer = input.earlier.back();
    input.earlier.pop_back();
  } else {
    KVCAST_TRY(input.layer, fields.integer("layer", 0, kMaxLayers));
  }
  if (reader != prompt_reader_name(PromptReader::kAuxiliary)) {
    input.reader = PromptReader::kBase;
    if (reader != prompt_reader_name(input.reader)) {
      return fields.wrong("from", "\"base\" or \"auxiliary\"");
    }
  }
  for (const InputKind each : {InputKind::kKeyValue, InputKind::kJoint, InputKind::kResidual}) {
    if (kind != input_kind_name(each)) continue;
    input.kind = each;
    return input;
  }
  return fields.wrong("kind", "\"key-value\", \"joint\" or \"residual\"");
}

/// `shared_layers`, the base's layers that stand in the auxiliary, or `adapted_layers`, those that
/// its own differ from; empty if the key is missing.
Result<std::vector<int64_t>> read_base_layers(const JsonFields& fields, const char* key,
                                              const ModelConfig& base,
                                              const ModelConfig& auxiliary) {
  std::vector<int64_t> layers;
  if (!fields.contains(key)) return layers;
  KVCAST_TRY(layers, fields.integers(key, auxiliary.n_layers(), kOwnLayer, base.n_layers() - 1));
  for (size_t i = 0; i < layers.size(); ++i) {
    if (layers[i] == kOwnLayer) continue;
    if (base.layers[layers[i]] == auxiliary.layers[i] && base.model_dim == auxiliary.model_dim &&
        base.head_dim == auxiliary.head_dim && base.normalize_qk == auxiliary.normalize_qk) {
      continue;
    }
    return fields.wrong(key, fmt::format("entry {}: a layer of the auxiliary's shape", i));
  }
  return layers;
}

/// Format 2: `inputs` has an entry for each layer after the exact ones.
Result<ForecastPlan> read_plan(const Json& json, const JsonFields& fields, const ModelConfig& base,
                               const ModelConfig& auxiliary, const std::string& where) {
  ForecastPlan plan;
  if (fields.contains("sink_tokens")) {
    KVCAST_TRY(plan.sink_tokens, fields.integer("sink_tokens", 0, base.max_context_tokens));
  }
  if (fields.contains("exact_layers")) {
    KVCAST_TRY(plan.exact_layers, fields.integer("exact_layers", 0, base.n_layers()));
  }
  plan.inputs.resize(static_cast<size_t>(plan.exact_layers));
  const int64_t expected = base.n_layers() - plan.exact_layers;
  if (!json.contains("inputs") || !json["inputs"].is_array() ||
      std::ssize(json["inputs"]) != expected) {
    return fields.wrong("inputs", fmt::format("a list of {} objects, one for each layer that is "
                                              "not exact",
                                              expected));
  }
  for (const Json& entry : json["inputs"]) {
    if (!entry.is_object()) return fields.wrong("inputs", "a list of objects");
    KVCAST_TRY(const ForecastInput input,
               read_input(JsonFields(entry, fmt::format("{}: key \"inputs\" entry {}", where,
                                                        plan.base_layers() - plan.exact_layers))));
    plan.inputs.push_back(input);
  }
  KVCAST_CHECK(check_plan(plan, base, auxiliary, where));
  return plan;
}

}  // namespace

void write_plan(const ForecastPlan& plan, Json& json) {
  json["sink_tokens"] = plan.sink_tokens;
  json["exact_layers"] = plan.exact_layers;
  json["inputs"] = Json::array();
  for (int64_t i = plan.exact_layers; i < plan.base_layers(); ++i) {
    const ForecastInput& input = plan.inputs[i];
    Json entry = {{"from", prompt_reader_name(input.reader)},
                  {"kind", input_kind_name(input.kind)}};
    if (input.earlier.empty()) {
      entry["layer"] = input.layer;
    } else {
      entry["layers"] = input.earlier;
      entry["layers"].push_back(input.layer);
    }
    json["inputs"].push_back(std::move(entry));
  }
}

Result<BundleManifest> read_bundle_manifest(const std::filesystem::path& directory) {
  const auto path = directory / kManifestName;
  KVCAST_TRY(const Json json, read_json_object(path));
  const JsonFields fields(json, path.string());
  KVCAST_TRY(const int64_t format, fields.integer("format", 1, kNewestFormat));

  BundleManifest manifest;
  KVCAST_TRY(manifest.base, model_path(fields, "base", directory));
  if (format == 1 || fields.contains("auxiliary")) {
    KVCAST_TRY(manifest.auxiliary, model_path(fields, "auxiliary", directory));
  }
  KVCAST_TRY(manifest.predictor, relative_path(fields, "predictor", directory, false));
  if (fields.contains("default_prefill")) {
    KVCAST_TRY(manifest.default_prefill, fields.string("default_prefill"));
  }
  if (fields.contains("gate")) {
    KVCAST_TRY(manifest.gate, fields.number("gate", -1e3, 1e3));
  }

  KVCAST_TRY(const ModelConfig base, read_model_config(manifest.base));
  ModelConfig auxiliary;
  if (!manifest.auxiliary.empty()) {
    KVCAST_TRY(auxiliary, read_model_config(manifest.auxiliary));
    KVCAST_CHECK(check_same_tokens({manifest.base, base.vocab_size},
                                   {manifest.auxiliary, auxiliary.vocab_size},
                                   path.string() + ": key \"auxiliary\""));
    KVCAST_TRY(manifest.shared_layers, read_base_layers(fields, "shared_layers", base, auxiliary));
    KVCAST_TRY(manifest.adapted_layers,
               read_base_layers(fields, "adapted_layers", base, auxiliary));
    for (size_t i = 0; i < manifest.adapted_layers.size(); ++i) {
      const bool own = !manifest.shared_layers.empty() && manifest.shared_layers[i] == kOwnLayer;
      if (manifest.adapted_layers[i] == kOwnLayer || own) continue;
      return fields.wrong("adapted_layers", fmt::format("entry {}: -1, since the auxiliary's layer "
                                                        "there is none of its own in "
                                                        "\"shared_layers\"",
                                                        i));
    }
  }
  if (format == 1) {
    KVCAST_TRY(manifest.plan, read_layer_map(fields, base, auxiliary, path.string()));
  } else {
    KVCAST_TRY(manifest.plan, read_plan(json, fields, base, auxiliary, path.string()));
  }
  return manifest;
}

}  // namespace kvcast
