// A task: examples, and how a strategy's outputs for them are scored. One file per task in tasks/.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/evaluator.h"
#include "kvcast/model.h"
#include "kvcast/result.h"

namespace kvcast {

/// What `kvcast eval` may be told about a task; each task reads what concerns it.
struct TaskOptions {
  std::filesystem::path data = {};         ///< the set; unused by tasks that make their examples
  std::filesystem::path shots_data = {};   ///< where solved examples come from: its first rows
  std::filesystem::path samples = {};      ///< humaneval: score these completions, generate none
  int64_t shots = 1;                       ///< triviaqa: solved examples before each question
  int64_t limit = 0;                       ///< first examples only; 0: all
  int64_t length = 0;                      ///< passkey, recall: prompt length in tokens
  int64_t prefix = 384, suffix = 128;      ///< nll: tokens read by the strategy, tokens scored
  std::optional<int64_t> max_tokens = {};  ///< longest answer; unset: the task's own
  int64_t samples_per_problem = 10;        ///< humaneval
  float temperature = 0.2F;                ///< humaneval
  bool add_bos = true;
  bool allow_code_execution = false;
  uint64_t seed = 0;
};

/// What one example scored, one value per metric of the task; and what was generated or found, for
/// people and other programs to check (JSON text; may be empty).
struct ExampleScore {
  std::vector<double> metrics;
  std::string output;
};

class Task {
 public:
  virtual ~Task() = default;

  /// As on the command line.
  [[nodiscard]] virtual std::string name() const = 0;
  [[nodiscard]] virtual std::vector<std::string> metrics() const = 0;
  /// What else the scores depend on, for the result file: {"shots": 1}.
  [[nodiscard]] virtual std::map<std::string, int64_t> parameters() const { return {}; }
  /// Whether EvalStrategy::Scoring::kPredicted makes sense.
  [[nodiscard]] virtual bool scores_given_texts() const { return false; }

  [[nodiscard]] virtual size_t size() const = 0;
  /// What the strategy reads. Not empty.
  [[nodiscard]] virtual const Tokens& prompt(size_t example) const = 0;
  /// How many tokens an example makes a model run, about: examples alike run together.
  [[nodiscard]] virtual int64_t work_tokens(size_t example) const = 0;

  /// Called before the examples are scored under the strategies, to work out what all need.
  virtual void prepare(Evaluator& /*evaluator*/, std::span<const size_t> /*examples*/) {}
  /// One score per example, in their order; independent of what runs beside them.
  virtual Result<std::vector<ExampleScore>> score(Evaluator& evaluator,
                                                  const EvalStrategy& strategy,
                                                  std::span<const size_t> examples) = 0;

 protected:
  /// The prompts of the examples; `wrong-cache` reads the previous example's.
  [[nodiscard]] std::vector<EvalPrompt> prompts(std::span<const size_t> examples) const;
};

/// The tasks by name; errors say what the data lack or list the tasks.
Result<std::unique_ptr<Task>> make_task(std::string_view name, const TaskOptions& options,
                                        const Model& model);
/// Names of all tasks, one of which takes no data file if `without_data`.
std::vector<std::string_view> task_names();
bool task_needs_data(std::string_view name);

// ---- the tasks, for make_task ----

Result<std::unique_ptr<Task>> make_nll_task(const TaskOptions& options, const Model& model);
/// The task `nll` of windows that are there, more than `prefix` tokens each, at least one.
std::unique_ptr<Task> nll_task(std::vector<Tokens> windows, int64_t prefix);
Result<std::unique_ptr<Task>> make_chats_task(const TaskOptions& options, const Model& model);
Result<std::unique_ptr<Task>> make_trivia_task(const TaskOptions& options, const Model& model);
Result<std::unique_ptr<Task>> make_choice_task(std::string_view name, const TaskOptions& options,
                                               const Model& model);
Result<std::unique_ptr<Task>> make_human_eval_task(const TaskOptions& options, const Model& model);
Result<std::unique_ptr<Task>> make_next_line_task(const TaskOptions& options, const Model& model);
Result<std::unique_ptr<Task>> make_passkey_task(const TaskOptions& options, const Model& model);
Result<std::unique_ptr<Task>> make_recall_task(const TaskOptions& options, const Model& model);
Result<std::unique_ptr<Task>> make_agreement_task(const TaskOptions& options, const Model& model);

// ---- shared by the tasks ----

/// Longest prompt plus answer that every strategy can take.
int64_t context_tokens(const Model& model);

/// Leaves out the oldest tokens, but for a leading BOS, so that at most `most` are left.
void keep_newest(Tokens& tokens, int64_t most, int32_t bos);

/// Documents cut into windows of `tokens` tokens, each with BOS first if the tokenizer has one;
/// what does not fill a window is left out. At most `limit` if not 0, spread evenly over all.
std::vector<Tokens> text_windows(const std::vector<std::string>& documents,
                                 const Tokenizer& tokenizer, int64_t tokens, int64_t limit);

}  // namespace kvcast
