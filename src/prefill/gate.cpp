#include "prefill/gate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "base/log_sum_exp.h"
#include "base/stopwatch.h"

namespace kvcast {
namespace {

/// Beside the margin (docs/EVALUATION.md, "The gate").
constexpr double kWeightOfProbability = 0.5;

/// Takes back what is written from now on, also where memory runs out meanwhile.
class TakenBack {
 public:
  explicit TakenBack(Sequence& sequence) : sequence_(sequence), tokens_(sequence.tokens.size()) {}
  TakenBack(const TakenBack&) = delete;
  TakenBack& operator=(const TakenBack&) = delete;
  ~TakenBack() {
    sequence_.tokens.resize(tokens_);
    sequence_.base.truncate(static_cast<int64_t>(tokens_));
  }

 private:
  Sequence& sequence_;
  size_t tokens_;
};

/// The base's next greedy choices, of which the first comes from `next` [vocab_size], as far as
/// needed: a score only falls with further ones. None: stopped.
std::optional<std::vector<GreedyChoice>> look_ahead(const Models& models, Sequence& sequence,
                                                    const float* next, double threshold,
                                                    PrefillWorkspace& workspace,
                                                    const std::stop_token& stop) {
  const ModelConfig& config = models.base->config();
  const TakenBack taken_back(sequence);
  std::vector<float> logits(next, next + config.vocab_size);
  std::vector<GreedyChoice> choices;
  while (true) {
    choices.push_back(greedy_choice(logits));
    const int32_t token = choices.back().token;
    const bool trusted = forecast_score(choices) >= threshold;
    if (!trusted || std::ssize(choices) == kJudgedTokens || config.ends_text(token) ||
        std::ssize(sequence.tokens) >= config.max_context_tokens) {
      return choices;
    }
    sequence.tokens.push_back(token);
    Sequence* const one[] = {&sequence};
    if (!decode_step(models, one, logits.data(), workspace, stop)) return std::nullopt;
  }
}

}  // namespace

GreedyChoice greedy_choice(std::span<const float> logits) {
  const auto choice = std::ranges::max_element(logits);
  float second = -std::numeric_limits<float>::infinity();
  for (auto logit = logits.begin(); logit != logits.end(); ++logit) {
    if (logit != choice) second = std::max(second, *logit);
  }
  return {.token = static_cast<int32_t>(choice - logits.begin()),
          .log_probability = static_cast<double>(*choice) - log_sum_exp(logits),
          .margin = static_cast<double>(*choice) - second};
}

double forecast_score(std::span<const GreedyChoice> choices) {
  double margin = std::numeric_limits<double>::infinity(), log_probability = 0;
  for (const GreedyChoice& choice : choices) {
    if (std::isnan(choice.log_probability)) return choice.log_probability;
    margin = std::min(margin, choice.margin);
    log_probability = std::min(log_probability, choice.log_probability);
  }
  return margin + kWeightOfProbability * log_probability;
}

bool judge_forecasts(const Models& models, std::span<Sequence* const> sequences,
                     std::span<const float* const> logits, double threshold,
                     PrefillWorkspace& workspace, const std::stop_token& stop) {
  for (size_t s = 0; s < sequences.size(); ++s) {
    const Stopwatch watch;
    const auto choices = look_ahead(models, *sequences[s], logits[s], threshold, workspace, stop);
    if (!choices) return false;
    sequences[s]->gate = {
        .score = forecast_score(*choices), .threshold = threshold, .ms = watch.elapsed_ms()};
  }
  return true;
}

}  // namespace kvcast
