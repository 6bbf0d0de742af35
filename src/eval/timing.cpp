#include "eval/timing.h"

#include <algorithm>
#include <cmath>

#include "base/memory_use.h"
#include "base/stopwatch.h"
#include "prefill/mixing.h"

namespace kvcast {
namespace {

/// Answer lengths that results report.
constexpr int64_t kReportedTokens[] = {1, 16, 64, 256};

double quantile(std::vector<double> values, double share) {
  std::ranges::sort(values);
  const double place = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, values.size() - 1);
  return std::lerp(values[below], values[above], place - std::floor(place));
}

/// Milliseconds from the text to the end of each greedy answer token.
std::vector<double> time_answer(const Evaluator& evaluator, const PrefillStrategy& strategy,
                                const Tokens& prompt, const std::string& text, int64_t count,
                                PrefillWorkspace& workspace) {
  const Models& models = evaluator.models();
  std::vector<float> logits(static_cast<size_t>(evaluator.vocab_size()));
  Sequence sequence(models);
  Sequence* const batch[] = {&sequence};
  std::vector<double> times;
  const Stopwatch watch;
  (void)evaluator.tokenizer().encode(text, true);
  sequence.tokens = prompt;
  strategy.prefill(models, batch, logits.data(), workspace, {});
  while (true) {
    const auto token = std::ranges::max_element(logits) - logits.begin();
    times.push_back(watch.elapsed_ms());
    if (std::ssize(times) == count) return times;
    sequence.tokens.push_back(static_cast<int32_t>(token));
    next_logits(models, batch, logits.data(), workspace);
  }
}

/// What is measured of one strategy: [answer tokens][repetitions].
using Samples = std::vector<std::vector<double>>;

std::vector<double> medians(const Samples& samples) {
  std::vector<double> out;
  for (const auto& of_token : samples) out.push_back(quantile(of_token, 0.5));
  return out;
}

}  // namespace

FlopsReduction flops_reduction(const ModelPair& shapes, const PrefillStrategy& strategy,
                               int64_t prompt_tokens) {
  return {.paper = strategy.paper_reduction(shapes, prompt_tokens),
          .exact = exact_cost(shapes.base, prompt_tokens).total() /
                   strategy.cost(shapes, prompt_tokens).total()};
}

std::vector<StrategyTiming> measure_timing(const Evaluator& evaluator,
                                           std::span<const EvalStrategy> strategies,
                                           const Tokens& prompt, const TimingOptions& options) {
  const Models& models = evaluator.models();
  const ModelPair shapes = models.shapes();
  int64_t context = shapes.base.max_context_tokens;
  if (models.auxiliary) context = std::min(context, shapes.auxiliary.max_context_tokens);
  const int64_t length = std::ssize(prompt);
  const int64_t answer = std::max<int64_t>(std::min(options.answer_tokens, context - length), 1);
  const std::string text = evaluator.tokenizer().decode(prompt);

  std::vector<const PrefillStrategy*> measured;
  for (const EvalStrategy& strategy : strategies) measured.push_back(strategy.prefill.get());
  const auto auxiliary = make_auxiliary_strategy();  // measured in any case, to compare with
  if (models.auxiliary) measured.push_back(auxiliary.get());

  std::vector<Samples> samples(measured.size(), Samples(static_cast<size_t>(answer)));
  std::vector<StrategyTiming> timings(strategies.size());
  PrefillWorkspace workspace;
  for (int64_t round = 0; round <= options.repetitions; ++round) {
    for (size_t s = 0; s < measured.size(); ++s) {
      if (options.stop.stop_requested()) return {};
      if (round == 1) reset_peak_rss();
      const auto times = time_answer(evaluator, *measured[s], prompt, text, answer, workspace);
      if (round == 1 && s < timings.size()) timings[s].peak_rss_bytes = peak_rss_bytes();
      for (size_t t = 0; round > 0 && t < times.size(); ++t) samples[s][t].push_back(times[t]);
    }
  }
  const std::vector<double> alone = medians(samples.back());
  for (size_t s = 0; s < timings.size(); ++s) {
    StrategyTiming& timing = timings[s];
    const auto& first = samples[s][0];
    timing.ttft_ms = {quantile(first, 0.5), quantile(first, 0.1), quantile(first, 0.9)};
    const std::vector<double> total = medians(samples[s]);
    for (const int64_t tokens : kReportedTokens) {
      if (tokens <= answer) timing.total_ms[tokens] = total[static_cast<size_t>(tokens - 1)];
    }
    if (!models.auxiliary || strategies[s].spec == auxiliary->spec()) continue;
    for (size_t t = 0; t < total.size() && !timing.auxiliary_break_even_tokens; ++t) {
      if (total[t] > alone[t]) timing.auxiliary_break_even_tokens = static_cast<int64_t>(t) + 1;
    }
  }
  return timings;
}

}  // namespace kvcast
