// Any bytes as a recipe of the trainer, with settings from a command line: refused with a message,
// or what every command may rely on.
#include <set>
#include <type_traits>

#include "fuzz.h"
#include "train/data/error.h"
#include "train/data/recipe.h"

namespace kvcast::train {
namespace {

void check_sources(const std::vector<SourceRecipe>& sources) {
  std::set<std::string> names;
  for (const SourceRecipe& source : sources) {
    FUZZ_CHECK(!source.path.empty() && source.name.find('/') == std::string::npos);
    FUZZ_CHECK(names.insert(source.name).second);
    FUZZ_CHECK(source.epochs > 0 && source.epochs <= 1000);
  }
  FUZZ_CHECK(!names.empty());
}

template <typename Recipe>
void check_training(const Recipe& recipe) {
  FUZZ_CHECK(!recipe.data.shards.empty() && recipe.data.sequence_tokens >= 2);
  FUZZ_CHECK(!recipe.output.directory.empty());
  FUZZ_CHECK(recipe.run.steps >= 1 && recipe.run.micro_batch_sequences >= 1);
  FUZZ_CHECK(recipe.run.accumulation >= 1 && recipe.run.log_every >= 1);
  FUZZ_CHECK(recipe.optimizer.learning_rate >= 0 && recipe.optimizer.eps > 0);
}

void check_recipe(const TokenizerRecipe& recipe) {
  FUZZ_CHECK(!recipe.output.empty() && recipe.vocab_size > 0);
  check_sources(recipe.sources);
}
void check_recipe(const ShardsRecipe& recipe) {
  FUZZ_CHECK(!recipe.output.empty() && recipe.shard_tokens > 0);
  FUZZ_CHECK(recipe.held_out_fraction >= 0 && recipe.held_out_fraction <= 1);
  check_sources(recipe.sources);
}
void check_recipe(const PretrainRecipe& recipe) { check_training(recipe); }
void check_recipe(const KvpRecipe& recipe) {
  FUZZ_CHECK(recipe.pair.auxiliary.empty() != recipe.pair.keep.empty());
  FUZZ_CHECK(recipe.split_from <= recipe.split_to && recipe.tail_max >= 1);
  check_training(recipe);
}
void check_recipe(const AdaptRecipe& recipe) { check_training(recipe); }
void check_recipe(const AloneRecipe& recipe) {
  FUZZ_CHECK(recipe.auxiliary.empty() != recipe.keep.empty());
  check_training(recipe);
}
void check_recipe(const RidgeRecipe& recipe) {
  FUZZ_CHECK(recipe.fit.tokens > 0 && recipe.fit.held_out_tokens > 0);
}
void check_recipe(const AnswersRecipe& recipe) {
  FUZZ_CHECK(recipe.batch > 0 && recipe.answer_tokens > 0);
}
void check_recipe(const PromptsRecipe& recipe) {
  FUZZ_CHECK(!recipe.instructions.empty() && recipe.least_words <= recipe.most_words);
  check_sources(recipe.sources);
}

/// What `read` gives, if it is not refused with a line as the programs print it.
template <typename Read>
void try_reading(const Read& read) {
  try {
    read();
  } catch (const TrainError& error) {
    FUZZ_CHECK(error.what()[0] != '\0');
    check_message(one_line(error.what()));
  }
}

}  // namespace
}  // namespace kvcast::train

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvcast;
  using namespace kvcast::train;
  static const MemoryFile file;
  Input input(data, size);
  Settings settings(input.byte() % 3);
  for (auto& [name, value] : settings) {
    name = input.text(32);
    value = input.text(32);
  }
  file.set(input.rest());
  const auto read_all = [&](auto... readers) {
    (try_reading([&] { check_recipe(readers(file.path(), settings)); }), ...);
  };
  read_all(read_tokenizer_recipe, read_shards_recipe, read_pretrain_recipe, read_kvp_recipe,
           read_adapt_recipe, read_answers_recipe, read_prompts_recipe, read_alone_recipe,
           read_ridge_recipe);
  try_reading([&] { (void)recipe_kind(file.path(), settings); });
  return 0;
}
