#include "eval/result_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/macros.h"
#include "eval/data_file.h"
#include "kernels/isa.h"
#include "kvcast/version.h"
#include "model/bundle.h"
#include "runtime/model_impl.h"

namespace kvcast {
namespace {

using OrderedJson = nlohmann::ordered_json;

/// Of one weights file (also a GGUF file), or of the hashes of all shards in the order of their
/// names.
Result<std::string> sha256_of_weights(const std::filesystem::path& model_directory) {
  std::error_code error;
  if (std::filesystem::is_regular_file(model_directory, error)) {
    return sha256_of_file(model_directory);
  }
  const auto whole = model_directory / "model.safetensors";
  if (std::filesystem::exists(whole, error)) return sha256_of_file(whole);
  std::vector<std::filesystem::path> shards;
  for (const auto& entry : std::filesystem::directory_iterator(model_directory, error)) {
    if (entry.path().extension() == ".safetensors") shards.push_back(entry.path());
  }
  std::ranges::sort(shards);
  std::string hashes;
  for (const auto& shard : shards) {
    KVCAST_TRY(const std::string hash, sha256_of_file(shard));
    hashes += hash + "\n";
  }
  return sha256_of_text(hashes);
}

OrderedJson to_json(const WeightsIdentity& weights) {
  return {{"parameters", weights.parameters}, {"sha256", weights.sha256}};
}

void add_timing(const TaskResult& result, OrderedJson& json) {
  const StrategyTiming& timing = *result.timing;
  json["ttft_ms"] = {
      {"median", timing.ttft_ms.median}, {"p10", timing.ttft_ms.p10}, {"p90", timing.ttft_ms.p90}};
  json["total_ms"] = OrderedJson::object();
  for (const auto& [tokens, ms] : timing.total_ms) json["total_ms"][std::to_string(tokens)] = ms;
  if (result.is_bundle) {
    const auto& break_even = timing.auxiliary_break_even_tokens;
    json["auxiliary_break_even_tokens"] =
        break_even ? OrderedJson(*break_even) : OrderedJson(nullptr);
  }
  json["peak_rss_bytes"] = timing.peak_rss_bytes;
}

OrderedJson to_json(const TaskResult& result) {
  OrderedJson json = {{"task", result.task},
                      {"prefill", result.prefill},
                      {"scoring", result.scoring},
                      {"n", result.n}};
  if (!result.data_file.empty()) {
    json["data"] = {{"file", result.data_file}, {"sha256", result.data_sha256}};
  }
  for (const auto& [name, value] : result.parameters) json[name] = value;
  for (const auto& [name, interval] : result.metrics) {
    json[name] = {{"value", interval.value}, {"low", interval.low}, {"high", interval.high}};
  }
  json["prompt_tokens"] = result.prompt_tokens;
  if (result.flops) {
    json["flops_reduction"] = {{"paper", result.flops->paper}, {"exact", result.flops->exact}};
  }
  if (result.timing) add_timing(result, json);
  return json;
}

}  // namespace

Result<ResultHeader> describe_model(const Model& model, const std::filesystem::path& directory,
                                    std::string label) {
  ResultHeader header;
  header.commit = commit();
  header.isa = isa_name(active_isa());
  header.threads = model.threads();
  header.path = directory.string();
  header.dtype = dtype_text(model.dtype());
  const auto normal = (directory / "").lexically_normal().parent_path();
  header.label = label.empty() ? normal.filename().string() : std::move(label);
  const ModelPair shapes = model.impl().models.shapes();
  std::filesystem::path base = directory;
  if (model.is_bundle()) {
    KVCAST_TRY(const BundleManifest manifest, read_bundle_manifest(directory));
    base = manifest.base;
    if (!manifest.auxiliary.empty()) {
      header.auxiliary.emplace();
      header.auxiliary->parameters = shapes.auxiliary.parameter_count();
      KVCAST_TRY(header.auxiliary->sha256, sha256_of_weights(manifest.auxiliary));
    }
    header.predictor.emplace();
    header.predictor->parameters = model.impl().models.predictor->parameter_count();
    KVCAST_TRY(header.predictor->sha256, sha256_of_file(manifest.predictor));
  }
  header.base.parameters = shapes.base.parameter_count();
  KVCAST_TRY(header.base.sha256, sha256_of_weights(base));
  return header;
}

nlohmann::ordered_json to_json(const ResultHeader& header) {
  OrderedJson json = {
      {"kind", "kvcast-eval"},         {"format", 1},       {"commit", header.commit},
      {"machine", header.machine},     {"isa", header.isa}, {"threads", header.threads},
      {"model", OrderedJson::object()}};
  json["model"] = {{"path", header.path}, {"label", header.label}, {"dtype", header.dtype}};
  json["model"]["base"] = to_json(header.base);
  if (header.auxiliary) json["model"]["auxiliary"] = to_json(*header.auxiliary);
  if (header.predictor) json["model"]["predictor"] = to_json(*header.predictor);
  return json;
}

nlohmann::ordered_json to_json(const ResultHeader& header, const std::vector<TaskResult>& results) {
  OrderedJson json = to_json(header);
  json["results"] = OrderedJson::array();
  for (const TaskResult& result : results) json["results"].push_back(to_json(result));
  return json;
}

}  // namespace kvcast
