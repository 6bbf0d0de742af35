#include "train/data/recipe.h"

#include <algorithm>
#include <limits>
#include <set>

#include "train/data/error.h"
#include "train/data/toml_reader.h"

namespace kvcast::train {
namespace {

constexpr int64_t kMany = int64_t{1} << 40;
constexpr double kHuge = 1e12;

/// A recipe may hold the tables of several stages; a name that no stage has is a mistake.
const std::set<std::string> kStages = {"tokenizer", "shards", "source", "prompts",
                                       "answers",   "adapt",  "ridge",  "data",
                                       "optimizer", "run",    "output"};

uint64_t seed_of(TomlTable& table) {
  return static_cast<uint64_t>(table.integer("seed", 1, 0, std::numeric_limits<int64_t>::max()));
}

std::vector<SourceRecipe> read_sources(TomlFile& file) {
  std::vector<SourceRecipe> sources;
  for (auto& table : file.tables("source")) {
    SourceRecipe source;
    source.path = table.text("path");
    const std::string file_name = source.path.filename().string();
    source.name = table.text("name", file_name.substr(0, file_name.find('.')));
    source.epochs = table.number("epochs", 1.0, 0.001, 1000.0);
    source.encoding = table.choice<TextEncoding>(
        "encoding", {{"utf-8", TextEncoding::kUtf8}, {"replace", TextEncoding::kReplace}});
    table.reject_unknown_keys();
    const auto same = [&](const SourceRecipe& other) { return other.name == source.name; };
    if (std::any_of(sources.begin(), sources.end(), same) ||
        source.name.find('/') != std::string::npos) {
      table.fail("name", "a name of its own for each source, without /");
    }
    sources.push_back(std::move(source));
  }
  return sources;
}

DataRecipe read_data(TomlFile& file) {
  auto table = file.table("data", true);
  DataRecipe data;
  data.shards = table.text("shards");
  data.sequence_tokens = table.integer("sequence_tokens", data.sequence_tokens, 2, 1 << 20);
  data.begin_with_bos = table.boolean("begin_with_bos", data.begin_with_bos);
  table.reject_unknown_keys();
  return data;
}

OptimizerRecipe read_optimizer(TomlFile& file) {
  auto table = file.table("optimizer", false);
  OptimizerRecipe o;
  o.learning_rate = table.number("learning_rate", o.learning_rate, 0.0, 10.0);
  o.final_fraction = table.number("final_fraction", o.final_fraction, 0.0, 1.0);
  o.warmup_steps = table.integer("warmup_steps", o.warmup_steps, 0, kMany);
  o.weight_decay = table.number("weight_decay", o.weight_decay, 0.0, 10.0);
  o.beta1 = table.number("beta1", o.beta1, 0.0, 0.9999);
  o.beta2 = table.number("beta2", o.beta2, 0.0, 0.99999);
  o.eps = table.number("eps", o.eps, 1e-16, 1.0);
  o.clip_norm = table.number("clip_norm", o.clip_norm, 1e-6, kHuge);
  o.z_loss = table.number("z_loss", o.z_loss, 0.0, 1.0);
  o.muon = table.choice<bool>("matrices", {{"adamw", false}, {"muon", true}});
  table.reject_unknown_keys();
  return o;
}

RunRecipe read_run(TomlFile& file) {
  auto table = file.table("run", true);
  RunRecipe run;
  run.steps = table.integer("steps", 1, kMany);
  run.micro_batch_sequences = table.integer("micro_batch_sequences", 1, 1 << 20);
  run.accumulation = table.integer("accumulation", run.accumulation, 1, 1 << 20);
  run.seed = seed_of(table);
  run.precision = table.precision("precision", run.precision);
  run.max_minutes = table.number("max_minutes", run.max_minutes, 0.0, kHuge);
  run.log_every = table.integer("log_every", run.log_every, 1, kMany);
  run.checkpoint_minutes = table.number("checkpoint_minutes", run.checkpoint_minutes, 0.0, kHuge);
  run.checkpoint_steps = table.integer("checkpoint_steps", run.checkpoint_steps, 0, kMany);
  run.max_loss_jump = table.number("max_loss_jump", run.max_loss_jump, 0.0, kHuge);
  run.peak_teraflops = table.number("peak_teraflops", run.peak_teraflops, 0.0, kHuge);
  run.recompute = table.recompute("recompute");
  table.reject_unknown_keys();
  return run;
}

OutputRecipe read_output(TomlFile& file) {
  auto table = file.table("output", true);
  OutputRecipe output;
  std::string directory = table.text("directory");
  while (directory.size() > 1 && directory.back() == '/') directory.pop_back();
  output.directory = directory;
  output.checkpoint = table.text("checkpoint", directory + ".checkpoint");
  output.log = table.text("log", directory + ".jsonl");
  output.dtype = table.precision("dtype", output.dtype);
  output.shard_bytes = table.integer("shard_bytes", output.shard_bytes, 1, kMany);
  table.reject_unknown_keys();
  return output;
}

ModelRecipe read_model(TomlFile& file) {
  auto table = file.table("model", true);
  ModelRecipe model;
  model.start = table.text("start", "");
  if (model.start.empty()) {
    model.layers = table.integer("layers", 1, 1024);
    model.model_dim = table.integer("model_dim", 8, 1 << 17);
    model.head_dim = table.integer("head_dim", model.head_dim, 2, 512);
    model.gqa_groups = table.integer("gqa_groups", model.gqa_groups, 1, 256);
    model.ffn_dim_divisor = table.integer("ffn_dim_divisor", model.ffn_dim_divisor, 1, 1 << 16);
    model.max_context_tokens = table.integer("max_context_tokens", 2048, 2, 1 << 20);
    if (model.head_dim % 2 != 0) table.fail("head_dim", "an even number (RoPE turns pairs)");
  }
  table.reject_unknown_keys();
  return model;
}

PairRecipe read_pair(TomlTable& table) {
  PairRecipe pair;
  pair.base = table.text("base");
  pair.auxiliary = table.text("auxiliary", "");
  pair.keep = table.text("keep", "");
  if (pair.auxiliary.empty() == pair.keep.empty()) {
    table.fail("auxiliary",
               R"(either auxiliary = "MODEL DIRECTORY" or keep = "0.75", "0.50", "0.25")");
  }
  if (table.is_text("layer_map")) {
    using Rule = PairRecipe::LayerMapRule;
    pair.layer_map_rule = table.choice<Rule>(
        "layer_map",
        {{"paper", Rule::kPaper}, {"ridge", Rule::kRidge}, {"ridge-free", Rule::kRidgeFree}});
  } else {
    pair.layer_map = table.integers("layer_map");
  }
  pair.copy_base = table.boolean("copy_base", pair.copy_base);
  return pair;
}

RidgeFitRecipe read_ridge_fit(TomlTable& table) {
  RidgeFitRecipe fit;
  fit.tokens = table.integer("tokens", fit.tokens, 1024, kMany);
  fit.held_out_tokens = table.integer("held_out_tokens", fit.held_out_tokens, 1, kMany);
  fit.regularisation = table.number("regularisation", fit.regularisation, 0.0, kHuge);
  return fit;
}

void read_kvp_losses(TomlTable& table, KvpRecipe& recipe) {
  recipe.auxiliary_kv_only_last =
      table.boolean("auxiliary_kv_only_last", recipe.auxiliary_kv_only_last);
  recipe.lambda_base = table.number("lambda_base", recipe.lambda_base, 0.0, kHuge);
  recipe.lambda_auxiliary =
      table.number("lambda_auxiliary", recipe.auxiliary_kv_only_last ? 0.0 : 1.0, 0.0, kHuge);
  if (recipe.auxiliary_kv_only_last && recipe.lambda_auxiliary > 0.0) {
    table.fail("lambda_auxiliary", "0 with auxiliary_kv_only_last, which leaves it no output");
  }
  // Without a loss of its own what follows the last keys and values gets no gradient.
  if (recipe.lambda_auxiliary == 0.0) recipe.auxiliary_kv_only_last = true;
  recipe.lambda_consistency = table.number("lambda_consistency", -1.0, 0.0, kHuge);
  recipe.lambda_kl = table.number("lambda_kl", recipe.lambda_kl, 0.0, kHuge);
  recipe.consistency =
      table.choice<Consistency>("consistency", {{"l1", Consistency::kL1},
                                                {"attention-output", Consistency::kAttentionOutput},
                                                {"none", Consistency::kNone}});
}

void read_passes(TomlTable& table, KvpRecipe& recipe) {
  recipe.split_share = table.number("split_share", recipe.split_share, 0.0, 1.0);
  recipe.split_from = table.number("split_from", recipe.split_from, 0.0, 1.0);
  recipe.split_to = table.number("split_to", recipe.split_to, recipe.split_from, 1.0);
  if (recipe.split_to < recipe.split_from) {  // where only one of them is given
    table.fail("split_to", "a number from split_from on");
  }
  recipe.tail_max = table.integer("tail_max", recipe.tail_max, 1, 1 << 20);
}

/// The tables that every recipe of gradient training has; nothing else may follow.
template <typename Recipe>
void read_training(TomlFile& file, Recipe& recipe, const std::set<std::string>& others = {}) {
  recipe.data = read_data(file);
  recipe.optimizer = read_optimizer(file);
  recipe.run = read_run(file);
  recipe.output = read_output(file);
  file.reject_unknown_tables(others);
}

}  // namespace

RecipeKind recipe_kind(const std::filesystem::path& path, const Settings& settings) {
  const TomlFile file(path, settings);
  if (file.has_table("alone")) return RecipeKind::kAlone;
  if (file.has_table("kvp")) return RecipeKind::kKvp;
  if (file.has_table("model")) return RecipeKind::kPretrain;
  throw TrainError(path.string() + ": expected a table [kvp], [alone] or [model]");
}

bool recipe_has_table(const std::filesystem::path& file, const Settings& settings,
                      const std::string& name) {
  return TomlFile(file, settings).has_table(name);
}

TokenizerRecipe read_tokenizer_recipe(const std::filesystem::path& path, const Settings& settings) {
  TomlFile file(path, settings);
  auto table = file.table("tokenizer", true);
  TokenizerRecipe recipe;
  recipe.output = table.text("output");
  recipe.algorithm = table.text("algorithm", recipe.algorithm);
  if (recipe.algorithm != "bpe" && recipe.algorithm != "unigram") {
    table.fail("algorithm", R"("bpe" or "unigram")");
  }
  recipe.vocab_size = table.integer("vocab_size", 300, 1 << 24);
  recipe.sample_fraction = table.number("sample_fraction", recipe.sample_fraction, 1e-6, 1.0);
  recipe.dummy_prefix = table.boolean("dummy_prefix", recipe.dummy_prefix);
  recipe.seed = seed_of(table);
  recipe.threads = table.integer("threads", 0, 0, 1024);
  table.reject_unknown_keys();
  recipe.sources = read_sources(file);
  file.reject_unknown_tables(kStages);
  return recipe;
}

ShardsRecipe read_shards_recipe(const std::filesystem::path& path, const Settings& settings) {
  TomlFile file(path, settings);
  auto table = file.table("shards", true);
  ShardsRecipe recipe;
  recipe.output = table.text("output");
  recipe.tokenizer = table.text("tokenizer");
  recipe.held_out_fraction = table.number("held_out_fraction", recipe.held_out_fraction, 0.0, 0.5);
  recipe.shard_tokens = table.integer("shard_tokens", recipe.shard_tokens, 1024, kMany);
  recipe.seed = seed_of(table);
  recipe.threads = table.integer("threads", 0, 0, 1024);
  table.reject_unknown_keys();
  recipe.sources = read_sources(file);
  file.reject_unknown_tables(kStages);
  return recipe;
}

PretrainRecipe read_pretrain_recipe(const std::filesystem::path& path, const Settings& settings) {
  TomlFile file(path, settings);
  PretrainRecipe recipe;
  recipe.model = read_model(file);
  read_training(file, recipe);
  return recipe;
}

KvpRecipe read_kvp_recipe(const std::filesystem::path& path, const Settings& settings) {
  TomlFile file(path, settings);
  auto table = file.table("kvp", true);
  KvpRecipe recipe;
  recipe.pair = read_pair(table);
  read_kvp_losses(table, recipe);
  recipe.ridge_init = table.choice<bool>("predictor_init", {{"default", false}, {"ridge", true}});
  read_passes(table, recipe);
  table.reject_unknown_keys();
  auto ridge = file.table("ridge", false);
  recipe.ridge = read_ridge_fit(ridge);
  ridge.reject_unknown_keys();
  read_training(file, recipe);
  return recipe;
}

AdaptRecipe read_adapt_recipe(const std::filesystem::path& path, const Settings& settings) {
  TomlFile file(path, settings);
  auto table = file.table("adapt", true);
  AdaptRecipe recipe;
  recipe.pair.base = table.text("base");
  recipe.exact_layers = table.integer("exact_layers", recipe.exact_layers, 0, 1024);
  recipe.trained_layers = table.integers("trained_layers");
  recipe.pair.auxiliary = table.text("auxiliary", "");
  if (recipe.trained_layers.empty() == recipe.pair.auxiliary.empty()) {
    table.fail("trained_layers", "a list of layers, or `auxiliary`, a model directory");
  }
  if (recipe.exact_layers == 0 && recipe.pair.auxiliary.empty()) {
    table.fail("exact_layers", "1 or more, or an `auxiliary`");
  }
  recipe.train_auxiliary = table.boolean("train_auxiliary", recipe.train_auxiliary);
  if (!recipe.train_auxiliary && recipe.pair.auxiliary.empty()) {
    table.fail("train_auxiliary", "true, or an `auxiliary` that reads as it is");
  }
  recipe.mix = table.number("mix", recipe.mix, 0.0, 0.99);
  if (recipe.mix > 0.0 && recipe.train_auxiliary) {
    table.fail("mix", "0, or `train_auxiliary = false`: what has a say is an auxiliary as it is");
  }
  recipe.start = table.text("start", "");
  recipe.sequence_splits = table.choice<bool>("splits", {{"step", false}, {"sequence", true}});
  recipe.prefix_weight = table.number("prefix_weight", recipe.prefix_weight, 0.0, 1.0);
  recipe.prompt_end = table.integers("prompt_end");
  recipe.prompt_end_share = table.number("prompt_end_share", recipe.prompt_end_share, 0.0, 1.0);
  recipe.rank = table.integer("rank", recipe.rank, 0, 4096);
  recipe.sink_tokens = table.integer("sink_tokens", recipe.sink_tokens, 0, 1024);
  recipe.beside = table.integers("beside");
  if (std::ranges::adjacent_find(recipe.beside, std::ranges::greater_equal()) !=
          recipe.beside.end() ||
      (!recipe.beside.empty() && recipe.beside.front() < 0)) {
    table.fail("beside", "ascending numbers of streams, 0: what enters the first layer that reads");
  }
  recipe.lambda_base = table.number("lambda_base", 0.0, 0.0, kHuge);
  recipe.lambda_kl = table.number("lambda_kl", 1.0, 0.0, kHuge);
  recipe.lambda_auxiliary = table.number("lambda_auxiliary", 0.0, 0.0, kHuge);
  if (recipe.lambda_auxiliary > 0.0 && (recipe.pair.auxiliary.empty() || !recipe.train_auxiliary)) {
    table.fail("lambda_auxiliary", "0, or an `auxiliary` that is trained");
  }
  recipe.consistency = Consistency::kNone;
  recipe.auxiliary_kv_only_last = recipe.lambda_auxiliary == 0.0;
  read_passes(table, recipe);
  table.reject_unknown_keys();
  auto ridge = file.table("ridge", false);
  recipe.ridge = read_ridge_fit(ridge);
  ridge.reject_unknown_keys();
  read_training(file, recipe, kStages);
  return recipe;
}

AnswersRecipe read_answers_recipe(const std::filesystem::path& path, const Settings& settings) {
  TomlFile file(path, settings);
  auto table = file.table("answers", true);
  AnswersRecipe recipe;
  recipe.base = table.text("base");
  recipe.prompts = table.text("prompts");
  recipe.shards = table.text("shards");
  recipe.source = table.text("source", recipe.source);
  recipe.epochs = table.number("epochs", recipe.epochs, 0.001, 1000.0);
  recipe.held_out_fraction = table.number("held_out_fraction", recipe.held_out_fraction, 0.0, 0.5);
  recipe.sequence_tokens = table.integer("sequence_tokens", recipe.sequence_tokens, 2, 1 << 20);
  recipe.answer_tokens = table.integer("answer_tokens", recipe.answer_tokens, 1, 1 << 20);
  recipe.batch = table.integer("batch", recipe.batch, 1, 1 << 16);
  recipe.temperature = table.number("temperature", recipe.temperature, 0.0, 100.0);
  recipe.max_minutes = table.number("max_minutes", recipe.max_minutes, 0.0, kHuge);
  recipe.seed = seed_of(table);
  recipe.precision = table.precision("precision", recipe.precision);
  table.reject_unknown_keys();
  file.reject_unknown_tables(kStages);
  return recipe;
}

PromptsRecipe read_prompts_recipe(const std::filesystem::path& path, const Settings& settings) {
  TomlFile file(path, settings);
  auto table = file.table("prompts", true);
  PromptsRecipe recipe;
  recipe.model = table.text("model");
  recipe.output = table.text("output");
  recipe.instructions = table.texts("instructions");
  recipe.count = table.integer("count", recipe.count, 1, kMany);
  recipe.least_words = table.integer("least_words", recipe.least_words, 1, 1 << 20);
  recipe.most_words = table.integer("most_words", recipe.most_words, recipe.least_words, 1 << 20);
  if (recipe.most_words < recipe.least_words) {  // where only one of them is given
    table.fail("most_words", "a whole number from least_words on");
  }
  recipe.seed = seed_of(table);
  table.reject_unknown_keys();
  recipe.sources = read_sources(file);
  file.reject_unknown_tables(kStages);
  return recipe;
}

AloneRecipe read_alone_recipe(const std::filesystem::path& path, const Settings& settings) {
  TomlFile file(path, settings);
  auto table = file.table("alone", true);
  AloneRecipe recipe;
  recipe.auxiliary = table.text("auxiliary", "");
  recipe.base = table.text("base", "");
  recipe.keep = table.text("keep", "");
  if (file.has_table("kvp") && recipe.auxiliary.empty() && recipe.keep.empty()) {
    auto kvp = file.table("kvp", true);
    const PairRecipe pair = read_pair(kvp);
    recipe.auxiliary = pair.auxiliary;
    recipe.keep = pair.keep;
    if (!pair.keep.empty()) recipe.base = pair.base;
  }
  if (recipe.auxiliary.empty() == recipe.keep.empty() ||
      recipe.base.empty() != recipe.keep.empty()) {
    table.fail("auxiliary", R"(either auxiliary, or base and keep = "0.75", "0.50", "0.25")");
  }
  table.reject_unknown_keys();
  read_training(file, recipe);
  return recipe;
}

RidgeRecipe read_ridge_recipe(const std::filesystem::path& path, const Settings& settings) {
  TomlFile file(path, settings);
  auto table = file.table("ridge", true);
  RidgeRecipe recipe;
  recipe.pair = read_pair(table);
  recipe.fit = read_ridge_fit(table);
  recipe.seed = seed_of(table);
  table.reject_unknown_keys();
  recipe.data = read_data(file);
  recipe.output = read_output(file);
  file.reject_unknown_tables();
  return recipe;
}

}  // namespace kvcast::train
