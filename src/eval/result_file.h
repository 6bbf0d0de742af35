// Result files of `kvcast eval` (docs/FORMAT.md, "Result files").
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "eval/interval.h"
#include "eval/timing.h"
#include "kvcast/model.h"
#include "kvcast/result.h"

namespace kvcast {

struct WeightsIdentity {
  int64_t parameters = 0;
  std::string sha256;
};

/// Where a result comes from.
struct ResultHeader {
  std::string commit, machine, isa;
  int threads = 0;
  std::string path, label, dtype;
  WeightsIdentity base;
  std::optional<WeightsIdentity> auxiliary, predictor;
};

/// One task under one strategy.
struct TaskResult {
  std::string task, prefill, scoring;
  int64_t n = 0;
  std::string data_file, data_sha256;         ///< empty: the task makes its examples
  std::map<std::string, int64_t> parameters;  ///< shots, length, seed, ...
  std::vector<std::pair<std::string, Interval>> metrics;
  int64_t prompt_tokens = 0;
  bool is_bundle = false;
  std::optional<FlopsReduction> flops;
  std::optional<StrategyTiming> timing;
};

/// Counts and hashes the weights of `directory`, a loaded model or bundle.
Result<ResultHeader> describe_model(const Model& model, const std::filesystem::path& directory,
                                    std::string label);

nlohmann::ordered_json to_json(const ResultHeader& header);
nlohmann::ordered_json to_json(const ResultHeader& header, const std::vector<TaskResult>& results);

}  // namespace kvcast
