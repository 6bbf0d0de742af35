#include <fmt/format.h>

#include <algorithm>

#include "base/macros.h"
#include "eval/data_file.h"
#include "eval/task.h"
#include "runtime/model_impl.h"

namespace kvcast {
namespace {

/// Greedy continuations of held-out text beside the exact ones: the share of leading tokens that
/// are the same, and how often all are.
class AgreementTask final : public Task {
 public:
  AgreementTask(std::vector<Tokens> prompts, int64_t tokens)
      : prompts_(std::move(prompts)), tokens_(tokens) {}

  [[nodiscard]] std::string name() const override { return "agreement"; }
  [[nodiscard]] std::vector<std::string> metrics() const override {
    return {"agreement", "exact_match"};
  }
  [[nodiscard]] std::map<std::string, int64_t> parameters() const override {
    return {{"prefix", std::ssize(prompts_[0])}, {"max_tokens", tokens_}};
  }
  [[nodiscard]] size_t size() const override { return prompts_.size(); }
  [[nodiscard]] const Tokens& prompt(size_t example) const override { return prompts_[example]; }
  [[nodiscard]] int64_t work_tokens(size_t example) const override {
    return std::ssize(prompts_[example]);
  }

  void prepare(Evaluator& evaluator, std::span<const size_t> examples) override {
    exact_answers_ = answers(evaluator, *exact_, examples);
  }

  Result<std::vector<ExampleScore>> score(Evaluator& evaluator, const EvalStrategy& strategy,
                                          std::span<const size_t> examples) override {
    const auto of_strategy = answers(evaluator, strategy, examples);
    std::vector<ExampleScore> scores;
    for (size_t i = 0; i < examples.size(); ++i) {
      const auto& expected = exact_answers_[i].tokens;
      const auto& found = of_strategy[i].tokens;
      const auto equal = std::ranges::mismatch(expected, found).in1 - expected.begin();
      const double share = static_cast<double>(equal) / static_cast<double>(tokens_);
      const Json output = {{"exact", exact_answers_[i].text}, {"answer", of_strategy[i].text}};
      scores.push_back({{share, equal == tokens_ ? 1.0 : 0.0}, output.dump()});
    }
    return scores;
  }

 private:
  [[nodiscard]] std::vector<Evaluator::Answer> answers(Evaluator& evaluator,
                                                       const EvalStrategy& strategy,
                                                       std::span<const size_t> examples) const {
    AnswerOptions options;
    options.max_tokens = tokens_;
    options.ignore_end_of_text = true;
    return evaluator.answer(evaluator.prefill(strategy, prompts(examples)), options);
  }

  std::vector<Tokens> prompts_;
  int64_t tokens_;
  std::vector<Evaluator::Answer> exact_answers_;  // of the examples being scored
  Result<EvalStrategy> exact_ = EvalStrategy::parse("exact");
};

}  // namespace

Result<std::unique_ptr<Task>> make_agreement_task(const TaskOptions& options, const Model& model) {
  const int64_t tokens = options.max_tokens.value_or(32), context = context_tokens(model);
  if (options.prefix + tokens > context) {
    return fail(fmt::format("--prefix {} and {} answer tokens do not fit the context of {} tokens",
                            options.prefix, tokens, context));
  }
  KVCAST_TRY(const auto documents, read_documents(options.data));
  auto prompts = text_windows(documents, *model.impl().tokenizer, options.prefix, options.limit);
  if (prompts.empty()) {
    return fail(fmt::format("{}: no document of --prefix {} tokens", options.data.string(),
                            options.prefix));
  }
  return std::make_unique<AgreementTask>(std::move(prompts), tokens);
}

}  // namespace kvcast
