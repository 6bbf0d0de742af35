#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "base/macros.h"
#include "base/mapped_file.h"
#include "base/stopwatch.h"
#include "base/table.h"
#include "bench.h"
#include "command.h"
#include "eval/data_file.h"
#include "eval/result_file.h"
#include "eval/run.h"
#include "models_folder.h"
#include "runtime/model_impl.h"

namespace kvcast {
namespace {

struct EvalOptions {
  ModelOptions model;
  TaskOptions task;
  RunOptions run;
  std::string name, data, shots_data, samples, outputs, out, label;
  std::vector<std::string> prefills;
  std::vector<int64_t> lengths = {128, 256, 512};
  int64_t timing_repetitions = 5;
  int64_t drafts = kDraftsAuto;
  bool predicted_scoring = false, no_bos = false, json = false;
};

/// A line that is written over while examples are done; nothing unless stderr is a terminal.
class ProgressBar {
 public:
  explicit ProgressBar(std::string title) : title_(std::move(title)) {}
  ~ProgressBar() {
    if (shown_) show_progress("");
  }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void show(size_t done, size_t all) {
    if (all == 0) return;
    if (!shown_) first_ = done;  // what an earlier run had done costs no time now
    shown_ = true;
    constexpr size_t kWidth = 30;
    const size_t filled = kWidth * done / all;
    std::string left = "";
    if (done > first_) {
      const double per_example = watch_.elapsed_ms() * 1e-3 / static_cast<double>(done - first_);
      const auto seconds = static_cast<int64_t>(per_example * static_cast<double>(all - done));
      left = fmt::format(", {}:{:02} left", seconds / 60, seconds % 60);
    }
    show_progress(fmt::format("{} of {}{} [{}{}] {}", done, all, left, std::string(filled, '#'),
                              std::string(kWidth - filled, ' '), title_));
  }

