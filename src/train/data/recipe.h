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

/// Text is UTF-8; what is done with bytes that are not.
enum class TextEncoding {
  kUtf8,     ///< an error
  kReplace,  ///< U+FFFD in their place
};

/// [[source]]: a file of text.
struct SourceRecipe {
  std::filesystem::path path;  ///< .txt or .jsonl, or either as .zst or .gz
  std::string name;            ///< names its shards; default: the file's name up to the first dot
  double epochs = 1.0;         ///< how often one pass over the data shows it
  TextEncoding encoding = TextEncoding::kUtf8;
};

/// [tokenizer]
struct TokenizerRecipe {
  std::filesystem::path output;   ///< the tokenizer.model to write
  std::string algorithm = "bpe";  ///< or "unigram"
  int64_t vocab_size = 8192;
  double sample_fraction = 0.1;  ///< share of the sources' lines to learn from
  bool dummy_prefix = true;      ///< a text's first word is encoded as if after a space, as Llama's
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
  bool muon = false;  ///< matrices = "muon": of matrices but embeddings and head
};

enum class Precision { kF32, kBF16 };

/// Which layers run again in the backward pass instead of keeping what they made.
enum class Recompute {
  kAuto,  ///< as few as the GPU's memory allows (plan.h); none on a CPU
  kNone,
  kAll,
};

/// [run]
struct RunRecipe {
  int64_t steps = 1000;
  int64_t micro_batch_sequences = 8;
  int64_t accumulation = 1;  ///< micro-batches a step, of all processes together
  uint64_t seed = 1;
  Precision precision = Precision::kBF16;  ///< of matrix products; master weights are f32
  double max_minutes = 0.0;  ///< 0: no limit; otherwise the schedule also ends by this time
  int64_t log_every = 20;
  double checkpoint_minutes = 5.0;  ///< 0: not by time
  int64_t checkpoint_steps = 0;     ///< 0: not by steps
  double max_loss_jump = 3.0;   ///< nats of cross-entropy above its mean that stop the run; 0: any
  double peak_teraflops = 0.0;  ///< of one device, for the utilisation; 0: by its name
  Recompute recompute = Recompute::kAuto;
};

