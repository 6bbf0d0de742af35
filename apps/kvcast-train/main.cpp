// kvcast-train: trains tokenizers, models and KV-prediction bundles. See recipes/README.md.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <cstring>
#include <exception>
#include <filesystem>
#include <string>
#include <string_view>

#include "adapt_stages.h"
#include "base/note.h"
#include "base/shrunken_files.h"
#include "plan_command.h"
#include "recipe_arguments.h"
#include "train/adapt.h"
#include "train/answers.h"
#include "train/closed_form.h"
#include "train/data/error.h"
#include "train/data/rerun.h"
#include "train/heldout.h"
#include "train/kvp.h"
#include "train/pretrain.h"
#include "train/probe.h"

namespace kvcast::train {
namespace {

constexpr int kBadUsage = 2, kFailed = 1, kInterruptedExit = 130;

std::atomic<bool> stop_requested{false};

void request_stop(int) { stop_requested = true; }

/// SIGINT and SIGTERM ask for a checkpoint; a second one ends the program at once.
void install_signal_handlers() {
  struct sigaction action {};
  action.sa_handler = request_stop;
  action.sa_flags = SA_RESETHAND;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

/// `tokenizer`, `shards` and `prompts` are in a program of their own beside this one, because
/// libtorch and SentencePiece cannot share a process (src/train/CMakeLists.txt).
int run_text_program(char** argv) {
  const std::string program = text_program();
  execv(program.c_str(), argv);
  print_note("kvcast-train: {}: cannot run: {}; it is built and installed together with {}\n",
             program, std::strerror(errno), "kvcast-train");
  return kFailed;
}

/// The options of a command that trains.
struct TrainArguments {
  RecipeArguments recipe;
  std::string device = "auto", dtype;
  double max_minutes = -1.0;
  RerunOptions rerun;
  bool quiet = false;

  /// What a command takes that only fits.
  void add_common_to(CLI::App& command) {
    recipe.add_to(command);
    command.add_option("--device", device, "auto, cpu or cuda")
        ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
    command.add_option("--dtype", dtype, "Of the weights written at the end (output.dtype)")
        ->check(CLI::IsMember({"f32", "bf16"}));
    command.add_flag("--overwrite", rerun.overwrite, "Begin again whatever is there");
    command.add_flag("--quiet", quiet, "No progress on stderr");
  }

  void add_to(CLI::App& command) {
    add_common_to(command);
    command.add_flag("--resume", rerun.resume, "Go on from the checkpoint, if there is one")
        ->excludes("--overwrite");
    command
        .add_option("--max-minutes", max_minutes,
                    "End the schedule by then (instead of run.max_minutes)")
        ->check(CLI::NonNegativeNumber);
  }

  [[nodiscard]] Settings settings() const {
    Settings settings = recipe.settings();
    if (max_minutes >= 0)
      settings.emplace_back("run.max_minutes", fmt::format("{:f}", max_minutes));
    if (!dtype.empty()) settings.emplace_back("output.dtype", dtype);
    return settings;
  }
};

/// start_run(), decided by the first process for all of them.
RunStart start_together(Processes& processes, const OutputRecipe& output,
                        const RerunOptions& options) {
  std::string decided;
  if (processes.first()) {
    try {
      decided = std::to_string(static_cast<int>(start_run(output, options)));
    } catch (const TrainError& error) {
      decided = error.what();
    }
  }
  decided = processes.agree(decided);
  if (decided.size() != 1) throw TrainError(decided);
  return static_cast<RunStart>(decided[0] - '0');
}

/// `train_it` with the device and the processes that the command line and the environment say.
template <typename Recipe>
int run_training(const TrainArguments& arguments, const Recipe& recipe,
                 TrainOutcome (*train_it)(const Recipe&, const TrainControl&)) {
  install_signal_handlers();
  const at::Device device = choose_device(arguments.device);
  const auto processes = Processes::from_environment(device);
  const RunStart start = start_together(*processes, recipe.output, arguments.rerun);
  TrainOutcome outcome = TrainOutcome::kFinished;
  if (start != RunStart::kFinished) {
    outcome = train_it(
        recipe, {device, start == RunStart::kFromCheckpoint, arguments.quiet || !processes->first(),
                 &stop_requested, processes.get()});
  } else if (processes->first()) {
    kvcast::print_note("kvcast-train: {}: finished already; nothing to do\n",
                       recipe.output.directory.string());
  }
  if (outcome == TrainOutcome::kFinished) {
    if (processes->first()) fmt::print("{}\n", recipe.output.directory.string());
    return 0;
  }
  if (processes->first()) {
    kvcast::print_note("kvcast-train: interrupted; go on with --resume from {}\n",
                       recipe.output.checkpoint.string());
  }
  return kInterruptedExit;
}

int run_pretrain(const TrainArguments& a) {
  return run_training(a, read_pretrain_recipe(a.recipe.recipe, a.settings()), pretrain);
}
int run_kvp(const TrainArguments& a) {
  return run_training(a, read_kvp_recipe(a.recipe.recipe, a.settings()), train_kvp);
}
int run_alone(const TrainArguments& a) {
  return run_training(a, read_alone_recipe(a.recipe.recipe, a.settings()), train_alone);
}

int run_adapt(const TrainArguments& a) {
  make_training_data(a.recipe, choose_device(a.device), a.quiet);
  return run_training(a, read_adapt_recipe(a.recipe.recipe, a.settings()), train_adapt);
}

int run_answers(const TrainArguments& arguments) {
  const auto recipe = read_answers_recipe(arguments.recipe.recipe, arguments.recipe.settings());
  const AnswersReport report =
      write_answers(recipe, choose_device(arguments.device), arguments.quiet);
  fmt::print("{}: {} chats, {} tokens in {:.0f} s\n", recipe.source, report.chats, report.tokens,
             report.seconds);
  return 0;
}

int run_ridge(const TrainArguments& arguments) {
  const auto recipe = read_ridge_recipe(arguments.recipe.recipe, arguments.settings());
  refuse_to_overwrite(recipe.output.directory, arguments.rerun.overwrite);
  train_ridge(recipe, choose_device(arguments.device), arguments.quiet);
  fmt::print("{}\n", recipe.output.directory.string());
  return 0;
}

struct ProbeArguments {
  ProbeOptions options;
  std::string device = "cpu", dtype = "f32";
  bool json = false;

  void add_to(CLI::App& command) {
    command.add_option("bundle", options.bundle, "KV-prediction bundle")->required();
    command
        .add_option("--batch", options.batch, "safetensors with input_ids and targets, [B, T] I64")
        ->required();
    command.add_option("--lambda-base", options.loss.lambda_base)->capture_default_str();
    command.add_option("--lambda-auxiliary", options.loss.lambda_auxiliary)->capture_default_str();
    command.add_option("--lambda-consistency", options.lambda_consistency,
                       "On the sum over layers; default 1 / base layers");
    command.add_option("--z-loss", options.loss.cross_entropy.z_loss)->capture_default_str();
    command.add_option("--ignore-index", options.loss.cross_entropy.ignore_index)
        ->capture_default_str();
    command.add_option("--device", device)
        ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
        ->capture_default_str();
    command.add_option("--dtype", dtype, "Of matrix products")
        ->check(CLI::IsMember({"f32", "bf16"}))
        ->capture_default_str();
    command.add_option("--out", options.out,
                       "safetensors to write: logits (exact/, auxiliary/, train/), caches, grad/");
    command.add_flag("--json", json, "One JSON object instead of lines");
  }
};

int run_probe(ProbeArguments& arguments) {
  arguments.options.device = choose_device(arguments.device);
  arguments.options.compute = arguments.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  const ProbeResult result = probe(arguments.options);
  if (arguments.json) {
    fmt::print("{}\n", result.report.dump(1));
    return 0;
  }
  for (const auto& group : {"losses", "grad_norms"}) {
    for (const auto& [name, value] : result.report[group].items()) {
      fmt::print("{:60} {:.6f}\n", name, value.get<double>());
    }
  }
  return 0;
}

struct HeldoutArguments {
  HeldoutOptions options;
  std::string device = "auto", dtype = "f32";

  void add_to(CLI::App& command) {
    command.add_option("model", options.models, "Model directories and bundles")->required();
    command.add_option("--shards", options.shards, "Directory that `shards` wrote")->required();
    command.add_option("--alone", options.alone,
                       "The auxiliary trained by itself: where none of the gap is closed");
    command.add_option("--prefix", options.prefix_tokens)->capture_default_str();
    command.add_option("--suffix", options.suffix_tokens)->capture_default_str();
    command.add_option("--tail", options.tails, "Prompt tokens that the base runs itself: 1,16")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->capture_default_str();
    command.add_option("--windows", options.max_windows, "At most this many; 0: all")
        ->capture_default_str();
    command.add_option("--batch", options.batch_windows)
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    command.add_option("--device", device)->check(CLI::IsMember({"auto", "cpu", "cuda"}));
    command.add_option("--dtype", dtype)->check(CLI::IsMember({"f32", "bf16"}));
  }
};

int run_heldout(HeldoutArguments& arguments) {
  arguments.options.device = choose_device(arguments.device);
  arguments.options.compute = arguments.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  fmt::print("{}\n", heldout(arguments.options).dump(1));
  return 0;
}

int run(int argc, char** argv) {
  if (argc > 1 &&
      (std::string_view(argv[1]) == "tokenizer" || std::string_view(argv[1]) == "shards" ||
       std::string_view(argv[1]) == "prompts")) {
    return run_text_program(argv);
  }
  CLI::App app("Trains tokenizers, models and KV-prediction bundles", "kvcast-train");
  app.require_subcommand(1);
  app.failure_message(one_line_failure);
  app.add_subcommand("tokenizer", "Train a SentencePiece tokenizer: kvcast-train tokenizer RECIPE");
  app.add_subcommand("shards", "Turn text into shards of tokens: kvcast-train shards RECIPE");
  TrainArguments training;
  auto* pretrain_command = app.add_subcommand("pretrain", "Train a model on next tokens");
  training.add_to(*pretrain_command);
  auto* kvp_command = app.add_subcommand("kvp", "Train auxiliary and predictor for a frozen base");
  training.add_to(*kvp_command);
  auto* alone_command =
      app.add_subcommand("alone", "Train an auxiliary, or kept layers of a base, by itself");
  training.add_to(*alone_command);
  auto* ridge_command =
      app.add_subcommand("ridge", "Fit a predictor in closed form, nothing else trained");
  training.add_common_to(*ridge_command);
  auto* adapt_command = app.add_subcommand(
      "adapt", "Train a forecast from a model's own first layers and a few trained ones");
  training.add_to(*adapt_command);
  app.add_subcommand("prompts", "Make prompts of text: kvcast-train prompts RECIPE");
  auto* answers_command =
      app.add_subcommand("answers", "Let the base answer prompts: chats to train on");
  training.add_common_to(*answers_command);
  PlanArguments planning;
  auto* plan_command = app.add_subcommand("plan", "Memory, operations and hours of a run");
  planning.add_to(*plan_command);
  HeldoutArguments held_out;
  auto* heldout_command =
      app.add_subcommand("heldout", "Held-out losses of a model or bundle, JSON");
  held_out.add_to(*heldout_command);
  ProbeArguments probing;
  auto* probe_command = app.add_subcommand("probe", "Losses and gradient norms of one batch");
  probing.add_to(*probe_command);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kBadUsage;
  }
  // A file that may not grow any further is an error of write(), not the end of the program.
  std::signal(SIGXFSZ, SIG_IGN);
  if (*pretrain_command) return run_pretrain(training);
  if (*kvp_command) return run_kvp(training);
  if (*alone_command) return run_alone(training);
  if (*ridge_command) return run_ridge(training);
  if (*adapt_command) return run_adapt(training);
  if (*answers_command) return run_answers(training);
  if (*plan_command) return run_plan(planning);
  if (*heldout_command) return run_heldout(held_out);
  return run_probe(probing);
}

}  // namespace
}  // namespace kvcast::train

int main(int argc, char** argv) {
  kvcast::report_shrunken_files("kvcast-train");
  try {
    return kvcast::train::run(argc, argv);
  } catch (const c10::Error& error) {
    // what() carries a backtrace; the message alone is one line.
    const std::string message = error.what_without_backtrace();
    kvcast::print_note("kvcast-train: libtorch: {}\n", message.substr(0, message.find('\n')));
  } catch (const std::exception& error) {
    kvcast::print_note("kvcast-train: {}\n", error.what());
  }
  return kvcast::train::kFailed;
}
