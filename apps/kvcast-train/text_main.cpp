// kvcast-train-text: the commands of kvcast-train that need SentencePiece and not libtorch
// (src/train/CMakeLists.txt says why they are apart). kvcast-train runs it.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <exception>
#include <filesystem>
#include <memory>
#include <string>

#include "base/mapped_file.h"
#include "base/note.h"
#include "base/shrunken_files.h"
#include "model/model_text.h"
#include "recipe_arguments.h"
#include "tokenizer/tokenizer.h"
#include "train/data/error.h"
#include "train/data/rerun.h"
#include "train/data/shard_index.h"
#include "train/data/shard_writer.h"
#include "train/text/prompts.h"
#include "train/text/train_tokenizer.h"
#include "train/text/word_encoder.h"

namespace kvcast::train {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct TextArguments : RecipeArguments {
  bool overwrite = false;

  void add_to(CLI::App& command) {
    RecipeArguments::add_to(command);
    command.add_flag("--overwrite", overwrite, "Replace what is there");
  }
};

void run_tokenizer(const TextArguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  const TokenizerRecipe recipe = read_tokenizer_recipe(arguments.recipe, arguments.settings());
  refuse_to_overwrite(recipe.output, arguments.overwrite);
  const TokenizerReport report = train_tokenizer(recipe);
  fmt::print("{}: {} pieces from {} lines, {:.1f} MB, in {:.1f} s\n", recipe.output.string(),
             report.vocab_size, report.lines, static_cast<double>(report.text_bytes) / 1e6,
             seconds_since(start));
}

void run_shards(const TextArguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  const ShardsRecipe recipe = read_shards_recipe(arguments.recipe, arguments.settings());
  refuse_to_overwrite(recipe.output / kShardIndexName, arguments.overwrite);
  const auto tokenizer = unwrap(open_tokenizer({}, recipe.tokenizer));
  TextEncoder encoder;
  encoder.vocab_size = tokenizer->vocab_size();
  encoder.bos_token = tokenizer->bos_token();
  encoder.eos_token = tokenizer->eos_token();
  if (encoder.bos_token < 0 || encoder.eos_token < 0) {
    throw TrainError(recipe.tokenizer.string() + ": expected BOS and EOS among the pieces");
  }
  encoder.for_thread = [&tokenizer, breaks = line_break_tokens(*tokenizer)]() -> Encode {
    const auto words = std::make_shared<WordEncoder>(*tokenizer, breaks);
    return [words](std::string_view text, std::vector<int32_t>& ids) { words->encode(text, ids); };
  };
  // The index, which comes last, is what makes the directory one of shards.
  std::filesystem::create_directories(recipe.output);
  std::filesystem::remove(recipe.output / kShardIndexName);
  if (recipe.tokenizer.extension() == ".model") {  // others are known by their vocabulary's size
    std::filesystem::copy_file(recipe.tokenizer, recipe.output / "tokenizer.model",
                               std::filesystem::copy_options::overwrite_existing);
  }
  const bool terminal = isatty(STDERR_FILENO) != 0;
  const double interval_s = terminal ? 0.2 : 10.0;
  double next_report_s = 0.0;
  const ShardIndex index = write_shards(recipe, encoder, [&](const ShardProgress& done) {
    if (seconds_since(start) < next_report_s) return;
    next_report_s = seconds_since(start) + interval_s;
    print_note(
        "{}shards  {}  {} documents  {:.1f}M tokens  {:.1f} MB/s{}", terminal ? "\r\033[K" : "",
        done.source, done.documents, static_cast<double>(done.tokens) / 1e6,
        static_cast<double>(done.text_bytes) / 1e6 / seconds_since(start), terminal ? "" : "\n");
  });
  if (terminal) print_note("\n");
  int64_t text_bytes = 0;
  for (const auto& source : index.sources) {
    text_bytes += source.train.text_bytes + source.held_out.text_bytes;
    fmt::print("{}: {} documents, {} tokens; held out {} documents, {} tokens\n", source.name,
               source.train.documents, source.train.tokens, source.held_out.documents,
               source.held_out.tokens);
  }
  const double mb = static_cast<double>(text_bytes) / 1e6;
  fmt::print("{:.1f} MB of text in {:.1f} s, {:.1f} MB/s\n", mb, seconds_since(start),
             mb / seconds_since(start));
}

void run_prompts(const TextArguments& arguments) {
  const PromptsRecipe recipe = read_prompts_recipe(arguments.recipe, arguments.settings());
  refuse_to_overwrite(recipe.output, arguments.overwrite);
  const PromptsReport report = write_prompts(recipe);
  fmt::print("{}: {} prompts, {} tokens\n", recipe.output.string(), report.prompts, report.tokens);
}

int run(int argc, char** argv) {
  CLI::App app("The commands of kvcast-train that handle text", "kvcast-train");
  app.require_subcommand(1);
  app.failure_message(one_line_failure);
  TextArguments arguments;
  auto* tokenizer = app.add_subcommand("tokenizer", "Train a SentencePiece tokenizer");
  arguments.add_to(*tokenizer);
  auto* shards = app.add_subcommand("shards", "Turn text into shards of tokens");
  arguments.add_to(*shards);
  auto* prompts = app.add_subcommand("prompts", "Make prompts of text");
  arguments.add_to(*prompts);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    if (*tokenizer) run_tokenizer(arguments);
    if (*shards) run_shards(arguments);
    if (*prompts) run_prompts(arguments);
    return 0;
  } catch (const std::exception& error) {
    print_note("kvcast-train: {}\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace kvcast::train

int main(int argc, char** argv) {
  kvcast::report_shrunken_files("kvcast-train");
  return kvcast::train::run(argc, argv);
}
