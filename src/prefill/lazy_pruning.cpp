#include <fmt/format.h>

#include <cmath>

#include "base/stopwatch.h"
#include "prefill/pruned_rows.h"

namespace kvcast {
namespace {

/// LazyLLM (arXiv 2407.14057) as method §8 gives it: from 30% of the depth on a share `keep_first`
/// of the prompt's tokens goes on, falling linearly to `keep_last` at 90%. Those go on that the
/// last token attends to most in the layer before, mean over heads. Dropped tokens are not revived
/// in decoding. Earlier turns' rows stay.
class LazyStrategy final : public PrefillStrategy {
 public:
  LazyStrategy(double keep_first, double keep_last)
      : keep_first_(keep_first), keep_last_(keep_last) {}

  [[nodiscard]] std::string spec() const override {
    return fmt::format("lazy:{}-{}", keep_first_, keep_last_);
  }
  [[nodiscard]] bool needs_bundle() const override { return false; }
  [[nodiscard]] PrefillCost cost(const ModelPair& models, int64_t prompt_tokens) const override {
    const int64_t layers = models.base.n_layers();
    std::vector<int64_t> rows;
    for (int64_t i = 0; i < layers; ++i) {
      rows.push_back(kept_count(prompt_tokens, keep_in(i, layers)));
    }
    return pruned_cost(models.base, rows);
  }
  /// 30% of the layers read everything, 60% the mean of the two shares, 10% the last.
  [[nodiscard]] double paper_reduction(const ModelPair& /*models*/,
                                       int64_t /*prompt_tokens*/) const override {
    return 1 /
           (kBegin + (kEnd - kBegin) * (keep_first_ + keep_last_) / 2 + (1 - kEnd) * keep_last_);
  }

  [[nodiscard]] CacheUse cache_use() const override { return {}; }

 private:
  PrefillState next(const PrefillStep& step, PrefillReport& report) const override {
    const Stopwatch watch;
    for (Sequence* sequence : step.sequences) sequence->answerer = Sequence::Answerer::kBase;
    const auto pending = pending_positions(step.sequences);
    PrunedRows rows(*step.models.base, step.sequences, pending, step.workspace.base);
    report.computed_tokens += rows.total_rows();
    std::vector<std::vector<float>> attention;  // [sequences][cache rows], of the layer before
    const int64_t layers = step.models.base->config().n_layers();
    for (int64_t layer = 0; layer < layers && !report.stopped; ++layer) {
      if (layer > 0) drop(rows, pending, keep_in(layer, layers), attention);
      RunLayersOptions options;
      options.first = layer;
      options.last = layer + 1;
      options.stop = step.stop;
      if (layer + 1 == layers) {
        options.output = LastLayerOutput::kLastRows;
      } else if (drops_after(pending, layer, layers)) {
        options.last_row_attention = &attention;
      }
      report.stopped = !rows.run(options);
    }
    if (!report.stopped) {
      rows.finish(step.logits);
    }
    report.base_ms += watch.elapsed_ms();
    return PrefillState::kDone;
  }

  static constexpr double kBegin = 0.3, kEnd = 0.9;  // of the depth

  /// The share of the prompt that layer `layer` of `layers` reads.
  [[nodiscard]] double keep_in(int64_t layer, int64_t layers) const {
    const double depth = static_cast<double>(layer) / static_cast<double>(layers);
    if (depth < kBegin) return 1;
    return std::lerp(keep_first_, keep_last_, std::min(1.0, (depth - kBegin) / (kEnd - kBegin)));
  }

  /// Whether the layer after `layer` reads less of any prompt than `layer` does.
  [[nodiscard]] bool drops_after(const std::vector<std::vector<int64_t>>& pending, int64_t layer,
                                 int64_t layers) const {
    for (const auto& positions : pending) {
      const int64_t count = std::ssize(positions);
      if (kept_count(count, keep_in(layer + 1, layers)) <
          kept_count(count, keep_in(layer, layers))) {
        return true;
      }
    }
    return false;
  }

  /// Goes on with a share `keep` of each sequence's pending tokens, those with most attention.
  static void drop(PrunedRows& rows, const std::vector<std::vector<int64_t>>& pending, double keep,
                   const std::vector<std::vector<float>>& attention) {
    bool any = false;
    std::vector<std::vector<int64_t>> kept;
    for (size_t s = 0; s < pending.size(); ++s) {
      const int64_t count = kept_count(std::ssize(pending[s]), keep);
      any = any || count < rows.rows(s);
    }
    if (!any) return;
    for (size_t s = 0; s < pending.size(); ++s) {
      const auto scores = std::span(attention[s]).last(static_cast<size_t>(rows.rows(s)));
      kept.push_back(highest_rows(scores, kept_count(std::ssize(pending[s]), keep)));
    }
    rows.keep(kept);
  }

  double keep_first_, keep_last_;
};

}  // namespace

std::unique_ptr<PrefillStrategy> make_lazy_strategy(double keep_first, double keep_last) {
  return std::make_unique<LazyStrategy>(keep_first, keep_last);
}

}  // namespace kvcast
