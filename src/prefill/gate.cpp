#include "prefill/gate.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "base/log_sum_exp.h"
#include "base/stopwatch.h"

namespace kvcast {
namespace {

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

/// The mean log-probability of the base's next greedy tokens, of which the first comes from `next`
/// [vocab_size]. None: stopped.
std::optional<double> confidence(const Models& models, Sequence& sequence, const float* next,
                                 PrefillWorkspace& workspace, const std::stop_token& stop) {
  const ModelConfig& config = models.base->config();
  const TakenBack taken_back(sequence);
  std::vector<float> logits(next, next + config.vocab_size);
  double sum = 0;
  int64_t judged = 0;
  while (true) {
    const auto choice = std::ranges::max_element(logits);
    sum += static_cast<double>(*choice) - log_sum_exp(logits);
    const auto token = static_cast<int32_t>(choice - logits.begin());
    if (++judged == kJudgedTokens || config.ends_text(token) ||
        std::ssize(sequence.tokens) >= config.max_context_tokens) {
      break;
    }
    sequence.tokens.push_back(token);
    Sequence* const one[] = {&sequence};
    if (!decode_step(models, one, logits.data(), workspace, stop)) return std::nullopt;
  }
  return sum / static_cast<double>(judged);
}

}  // namespace

bool judge_forecasts(const Models& models, std::span<Sequence* const> sequences,
                     std::span<const float* const> logits, double threshold,
                     PrefillWorkspace& workspace, const std::stop_token& stop) {
  for (size_t s = 0; s < sequences.size(); ++s) {
    const Stopwatch watch;
    const auto score = confidence(models, *sequences[s], logits[s], workspace, stop);
    if (!score) return false;
    sequences[s]->gate = {.score = *score, .threshold = threshold, .ms = watch.elapsed_ms()};
  }
  return true;
}

}  // namespace kvcast
