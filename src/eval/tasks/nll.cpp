#include <fmt/format.h>

#include "base/macros.h"
#include "eval/data_file.h"
#include "eval/task.h"
#include "runtime/model_impl.h"

namespace kvcast {
namespace {

/// How well the text that follows a prompt is predicted: mean negative log-likelihood of the
/// suffix, and KL divergence from the distributions that the exact cache gives, in nats a token.
class NllTask final : public Task {
 public:
  NllTask(std::vector<Tokens> windows, int64_t prefix) {
    for (Tokens& window : windows) {
      const auto split = window.begin() + prefix;
      suffixes_.emplace_back(split, window.end());
      window.erase(split, window.end());
      prefixes_.push_back(std::move(window));
    }
  }

  [[nodiscard]] std::string name() const override { return "nll"; }
  [[nodiscard]] std::vector<std::string> metrics() const override { return {"nll", "kl"}; }
  [[nodiscard]] std::map<std::string, int64_t> parameters() const override {
    return {{"prefix", std::ssize(prefixes_[0])}, {"suffix", std::ssize(suffixes_[0])}};
  }
  [[nodiscard]] size_t size() const override { return prefixes_.size(); }
  [[nodiscard]] const Tokens& prompt(size_t example) const override { return prefixes_[example]; }
  [[nodiscard]] int64_t work_tokens(size_t example) const override {
    return std::ssize(prefixes_[example]) + std::ssize(suffixes_[example]);
  }

  void prepare(Evaluator& evaluator, std::span<const size_t> examples) override {
    const auto vocab = static_cast<size_t>(evaluator.vocab_size());
    const size_t suffix = suffixes_[0].size();
    exact_logits_.resize(examples.size() * suffix * vocab);
    run(evaluator, *exact_, examples, [&](size_t i, size_t t, std::span<const float> logits) {
      std::ranges::copy(
          logits, exact_logits_.begin() + static_cast<std::ptrdiff_t>((i * suffix + t) * vocab));
    });
  }

  Result<std::vector<ExampleScore>> score(Evaluator& evaluator, const EvalStrategy& strategy,
                                          std::span<const size_t> examples) override {
    const auto vocab = static_cast<size_t>(evaluator.vocab_size());
    const size_t suffix = suffixes_[0].size();
    std::vector<std::vector<double>> nll(examples.size(), std::vector<double>(suffix)), kl = nll;
    run(evaluator, strategy, examples, [&](size_t i, size_t t, std::span<const float> logits) {
      nll[i][t] = -log_probability(logits, suffixes_[examples[i]][t]);
      kl[i][t] =
          kl_divergence(std::span(exact_logits_).subspan((i * suffix + t) * vocab, vocab), logits);
    });
    std::vector<ExampleScore> scores;
    for (size_t i = 0; i < examples.size(); ++i) {
      scores.push_back({{mean(nll[i]), mean(kl[i])}, ""});
    }
    return scores;
  }

 private:
  void run(Evaluator& evaluator, const EvalStrategy& strategy, std::span<const size_t> examples,
           const Evaluator::LogitsSink& sink) const {
    PrefilledBatch batch = evaluator.prefill(strategy, prompts(examples));
    std::vector<Tokens> suffixes;
    for (const size_t example : examples) suffixes.push_back(suffixes_[example]);
    evaluator.continuation_logits(batch, suffixes, sink);
  }

  static double mean(const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum / static_cast<double>(values.size());
  }

  std::vector<Tokens> prefixes_, suffixes_;
  std::vector<float> exact_logits_;  // [examples being scored, suffix, vocab_size]
  Result<EvalStrategy> exact_ = EvalStrategy::parse("exact");
};

}  // namespace

Result<std::unique_ptr<Task>> make_nll_task(const TaskOptions& options, const Model& model) {
  const int64_t tokens = options.prefix + options.suffix, context = context_tokens(model);
  if (tokens > context) {
    return fail(fmt::format("--prefix {} and --suffix {} do not fit the context of {} tokens",
                            options.prefix, options.suffix, context));
  }
  KVCAST_TRY(const auto documents, read_documents(options.data));
  auto windows = text_windows(documents, *model.impl().tokenizer, tokens, options.limit);
  if (windows.empty()) {
    return fail(fmt::format("{}: no document of {} tokens, which --prefix and --suffix ask for",
                            options.data.string(), tokens));
  }
  return std::make_unique<NllTask>(std::move(windows), options.prefix);
}

}  // namespace kvcast
