// kvcast-train run as a user would, on a corpus of a few thousand tokens.
#pragma once

#include <fmt/format.h>

#include <fstream>
#include <map>
#include <vector>

#include "io/json.h"
#include "support/run_program.h"
#include "train_test_support.h"

namespace kvcast::train {

/// A folder with tiny shards and the recipe of a tiny model: 120 steps, f32, a checkpoint every
/// third step, a log entry every second.
class TrainedProgram : public testing::Test {
 protected:
  TrainedProgram() {
    write_tiny_shards(directory_.path());
    write_file(directory_.path() / "recipe.toml", R"([model]
layers = 2
model_dim = 32
head_dim = 8
gqa_groups = 2
ffn_dim_divisor = 8
max_context_tokens = 64
[data]
shards = "${out}/shards"
sequence_tokens = 32
[optimizer]
learning_rate = 1e-2
warmup_steps = 5
[run]
steps = 120
micro_batch_sequences = 4
accumulation = 2
precision = "f32"
log_every = 2
checkpoint_steps = 3
[output]
directory = "${out}/${name}"
dtype = "f32"
)");
  }

  [[nodiscard]] std::filesystem::path path(const std::string& name) const {
    return directory_.path() / name;
  }

  /// `before`: words in front of the program, such as env RANK=0.
  [[nodiscard]] std::vector<std::string> command(const std::string& name,
                                                 const std::vector<std::string>& options = {},
                                                 std::vector<std::string> before = {}) const {
    before.insert(before.end(),
                  {std::string(KVCAST_BINARY_DIR) + "/kvcast-train", "pretrain",
                   path("recipe.toml").string(), "--set", "out=" + directory_.path().string(),
                   "--set", "name=" + name, "--device", "cpu", "--quiet"});
    before.insert(before.end(), options.begin(), options.end());
    return before;
  }

  /// Losses by step, as the log has them.
  [[nodiscard]] std::map<int64_t, double> losses(const std::string& name) const {
    std::ifstream file(path(name + ".jsonl"));
    std::map<int64_t, double> result;
    for (std::string line; std::getline(file, line);) {
      const Json entry = Json::parse(line, nullptr, false);
      if (!entry.is_object()) continue;  // being written
      EXPECT_FALSE(result.contains(entry["step"].get<int64_t>())) << "a step twice";
      result[entry["step"].get<int64_t>()] = entry["losses"]["loss"].get<double>();
    }
    return result;
  }

  TemporaryDirectory directory_;
};

}  // namespace kvcast::train
