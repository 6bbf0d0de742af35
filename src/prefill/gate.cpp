#include "prefill/gate.h"

#include <algorithm>

#include "base/log_sum_exp.h"
#include "base/stopwatch.h"

namespace kvcast {
namespace {

/// What the prompt's end weighs beside the choice that follows it (docs/EVALUATION.md, "The gate").
constexpr double kWeightOfTail = 0.5;

std::span<const float> row_of(std::span<const float> logits, size_t row, size_t vocab) {
  return logits.subspan(row * vocab, vocab);
}

double log_probability_of(std::span<const float> logits, int32_t token) {
  return static_cast<double>(logits[static_cast<size_t>(token)]) - log_sum_exp(logits);
}

/// The auxiliary's rows for the last `rows` tokens of each sequence, [sum of rows, model_dim],
/// behind its last layer. Null: stopped.
const float* auxiliary_rows(const Models& models, const JudgedTails& tails,
                            PrefillWorkspace& workspace, const std::stop_token& stop) {
  const Transformer& model = *models.auxiliary;
  RunLayersOptions options;
  options.stop = stop;
  TokenPass before;
  std::vector<int64_t> ends;
  for (size_t s = 0; s < tails.sequences.size(); ++s) {
    Sequence* const sequence = tails.sequences[s];
    ends.push_back(std::ssize(sequence->tokens));
    const int64_t begin = ends.back() - tails.rows[s];
    sequence->auxiliary.truncate(begin);  // it may be ahead
    if (sequence->auxiliary.next_position() == begin) continue;
    before.sequences.push_back(sequence);
    before.ends.push_back(begin);
  }
  if (!before.sequences.empty() &&
      !run_without_output(model, &Sequence::auxiliary, before.sequences, before.ends, options,
                          workspace.auxiliary)) {
    return nullptr;
  }
  return run_tokens({&model, &Sequence::auxiliary, tails.sequences, ends, options},
                    workspace.auxiliary);
}

}  // namespace

double forecast_score(std::span<const int32_t> last_tokens, std::span<const float> base,
                      std::span<const float> auxiliary) {
  const size_t rows = last_tokens.size(), vocab = base.size() / rows;
  const auto next = row_of(base, rows - 1, vocab);
  const double confidence = *std::ranges::max_element(next) - log_sum_exp(next);
  if (auxiliary.empty() || rows < 2) return confidence;
  double gain = 0;
  for (size_t row = 0; row + 1 < rows; ++row) {
    const int32_t token = last_tokens[row + 1];
    gain += log_probability_of(row_of(base, row, vocab), token) -
            log_probability_of(row_of(auxiliary, row, vocab), token);
  }
  return confidence + kWeightOfTail * gain / static_cast<double>(rows - 1);
}

bool judge_forecasts(const Models& models, const JudgedTails& tails, double threshold,
                     PrefillWorkspace& workspace, const std::stop_token& stop) {
  if (tails.sequences.empty()) return true;
  const Stopwatch watch;
  const Transformer& base = *models.base;
  const Transformer* const auxiliary =
      models.auxiliary && models.plan.auxiliary_layers() == models.auxiliary->config().n_layers()
          ? models.auxiliary.get()
          : nullptr;
  const float* read = nullptr;  // what the auxiliary makes of the next sequence's rows
  if (auxiliary != nullptr) {
    read = auxiliary_rows(models, tails, workspace, stop);
    if (read == nullptr) return false;
  }
  const double read_ms = watch.elapsed_ms() / static_cast<double>(tails.sequences.size());
  for (size_t s = 0; s < tails.sequences.size(); ++s) {
    const Stopwatch own;
    Sequence& sequence = *tails.sequences[s];
    const int64_t rows = tails.rows[s], vocab = base.config().vocab_size;
    const auto count = static_cast<size_t>(rows * vocab);
    float* const by_base = workspace.base_logits.ensure(count);
    base.logits(tails.hidden[s], rows, by_base, workspace.base);
    std::span<const float> by_auxiliary;
    if (auxiliary != nullptr) {
      float* const logits = workspace.auxiliary_logits.ensure(count);
      auxiliary->logits(read, rows, logits, workspace.auxiliary);
      by_auxiliary = {logits, count};
      read += rows * auxiliary->config().model_dim;
    }
    const auto last = std::span(sequence.tokens).last(static_cast<size_t>(rows));
    std::copy_n(by_base + count - vocab, vocab, tails.logits[s]);
    const double score = forecast_score(last, {by_base, count}, by_auxiliary);
    sequence.gate = {.score = score, .threshold = threshold, .ms = read_ms + own.elapsed_ms()};
  }
  return true;
}

}  // namespace kvcast
