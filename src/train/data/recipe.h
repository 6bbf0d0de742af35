// Recipes: TOML files that say what a training command does (recipes/README.md lists every key).
// Parsed here into plain structs; an unknown key, a wrong type or a value out of range is an error
// that names file, key and expectation.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace kvcast::train {

/// From the command line's --set NAME=VALUE: a name without a dot is a variable, put where a string
/// of the recipe says ${NAME}; a name with a dot ("run.steps") replaces that key.
using Settings = std::vector<std::pair<std::string, std::string>>;

/// [[source]]: a file of text.
struct SourceRecipe {
  std::filesystem::path path;  ///< .txt or .jsonl, or either as .zst
  std::string name;            ///< names its shards; default: the file's name up to the first dot
  double epochs = 1.0;         ///< how often one pass over the data shows it
};

/// [tokenizer]
struct TokenizerRecipe {
  std::filesystem::path output;   ///< the tokenizer.model to write
  std::string algorithm = "bpe";  ///< or "unigram"
  int64_t vocab_size = 8192;
  double sample_fraction = 0.1;  ///< share of the sources' lines to learn from
  uint64_t seed = 1;
  int64_t threads = 0;  ///< 0: all cores
  std::vector<SourceRecipe> sources;
};

/// [shards]
struct ShardsRecipe {
  std::filesystem::path output;      ///< directory
  std::filesystem::path tokenizer;   ///< tokenizer.model
  double held_out_fraction = 0.005;  ///< of each source's documents
  int64_t shard_tokens = int64_t{1} << 26;
  uint64_t seed = 1;
  int64_t threads = 0;  ///< 0: all cores
  std::vector<SourceRecipe> sources;
};

/// [data]
struct DataRecipe {
  std::filesystem::path shards;  ///< directory that `shards` wrote
  int64_t sequence_tokens = 1024;
  bool begin_with_bos = true;  ///< the first token of every window is BOS, as in every prompt
};

/// [optimizer]; defaults are the paper's (method §4)
struct OptimizerRecipe {
  double learning_rate = 1.2e-3;  ///< at the peak
  double final_fraction = 0.1;    ///< of the peak, at the end of the cosine
  int64_t warmup_steps = 100;
  double weight_decay = 0.1;  ///< matrices only
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double clip_norm = 1.0;
  double z_loss = 1e-4;
};

enum class Precision { kF32, kBF16 };

/// [run]
struct RunRecipe {
  int64_t steps = 1000;
  int64_t micro_batch_sequences = 8;
  int64_t accumulation = 1;  ///< micro-batches a step
  uint64_t seed = 1;
  Precision precision = Precision::kBF16;  ///< of matrix products; master weights are f32
  double max_minutes = 0.0;  ///< 0: no limit; otherwise the schedule also ends by this time
  int64_t log_every = 20;
  double checkpoint_minutes = 5.0;  ///< 0: only when interrupted
};

/// [output]
struct OutputRecipe {
  std::filesystem::path directory;     ///< appears, complete, when the run is done
  std::filesystem::path checkpoint;    ///< default: directory + ".checkpoint"
  std::filesystem::path log;           ///< JSON lines; default: directory + ".jsonl"
  Precision dtype = Precision::kBF16;  ///< of the weights in `directory`
};

/// [model]: an OpenELM shape, or `start`, a model directory to go on from.
struct ModelRecipe {
  std::filesystem::path start;
  int64_t layers = 0, model_dim = 0, head_dim = 64, gqa_groups = 4, ffn_dim_divisor = 256;
  int64_t max_context_tokens = 2048;
};

struct PretrainRecipe {
  ModelRecipe model;
  DataRecipe data;
  OptimizerRecipe optimizer;
  RunRecipe run;
  OutputRecipe output;
};

/// [kvp]
struct KvpRecipe {
  std::filesystem::path base;       ///< model directory
  std::filesystem::path auxiliary;  ///< model directory (KVP-C), or
  std::string keep;                 ///< "0.75", "0.50", "0.25": layers of the base (KVP-LP)
  std::vector<int64_t> layer_map;   ///< empty: by the rules of method §5
  double lambda_base = 1.0, lambda_auxiliary = 1.0;
  double lambda_consistency = -1.0;  ///< negative: 1 / n_B, the paper's best
  bool copy_base = true;             ///< false: kvcast.json names the base by a relative path
  DataRecipe data;
  OptimizerRecipe optimizer;
  RunRecipe run;
  OutputRecipe output;
};

TokenizerRecipe read_tokenizer_recipe(const std::filesystem::path& file, const Settings& settings);
ShardsRecipe read_shards_recipe(const std::filesystem::path& file, const Settings& settings);
PretrainRecipe read_pretrain_recipe(const std::filesystem::path& file, const Settings& settings);
KvpRecipe read_kvp_recipe(const std::filesystem::path& file, const Settings& settings);

}  // namespace kvcast::train
