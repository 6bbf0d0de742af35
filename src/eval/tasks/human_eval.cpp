#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include "base/macros.h"
#include "base/processors.h"
#include "base/team.h"
#include "eval/data_file.h"
#include "eval/sandbox.h"
#include "eval/task.h"
#include "eval/text_score.h"
#include "runtime/model_impl.h"

namespace kvcast {
namespace {

struct Problem {
  std::string id, prompt, test, entry_point;
  std::vector<std::string> given;  ///< completions to score in place of the model's

  [[nodiscard]] std::string program(const std::string& completion) const {
    return fmt::format("{}{}\n{}\ncheck({})\n", prompt, completion, test, entry_point);
  }
};

/// HumanEval (Chen et al. 2021): completions are sampled, run against the tests in a sandbox, and
/// pass@k is estimated from how many of them pass.
class HumanEvalTask final : public Task {
 public:
  HumanEvalTask(const Model& model, const TaskOptions& options, std::vector<Problem> problems,
                Sandbox sandbox)
      : problems_(std::move(problems)), sandbox_(sandbox), seed_(options.seed) {
    const Tokenizer& tokenizer = *model.impl().tokenizer;
    max_tokens_ = options.max_tokens.value_or(256);
    const int64_t room = std::max<int64_t>(context_tokens(model) - max_tokens_, 1);
    sampling_.temperature = options.temperature;
    sampling_.top_p = 0.95F;
    samples_ = options.samples_per_problem;
    for (const Problem& problem : problems_) {
      if (!problem.given.empty()) samples_ = std::ssize(problem.given);
      Tokens& prompt = prompts_.emplace_back(tokenizer.encode(problem.prompt, options.add_bos));
      keep_newest(prompt, room, tokenizer.bos_token());
    }
  }

  [[nodiscard]] std::string name() const override { return "humaneval"; }
  [[nodiscard]] std::vector<std::string> metrics() const override {
    if (samples_ < 10) return {"pass@1"};
    return {"pass@1", "pass@10"};
  }
  [[nodiscard]] std::map<std::string, int64_t> parameters() const override {
    return {{"samples_per_problem", samples_},
            {"temperature_percent", std::lround(sampling_.temperature * 100)},
            {"max_tokens", max_tokens_}};
  }
  [[nodiscard]] size_t size() const override { return problems_.size(); }
  [[nodiscard]] const Tokens& prompt(size_t example) const override { return prompts_[example]; }
  [[nodiscard]] int64_t work_tokens(size_t example) const override {
    return std::ssize(prompts_[example]) + samples_ * 16;
  }

  Result<std::vector<ExampleScore>> score(Evaluator& evaluator, const EvalStrategy& strategy,
                                          std::span<const size_t> examples) override {
    const auto completions = complete(evaluator, strategy, examples);
    std::vector<ExampleScore> scores;
    for (size_t i = 0; i < examples.size(); ++i) {
      const Problem& problem = problems_[examples[i]];
      const auto count = static_cast<int64_t>(completions[i].size());
      std::vector<int> passed(completions[i].size());
      parallel_for(count, available_processors(), [&](int64_t c, int) {
        const std::string& completion = completions[i][static_cast<size_t>(c)];
        passed[static_cast<size_t>(c)] =
            sandbox_.run_python(problem.program(completion)) == Sandbox::Outcome::kPassed ? 1 : 0;
      });
      const int64_t correct = std::ranges::count(passed, 1);
      ExampleScore& score = scores.emplace_back();
      score.metrics.push_back(pass_at_k(count, correct, 1));
      if (samples_ >= 10) score.metrics.push_back(pass_at_k(count, correct, 10));
      const Json output = {
          {"task_id", problem.id}, {"completions", completions[i]}, {"passed", passed}};
      score.output = output.dump(-1, ' ', false, Json::error_handler_t::replace);
    }
    return scores;
  }

 private:
  [[nodiscard]] std::vector<std::vector<std::string>> complete(
      Evaluator& evaluator, const EvalStrategy& strategy, std::span<const size_t> examples) const {
    std::vector<std::vector<std::string>> completions;
    if (!problems_[examples[0]].given.empty()) {
      for (const size_t example : examples) completions.push_back(problems_[example].given);
      return completions;
    }
    AnswerOptions options;
    options.max_tokens = max_tokens_;
    options.stop = {"\nclass", "\ndef", "\n#", "\nif", "\nprint"};
    options.sampling = sampling_;
    for (const size_t example : examples) {
      for (int64_t sample = 0; sample < samples_; ++sample) {
        options.seeds.push_back((seed_ * 1'000'003 + example) * 1'000'003 +
                                static_cast<uint64_t>(sample));
      }
    }
    const auto answers = evaluator.answer(
        evaluator.replicate(evaluator.prefill(strategy, prompts(examples)), samples_), options);
    for (size_t i = 0; i < answers.size(); ++i) {
      if (i % static_cast<size_t>(samples_) == 0) completions.emplace_back();
      completions.back().push_back(answers[i].text);
    }
    return completions;
  }

  std::vector<Problem> problems_;
  std::vector<Tokens> prompts_;
  Sandbox sandbox_;
  SamplingOptions sampling_;
  int64_t samples_ = 0, max_tokens_ = 0;
  uint64_t seed_;
};

/// Reads completions of known problems; each problem must have equally many. Problems without any
/// are left out.
Status read_samples(const std::filesystem::path& path, std::vector<Problem>& problems) {
  KVCAST_TRY(const auto rows, read_rows(path, 0));
  for (const DataRow& row : rows) {
    KVCAST_TRY(const std::string id, row.text("task_id"));
    const auto problem = std::ranges::find(problems, id, &Problem::id);
    if (problem == problems.end()) return row.error(fmt::format("no problem \"{}\"", id));
    KVCAST_TRY(problem->given.emplace_back(), row.text("completion"));
  }
  std::erase_if(problems, [](const Problem& problem) { return problem.given.empty(); });
  for (const Problem& problem : problems) {
    if (problem.given.size() != problems[0].given.size()) {
      return fail(fmt::format("{}: {} completions of {}, but {} of {}; expected equally many",
                              path.string(), problems[0].given.size(), problems[0].id,
                              problem.given.size(), problem.id));
    }
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Task>> make_human_eval_task(const TaskOptions& options, const Model& model) {
  if (!options.allow_code_execution) {
    return fail(
        "humaneval runs what the model wrote: give --allow-code-execution to run it in a "
        "sandbox");
  }
  KVCAST_TRY(const Sandbox sandbox, Sandbox::create());
  KVCAST_TRY(const auto rows, read_rows(options.data, static_cast<size_t>(options.limit)));
  std::vector<Problem> problems;
  for (const DataRow& row : rows) {
    Problem& problem = problems.emplace_back();
    KVCAST_TRY(problem.id, row.text("task_id"));
    KVCAST_TRY(problem.prompt, row.text("prompt"));
    KVCAST_TRY(problem.test, row.text("test"));
    KVCAST_TRY(problem.entry_point, row.text("entry_point"));
  }
  if (!options.samples.empty()) KVCAST_CHECK(read_samples(options.samples, problems));
  return std::make_unique<HumanEvalTask>(model, options, std::move(problems), sandbox);
}

}  // namespace kvcast
