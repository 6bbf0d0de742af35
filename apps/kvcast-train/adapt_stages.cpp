#include "adapt_stages.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "train/answers.h"
#include "train/data/error.h"
#include "train/data/shard_index.h"

namespace kvcast::train {
namespace {

/// `kvcast-train-text STAGE RECIPE --set ...`; throws if it fails, having said why itself.
void run_text_stage(const std::string& stage, const RecipeArguments& arguments) {
  std::vector<std::string> words = {text_program(), stage, arguments.recipe};
  for (const std::string& setting : arguments.set) {
    words.emplace_back("--set");
    words.push_back(setting);
  }
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    execv(argv[0], argv.data());
    _exit(127);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
    throw TrainError(fmt::format("adapt: the stage {} failed: {} {}", stage, words[0], stage));
  }
}

bool has_source(const std::filesystem::path& shards, const std::string& name) {
  const ShardIndex index = read_shard_index(shards);
  return std::ranges::any_of(index.sources, [&](const auto& s) { return s.name == name; });
}

}  // namespace

void make_training_data(const RecipeArguments& arguments, const at::Device& device, bool quiet) {
  const Settings settings = arguments.settings();
  const auto has_table = [&](const char* name) {
    return recipe_has_table(arguments.recipe, settings, name);
  };
  if (has_table("shards")) {
    const ShardsRecipe shards = read_shards_recipe(arguments.recipe, settings);
    if (!std::filesystem::exists(shards.output / kShardIndexName)) {
      run_text_stage("shards", arguments);
    }
  }
  if (!has_table("answers")) return;
  const AnswersRecipe answers = read_answers_recipe(arguments.recipe, settings);
  if (has_source(answers.shards, answers.source)) return;
  if (has_table("prompts") && !std::filesystem::exists(answers.prompts)) {
    run_text_stage("prompts", arguments);
  }
  write_answers(answers, device, quiet);
}

std::string text_program() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / "kvcast-train-text").string();
}

}  // namespace kvcast::train