/// [output]
struct OutputRecipe {
  std::filesystem::path directory;         ///< appears, complete, when the run is done
  std::filesystem::path checkpoint;        ///< default: directory + ".checkpoint"
  std::filesystem::path log;               ///< JSON lines; default: directory + ".jsonl"
  Precision dtype = Precision::kBF16;      ///< of the weights in `directory`
  int64_t shard_bytes = int64_t{4} << 30;  ///< of one safetensors file, as far as tensors allow
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

/// Two models and how they are connected; keys of [kvp] and of [ridge].
struct PairRecipe {
  enum class LayerMapRule {
    kPaper,      ///< method §5
    kRidge,      ///< the least held-out error of a closed-form predictor, never falling with depth
    kRidgeFree,  ///< the same, each base layer by itself
  };
  std::filesystem::path base;       ///< model directory
  std::filesystem::path auxiliary;  ///< model directory (KVP-C), or
  std::string keep;                 ///< "0.75", "0.50", "0.25": layers of the base (KVP-LP)
  std::vector<int64_t> layer_map;   ///< empty: by the rule
  LayerMapRule layer_map_rule = LayerMapRule::kPaper;
  bool copy_base = true;  ///< false: kvcast.json names the base by a relative path
};

/// How a predictor is computed in closed form; keys of [ridge].
struct RidgeFitRecipe {
  int64_t tokens = 131072;          ///< to fit on
  int64_t held_out_tokens = 16384;  ///< to choose the layer map by
  double regularisation = 1e-3;     ///< of the inputs' mean variance
};

/// What the predicted cache is held against in training.
enum class Consistency {
  kNone,
  kL1,               ///< keys and values (method §4)
  kAttentionOutput,  ///< what attention over them adds to the residual stream
};

/// [kvp]; the defaults are the paper's recipe (method §4)
struct KvpRecipe {
  PairRecipe pair;
  double lambda_base = 1.0, lambda_auxiliary = 1.0;
  double lambda_consistency = -1.0;  ///< negative: 1 / n_B, the paper's best
  double lambda_kl = 0.0;            ///< on KL(base exact || base on the predicted cache)
  Consistency consistency = Consistency::kL1;
  bool ridge_init = false;   ///< predictor_init = "ridge": the closed form as the start
  double split_share = 0.0;  ///< of the steps that run the base as at inference
  double split_from = 0.125, split_to = 0.875;  ///< where a split falls, of the sequence
  int64_t tail_max = 1;                         ///< tails are drawn from 1 to this
  bool auxiliary_kv_only_last = false;          ///< its last layer gives K/V alone
  RidgeFitRecipe ridge;
  DataRecipe data;
  OptimizerRecipe optimizer;
  RunRecipe run;
  OutputRecipe output;
};

/// [adapt]: trained layers that go on from the base's own first ones, or an auxiliary
/// (adapt_reader.h). Of the fields of [kvp] it has base and auxiliary, the weights of
/// cross-entropies and KL, and where splits fall.
struct AdaptRecipe : KvpRecipe {
  AdaptRecipe() { lambda_auxiliary = 0.0; }
  int64_t exact_layers = 4;             ///< the last of them gives keys and values only
  std::vector<int64_t> trained_layers;  ///< copies of these layers of the base; or an auxiliary
  std::filesystem::path start;   ///< a bundle of the same shape to go on from; empty: closed form
  bool sequence_splits = false;  ///< a split for each sequence, instead of for each step
  double prefix_weight = 0.5;    ///< then: of positions before it in the loss
  std::vector<int64_t> prompt_end;  ///< then: tokens that end a prompt; splits fall there too
  double prompt_end_share = 0.75;   ///< of the sequences that have such an end
  int64_t rank = 0;  ///< of what their matrices may differ by from the base's; 0: they are free
  int64_t sink_tokens = 4;
  std::vector<int64_t> beside;  ///< streams of the reader that every map reads beside its own
  bool train_auxiliary = true;  ///< or its maps alone
  double mix = 0.0;  ///< the auxiliary's share of the logits that are held against the exact ones
};

/// [answers]: the base answers prompts, which makes a source of shards.
struct AnswersRecipe {
  std::filesystem::path base;
  std::filesystem::path prompts;  ///< what `prompts` wrote
  std::filesystem::path shards;   ///< directory of shards; the source is added to its index
  std::string source = "chats";
  double epochs = 1.0;
  double held_out_fraction = 0.02;
  int64_t sequence_tokens = 1024;  ///< the source's blocks: each begins with a chat
  int64_t answer_tokens = 256;     ///< at most
  int64_t batch = 512;             ///< prompts at once
  double temperature = 0.7;
  double max_minutes = 0.0;  ///< 0: no limit
  uint64_t seed = 1;
  Precision precision = Precision::kBF16;
};

/// [prompts]: instructions around pieces of text, in the base's chat template.
struct PromptsRecipe {
  std::filesystem::path model;  ///< whose tokenizer and chat template
  std::filesystem::path output;
  std::vector<std::string> instructions;  ///< with {text}
  int64_t count = 1000;
  int64_t least_words = 8, most_words = 160;  ///< of a piece of text
  uint64_t seed = 1;
  std::vector<SourceRecipe> sources;
};

/// [alone]: the control; an auxiliary, or kept layers of a base, trained on next tokens.
struct AloneRecipe {
  std::filesystem::path auxiliary;  ///< model directory, or
  std::filesystem::path base;       ///< model directory, of which
  std::string keep;                 ///< "0.75", "0.50", "0.25" are kept
  DataRecipe data;
  OptimizerRecipe optimizer;
  RunRecipe run;
  OutputRecipe output;
};

/// [ridge]: a closed-form predictor between two models as they are.
struct RidgeRecipe {
  PairRecipe pair;
  RidgeFitRecipe fit;
  uint64_t seed = 1;
  DataRecipe data;
  OutputRecipe output;
};

/// Which command a recipe of gradient training is for, by the tables in it.
enum class RecipeKind { kPretrain, kKvp, kAlone };
RecipeKind recipe_kind(const std::filesystem::path& file, const Settings& settings);

/// Whether the recipe has the table of some stage.
bool recipe_has_table(const std::filesystem::path& file, const Settings& settings,
                      const std::string& name);

TokenizerRecipe read_tokenizer_recipe(const std::filesystem::path& file, const Settings& settings);
ShardsRecipe read_shards_recipe(const std::filesystem::path& file, const Settings& settings);
PretrainRecipe read_pretrain_recipe(const std::filesystem::path& file, const Settings& settings);
KvpRecipe read_kvp_recipe(const std::filesystem::path& file, const Settings& settings);
AdaptRecipe read_adapt_recipe(const std::filesystem::path& file, const Settings& settings);
AnswersRecipe read_answers_recipe(const std::filesystem::path& file, const Settings& settings);
PromptsRecipe read_prompts_recipe(const std::filesystem::path& file, const Settings& settings);
AloneRecipe read_alone_recipe(const std::filesystem::path& file, const Settings& settings);
RidgeRecipe read_ridge_recipe(const std::filesystem::path& file, const Settings& settings);

}  // namespace kvcast::train
