#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>

#include "base/macros.h"
#include "eval/data_file.h"
#include "eval/task.h"
#include "eval/text_score.h"
#include "runtime/model_impl.h"

namespace kvcast {
namespace {

struct Question {
  std::string text;
  std::vector<std::string> aliases;
};

/// TriviaQA as the paper asks it (method §7): solved examples, the question, greedy until a
/// newline,
/// "." or ",". Exact match over aliases, and the negative log-likelihood of the likeliest alias.
class TriviaTask final : public Task {
 public:
  TriviaTask(const Model& model, const TaskOptions& options, std::string solved,
             std::vector<Question> questions)
      : max_tokens_(options.max_tokens.value_or(24)),
        shots_(options.shots),
        solved_(std::move(solved)),
        questions_(std::move(questions)) {
    const Tokenizer& tokenizer = *model.impl().tokenizer;
    const int64_t room = std::max<int64_t>(context_tokens(model) - max_tokens_, 1);
    for (const Question& question : questions_) {
      const std::string prompt = solved_ + question_text(question.text);
      Tokens& tokens = prompts_.emplace_back(tokenizer.encode(prompt, options.add_bos));
      keep_newest(tokens, room, tokenizer.bos_token());
      // Aliases often differ in case and punctuation only: the first of each kind is scored.
      std::set<std::string> seen;
      auto& answers = answers_.emplace_back();
      for (const std::string& alias : question.aliases) {
        if (!seen.insert(normalise_answer(alias)).second) continue;
        // A word's pieces do not depend on the words before, so the last word is context enough.
        answers.push_back(encode_pair(tokenizer, "Answer:", " " + alias, false).continuation);
      }
    }
    shared_ = std::ssize(prompts_[0]);
    for (const Tokens& prompt : prompts_) {
      shared_ = std::min<int64_t>(shared_,
                                  std::ranges::mismatch(prompt, prompts_[0]).in1 - prompt.begin());
    }
  }

  static std::string question_text(std::string_view question) {
    return fmt::format("Question: {}\nAnswer:", question);
  }

  [[nodiscard]] std::string name() const override { return "triviaqa"; }
  [[nodiscard]] std::vector<std::string> metrics() const override { return {"exact_match", "nll"}; }
  [[nodiscard]] std::map<std::string, int64_t> parameters() const override {
    return {{"shots", shots_}, {"max_tokens", max_tokens_}};
  }
  [[nodiscard]] size_t size() const override { return questions_.size(); }
  [[nodiscard]] const Tokens& prompt(size_t example) const override { return prompts_[example]; }
  [[nodiscard]] int64_t work_tokens(size_t example) const override {
    int64_t most = 0;
    for (const Tokens& answer : answers_[example]) most = std::max(most, std::ssize(answer));
    return std::ssize(prompts_[example]) - shared_ + std::max(most, max_tokens_ / 3);
  }

  Result<std::vector<ExampleScore>> score(Evaluator& evaluator, const EvalStrategy& strategy,
                                          std::span<const size_t> examples) override {
    PrefilledBatch batch = evaluator.prefill(strategy, prompts(examples), shared_);
    Evaluator::Continuations continuations;
    for (const size_t example : examples) continuations.push_back(answers_[example]);
    const auto log_probabilities = evaluator.score(batch, continuations);
    AnswerOptions options;
    options.max_tokens = max_tokens_;
    options.stop = {"\n", ".", ","};
    const auto answers = evaluator.answer(std::move(batch), options);
    std::vector<ExampleScore> scores;
    for (size_t i = 0; i < examples.size(); ++i) {
      const Question& question = questions_[examples[i]];
      const bool match = matches_any(answers[i].text, question.aliases);
      double best = -std::numeric_limits<double>::infinity();
      for (const double log_probability : log_probabilities[i]) {
        best = std::max(best, log_probability);
      }
      const Json output = {{"prompt", solved_ + question_text(question.text)},
                           {"answer", answers[i].text}};
      scores.push_back({{match ? 1.0 : 0.0, -best}, output.dump()});
    }
    return scores;
  }

 private:
  int64_t max_tokens_, shots_;
  std::string solved_;  ///< the solved examples, before each question
  std::vector<Question> questions_;
  std::vector<Tokens> prompts_;
  std::vector<std::vector<Tokens>> answers_;  // [questions][aliases that differ]
  int64_t shared_ = 0;                        ///< leading tokens that all prompts have
};

/// A row as here ("aliases" at the top) or as on Hugging Face ("answer": {"value", "aliases"}).
Result<Question> read_question(const DataRow& row) {
  Question question;
  KVCAST_TRY(question.text, row.text("question"));
  if (row.has("aliases")) {
    KVCAST_TRY(question.aliases, row.texts("aliases"));
  } else {
    KVCAST_TRY(const DataRow answer, row.object("answer"));
    KVCAST_TRY(question.aliases, answer.texts("aliases"));
  }
  return question;
}

Result<std::string> read_answer(const DataRow& row) {
  if (const auto answer = row.text("answer")) return answer;
  KVCAST_TRY(const DataRow answer, row.object("answer"));
  return answer.text("value");
}

Result<std::string> solved_examples(const TaskOptions& options) {
  std::string text;
  if (options.shots == 0) return text;
  if (options.shots_data.empty()) {
    return fail(
        fmt::format("triviaqa with --shots {} needs --shots-data FILE, whose first questions "
                    "are the solved examples",
                    options.shots));
  }
  const auto count = static_cast<size_t>(options.shots);
  KVCAST_TRY(const auto rows, read_rows(options.shots_data, count));
  if (rows.size() < count) {
    return fail(fmt::format("{}: {} rows, fewer than --shots {}", options.shots_data.string(),
                            rows.size(), count));
  }
  for (const DataRow& row : rows) {
    KVCAST_TRY(const std::string question, row.text("question"));
    KVCAST_TRY(const std::string answer, read_answer(row));
    text += fmt::format("{} {}\n\n", TriviaTask::question_text(question), answer);
  }
  return text;
}

}  // namespace

Result<std::unique_ptr<Task>> make_trivia_task(const TaskOptions& options, const Model& model) {
  KVCAST_TRY(const auto rows, read_rows(options.data, static_cast<size_t>(options.limit)));
  std::vector<Question> questions;
  for (const DataRow& row : rows) {
    KVCAST_TRY(questions.emplace_back(), read_question(row));
  }
  KVCAST_TRY(std::string solved, solved_examples(options));
  return std::make_unique<TriviaTask>(model, options, std::move(solved), std::move(questions));
}

}  // namespace kvcast
