#include <fmt/format.h>

#include <algorithm>

#include "base/macros.h"
#include "eval/data_file.h"
#include "eval/task.h"
#include "runtime/chat_template.h"
#include "runtime/model_impl.h"

namespace kvcast {
namespace {

/// A prompt and the tokens that follow it.
struct Continued {
  Tokens prompt, following;
};

/// How well tokens that follow a prompt are predicted: mean negative log-likelihood, KL divergence
/// from the distributions that the exact cache gives, in nats a token, how often the likeliest
/// token is that of the exact cache, and whether the first one is.
class NllTask final : public Task {
 public:
  NllTask(std::string name, std::map<std::string, int64_t> parameters,
          std::vector<Continued> examples)
      : name_(std::move(name)),
        parameters_(std::move(parameters)),
        examples_(std::move(examples)) {}

  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] std::vector<std::string> metrics() const override {
    return {"nll", "kl", "top1", "first"};
  }
  [[nodiscard]] std::map<std::string, int64_t> parameters() const override { return parameters_; }
  [[nodiscard]] size_t size() const override { return examples_.size(); }
  [[nodiscard]] const Tokens& prompt(size_t example) const override {
    return examples_[example].prompt;
  }
  [[nodiscard]] int64_t work_tokens(size_t example) const override {
    return std::ssize(examples_[example].prompt) + std::ssize(examples_[example].following);
  }

  void prepare(Evaluator& evaluator, std::span<const size_t> examples) override {
    const auto vocab = static_cast<size_t>(evaluator.vocab_size());
    exact_logits_.resize(examples.size());
    for (size_t i = 0; i < examples.size(); ++i) {
      exact_logits_[i].resize(examples_[examples[i]].following.size() * vocab);
    }
    run(evaluator, *exact_, examples, [&](size_t i, size_t t, std::span<const float> logits) {
      std::ranges::copy(logits, exact_logits_[i].begin() + static_cast<std::ptrdiff_t>(t * vocab));
    });
  }

  Result<std::vector<ExampleScore>> score(Evaluator& evaluator, const EvalStrategy& strategy,
                                          std::span<const size_t> examples) override {
    const auto vocab = static_cast<size_t>(evaluator.vocab_size());
    std::vector<std::vector<TokenScore>> tokens(examples.size());
    for (size_t i = 0; i < examples.size(); ++i) {
      tokens[i].resize(examples_[examples[i]].following.size());
    }
    run(evaluator, strategy, examples, [&](size_t i, size_t t, std::span<const float> logits) {
      const auto exact = std::span(exact_logits_[i]).subspan(t * vocab, vocab);
      tokens[i][t] = {.nll = -log_probability(logits, examples_[examples[i]].following[t]),
                      .kl = kl_divergence(exact, logits),
                      .same = likeliest(exact) == likeliest(logits)};
    });
    std::vector<ExampleScore> scores;
    for (const auto& scored : tokens) {
      double nll = 0, kl = 0, same = 0;
      for (const TokenScore& token : scored) {
        nll += token.nll;
        kl += token.kl;
        same += token.same ? 1.0 : 0.0;
      }
      const auto n = static_cast<double>(scored.size());
      scores.push_back({{nll / n, kl / n, same / n, scored[0].same ? 1.0 : 0.0}, ""});
    }
    return scores;
  }

 private:
  struct TokenScore {
    double nll = 0, kl = 0;
    bool same = false;  // the likeliest token is
  };

  void run(Evaluator& evaluator, const EvalStrategy& strategy, std::span<const size_t> examples,
           const Evaluator::LogitsSink& sink) const {
    PrefilledBatch batch = evaluator.prefill(strategy, prompts(examples));
    std::vector<Tokens> following;
    for (const size_t example : examples) following.push_back(examples_[example].following);
    evaluator.continuation_logits(batch, following, sink);
  }

  static std::ptrdiff_t likeliest(std::span<const float> logits) {
    return std::ranges::max_element(logits) - logits.begin();
  }

  std::string name_;
  std::map<std::string, int64_t> parameters_;
  std::vector<Continued> examples_;
  std::vector<std::vector<float>> exact_logits_;  // of examples being scored, [following, vocab]
  Result<EvalStrategy> exact_ = EvalStrategy::parse("exact");
};

}  // namespace

std::unique_ptr<Task> nll_task(std::vector<Tokens> windows, int64_t prefix) {
  std::vector<Continued> examples;
  for (Tokens& window : windows) {
    const auto split = window.begin() + prefix;
    examples.push_back({{window.begin(), split}, {split, window.end()}});
  }
  std::map<std::string, int64_t> parameters = {{"prefix", prefix},
                                               {"suffix", std::ssize(examples.at(0).following)}};
  return std::make_unique<NllTask>("nll", std::move(parameters), std::move(examples));
}

Result<std::unique_ptr<Task>> make_chats_task(const TaskOptions& options, const Model& model) {
  KVCAST_TRY(const auto rows, read_rows(options.data, static_cast<size_t>(options.limit)));
  const Tokenizer& tokenizer = *model.impl().tokenizer;
  KVCAST_TRY(const auto chat, ChatTemplate::load(model.impl().path, tokenizer));
  const int64_t context = context_tokens(model);
  std::vector<Continued> examples;
  for (const DataRow& row : rows) {
    KVCAST_TRY(const std::string prompt, row.text("prompt"));
    KVCAST_TRY(const std::string answer, row.text("answer"));
    KVCAST_TRY(ChatPrompt rendered, chat->render({{"user", prompt}}));
    Tokens following = tokenizer.encode(answer, false);
    if (following.empty()) return row.error("an empty answer");
    const int64_t room = context - std::ssize(rendered.tokens);
    if (room < 1) return row.error(fmt::format("more than the context of {} tokens", context));
    following.resize(std::min(following.size(), static_cast<size_t>(room)));
    examples.push_back({std::move(rendered.tokens), std::move(following)});
  }
  return std::make_unique<NllTask>("chats", std::map<std::string, int64_t>(), std::move(examples));
}

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
  return nll_task(std::move(windows), options.prefix);
}

}  // namespace kvcast