 private:
  std::string title_;
  Stopwatch watch_;
  size_t first_ = 0;
  bool shown_ = false;
};

Result<std::vector<EvalStrategy>> make_strategies(const EvalOptions& options, const Model& model) {
  std::vector<std::string> specs = options.prefills;
  if (specs.empty()) {
    specs = {"exact"};
    if (model.is_bundle()) specs.emplace_back("kv-prediction");
    if (model.impl().models.auxiliary) specs.emplace_back("auxiliary");
  }
  std::vector<EvalStrategy> strategies;
  for (const std::string& spec : specs) {
    KVCAST_TRY(EvalStrategy strategy, EvalStrategy::parse(spec));
    if (strategy.prefill->needs_bundle() && !model.is_bundle()) {
      return fail(
          fmt::format("--prefill {}: needs a KV-prediction bundle; this is a plain model", spec));
    }
    KVCAST_CHECK(check_strategy(*strategy.prefill, model.impl().models));
    strategies.push_back(std::move(strategy));
  }
  return strategies;
}

/// The paper's scoring beside the mixed one, for tasks where there is a difference.
Status add_predicted_scoring(const Task& task, const Model& model,
                             std::vector<EvalStrategy>& strategies) {
  if (!model.is_bundle()) {
    return fail("--predicted-scoring: needs a KV-prediction bundle; this is a plain model");
  }
  if (!task.scores_given_texts()) {
    return fail(
        fmt::format("--predicted-scoring: {} scores what the model writes itself", task.name()));
  }
  KVCAST_TRY(EvalStrategy strategy, EvalStrategy::parse("kv-prediction"));
  strategy.scoring = EvalStrategy::Scoring::kPredicted;
  strategies.push_back(std::move(strategy));
  return {};
}

/// Everything that the scores depend on, to tell whether a partial file is this run's.
std::string identity(const EvalOptions& options, const ResultHeader& header, const Task& task,
                     const std::string& data_sha256, const std::vector<EvalStrategy>& strategies) {
  nlohmann::ordered_json json = to_json(header);
  json["task"] = task.name();
  json["examples"] = task.size();
  json["parameters"] = task.parameters();
  json["data"] = data_sha256;
  json["shots_data"] = options.shots_data;
  json["limit"] = options.task.limit;
  json["seed"] = options.task.seed;
  json["bos"] = !options.no_bos;
  for (const EvalStrategy& strategy : strategies) json["prefill"].push_back(strategy.spec);
  return json.dump();
}

/// The example of median prompt length: what speed is measured on.
const Tokens& typical_prompt(const Task& task) {
  std::vector<size_t> order(task.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto middle = order.begin() + std::ssize(order) / 2;
  std::ranges::nth_element(order, middle, {}, [&](size_t i) { return task.prompt(i).size(); });
  return task.prompt(*middle);
}

struct Outcome {
  std::vector<TaskResult> results;
  std::string outputs;  ///< JSON Lines
  bool stopped = false;
};

/// One task under all strategies: scores, then speed.
Status evaluate(const EvalOptions& options, const Model& model, Task& task,
                const std::string& data_sha256, const std::stop_token& stop, Outcome& outcome,
                PartialFile& partial, const std::vector<EvalStrategy>& strategies) {
  const Model::Impl& impl = model.impl();
  constexpr int64_t kPrefixBytes = int64_t{1} << 28;
  Evaluator evaluator(impl.models, *impl.tokenizer, kPrefixBytes, options.drafts);
  ProgressBar bar(task.name());
  RunOptions run = options.run;
  run.stop = stop;
  run.on_progress = [&](size_t done, size_t all) { bar.show(done, all); };
  KVCAST_TRY(const auto scores, run_task(task, evaluator, strategies, run, partial));
  if (scores.empty()) {
    outcome.stopped = true;
    return {};
  }
  const Tokens& prompt = typical_prompt(task);
  std::vector<StrategyTiming> timings;
  if (options.timing_repetitions > 0) {
    TimingOptions timing;
    timing.repetitions = options.timing_repetitions;
    timing.stop = stop;
    timings = measure_timing(evaluator, strategies, prompt, timing);
    outcome.stopped = timings.empty();
  }
  for (size_t s = 0; s < strategies.size(); ++s) {
    const bool mixed = strategies[s].scoring == EvalStrategy::Scoring::kMixed;
    TaskResult result;
    result.task = task.name();
    result.prefill = strategies[s].spec;
    result.scoring = mixed ? "mixed" : "predicted";
    result.n = static_cast<int64_t>(task.size());
    if (!options.data.empty()) {
      result.data_file = std::filesystem::path(options.data).filename().string();
      result.data_sha256 = data_sha256;
    }
    result.parameters = task.parameters();
    result.parameters["seed"] = static_cast<int64_t>(options.task.seed);
    const auto names = task.metrics();
    for (size_t m = 0; m < names.size(); ++m) {
      std::vector<double> values;
      for (const ExampleScore& score : scores[s]) values.push_back(score.metrics[m]);
      result.metrics.emplace_back(names[m], bootstrap_mean(values, options.task.seed));
    }
    result.prompt_tokens = std::ssize(prompt);
    result.is_bundle = model.is_bundle();
    if (mixed) {
      result.flops =
          flops_reduction(impl.models.shapes(), *strategies[s].prefill, result.prompt_tokens);
      if (!timings.empty()) result.timing = timings[s];
    }
    outcome.results.push_back(std::move(result));
    if (options.outputs.empty()) continue;
    for (size_t i = 0; i < scores[s].size(); ++i) {
      if (scores[s][i].output.empty()) continue;
      nlohmann::ordered_json line = {{"task", task.name()},
                                     {"prefill", strategies[s].spec},
                                     {"scoring", mixed ? "mixed" : "predicted"},
                                     {"example", i}};
      for (size_t m = 0; m < names.size(); ++m) line[names[m]] = scores[s][i].metrics[m];
      line.update(nlohmann::ordered_json::parse(scores[s][i].output));
      outcome.outputs += line.dump() + "\n";
    }
  }
  return {};
}

std::string text_of(const Interval& interval) {
  return fmt::format("{:.4f} [{:.4f}, {:.4f}]", interval.value, interval.low, interval.high);
}

Table to_table(const std::vector<TaskResult>& results) {
  Table table;
  table.text_columns = 3;
  table.headers = {"task", "prefill", "scoring", "n"};
  for (const auto& [name, interval] : results[0].metrics) table.headers.push_back(name + " [95%]");
  for (const char* header : {"prompt", "FLOPs / paper", "FLOPs /", "TTFT ms", "total ms 16", "64",
                             "256", "peak RSS MB"}) {
    table.headers.emplace_back(header);
  }
  for (const TaskResult& result : results) {
    std::vector<std::string> row = {result.task, result.prefill, result.scoring,
                                    std::to_string(result.n)};
    for (const auto& [name, interval] : result.metrics) row.push_back(text_of(interval));
    row.push_back(std::to_string(result.prompt_tokens));
    row.push_back(result.flops ? fmt::format("{:.2f}", result.flops->paper) : "-");
    row.push_back(result.flops ? fmt::format("{:.2f}", result.flops->exact) : "-");
    if (result.timing) {
      const StrategyTiming& timing = *result.timing;
      row.push_back(fmt::format("{:.2f}", timing.ttft_ms.median));
      for (const int64_t tokens : {16, 64, 256}) {
        const auto total = timing.total_ms.find(tokens);
        row.push_back(total == timing.total_ms.end() ? "-" : fmt::format("{:.1f}", total->second));
      }
      row.push_back(fmt::format("{:.0f}", static_cast<double>(timing.peak_rss_bytes) / 1e6));
    }
    row.resize(table.headers.size(), "-");
    table.rows.push_back(std::move(row));
  }
  return table;
}

/// Prompt lengths to make the task for; 0 for tasks that have none.
std::vector<int64_t> lengths_of(const EvalOptions& options) {
  const bool has_lengths = options.name == "passkey" || options.name == "recall";
  return has_lengths ? options.lengths : std::vector<int64_t>{0};
}

Result<int> eval(EvalOptions& options) {
  InterruptScope interrupt;
  if (task_needs_data(options.name) && options.data.empty()) {
    return fail(fmt::format("--task {} needs --data FILE", options.name));
  }
  options.task.data = options.data;
  options.task.shots_data = options.shots_data;
  options.task.samples = options.samples;
  options.task.add_bos = !options.no_bos;
  KVCAST_TRY(const std::filesystem::path directory, find_model(options.model.directory));
  std::shared_ptr<const Model> model;
  {
    const InterruptScope::ImmediateExit loading(interrupt);
    KVCAST_TRY(model, options.model.load());
  }
  if (!model->has_tokenizer()) return fail(model->impl().tokenizer_hint);
  KVCAST_TRY(ResultHeader header, describe_model(*model, directory, options.label));
  header.machine = machine_name();
  std::string data_sha256;
  if (!options.data.empty()) {
    KVCAST_TRY(data_sha256, sha256_of_file(options.data));
  }
  Outcome outcome;
  std::vector<PartialFile> partials;
  for (const int64_t length : lengths_of(options)) {
    options.task.length = length;
    KVCAST_TRY(const auto task, make_task(options.name, options.task, *model));
    KVCAST_TRY(auto strategies, make_strategies(options, *model));
    if (options.predicted_scoring) {
      KVCAST_CHECK(add_predicted_scoring(*task, *model, strategies));
    }
    PartialFile& partial = partials.emplace_back();
    if (!options.out.empty()) {
      const std::string suffix = length > 0 ? fmt::format(".{}.partial", length) : ".partial";
      KVCAST_TRY(partial,
                 PartialFile::open(options.out + suffix,
                                   identity(options, header, *task, data_sha256, strategies)));
    }
    KVCAST_CHECK(evaluate(options, *model, *task, data_sha256, interrupt.token(), outcome, partial,
                          strategies));
    if (outcome.stopped) return kExitInterrupted;
  }
  const std::string json =
      to_json(header, outcome.results).dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
  if (!options.outputs.empty()) {
    KVCAST_CHECK(write_file_atomically(options.outputs, outcome.outputs));
  }
  if (!options.out.empty()) {
    KVCAST_CHECK(write_file_atomically(options.out, json));
    for (PartialFile& partial : partials) partial.remove();
  }
  fmt::print("{}", options.json ? json : to_table(outcome.results).to_markdown());
  return kExitOk;
}

void add_task_options(CLI::App& command, EvalOptions& options) {
  TaskOptions& task = options.task;
  command.add_option("--shots", task.shots, "triviaqa: solved examples before each question")
      ->check(is_whole_number(0, 100))
      ->capture_default_str();
  command.add_option("--shots-data", options.shots_data,
                     "triviaqa: file whose first rows are the solved examples");
  command.add_option("--prefix", task.prefix, "nll, agreement, next_line: prompt tokens")
      ->check(is_whole_number(1, 1 << 20))
      ->capture_default_str();
  command.add_option("--suffix", task.suffix, "nll: tokens scored after them")
      ->check(is_whole_number(1, 1 << 20))
      ->capture_default_str();
  command.add_option("--lengths", options.lengths, "passkey, recall: prompt lengths in tokens")
      ->delimiter(',')
      ->check(is_whole_number(32, 1 << 20))
      ->capture_default_str();
  command.add_option("--max-tokens", task.max_tokens, "longest answer (default: the task's own)")
      ->check(is_whole_number(1, 1 << 20));
  command.add_option("--samples-per-problem", task.samples_per_problem, "humaneval: completions")
      ->check(is_whole_number(1, 1000))
      ->capture_default_str();
  command.add_option("--temperature", task.temperature, "humaneval")
      ->check(CLI::Range(0.0F, 100.0F))
      ->capture_default_str();
  command.add_option("--samples", options.samples,
                     "humaneval: score these completions (JSON Lines: task_id, completion)");
  command.add_flag("--allow-code-execution", task.allow_code_execution,
                   "humaneval: run what the model wrote, in a sandbox");
  command.add_flag("--no-bos", options.no_bos, "prompts without BOS");
  command.add_option("--seed", task.seed, "of everything random")->capture_default_str();
}

}  // namespace

void register_eval(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App& command =
      *app.add_subcommand("eval", "quality and speed of prefill strategies on a task");
  options->model.add_to(command);
  const auto names = task_names();
  command.add_option("--task", options->name, fmt::format("{}", fmt::join(names, ", ")))
      ->required()
      ->check(CLI::IsMember(std::vector<std::string>(names.begin(), names.end())));
  command.add_option("--data", options->data,
                     "the set: JSON Lines or text, gzip-compressed or not");
  add_prefill_list(command, options->prefills,
                   "strategies, and wrong-cache[:tail=N]: the forecast of another prompt",
                   EvalStrategy::parse);
  command.add_option("--limit", options->task.limit, "examples; 0: all")
      ->check(is_whole_number(0))
      ->capture_default_str();
  command.add_flag("--predicted-scoring", options->predicted_scoring,
                   "multiple choice: also score with predicted K/V everywhere, as the paper did");
  add_task_options(command, *options);
  add_drafts_option(command, options->drafts);
  command
      .add_option("--timing-repetitions", options->timing_repetitions,
                  "runs of the typical prompt per strategy; 0: no times")
      ->check(is_whole_number(0, 1000))
      ->capture_default_str();
  command.add_option("--batch-tokens", options->run.batch_tokens, "tokens that run together")
      ->check(is_whole_number(1, 1 << 20))
      ->capture_default_str();
  command.add_option("--label", options->label, "what tables call the model");
  command.add_option("--out", options->out,
                     "write JSON there; finished examples are kept in FILE.partial to go on from");
  command.add_option("--outputs", options->outputs, "write what each example got, as JSON Lines");
  command.add_flag("--json", options->json, "JSON instead of a table");
  command.callback([options, &exit_code] {
    const auto result = eval(*options);
    exit_code = result ? *result : report_error(result.error());
  });
}

}  // namespace kvcast
