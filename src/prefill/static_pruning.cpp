#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/stopwatch.h"
#include "prefill/pruned_rows.h"

namespace kvcast {
namespace {

/// SP(r) of method §8: the first quarter of the base's layers reads everything; the tokens that get
/// most of the last token's attention there, mean over heads and layers, are read again by the
/// whole base. Earlier turns' rows stay.
class StaticStrategy final : public PrefillStrategy {
 public:
  explicit StaticStrategy(double keep) : keep_(keep) {}

  [[nodiscard]] std::string spec() const override { return fmt::format("static:{}", keep_); }
  [[nodiscard]] bool needs_bundle() const override { return false; }
  [[nodiscard]] PrefillCost cost(const ModelPair& models, int64_t prompt_tokens) const override {
    const int64_t kept = kept_count(prompt_tokens, keep_);
    PrefillCost cost = exact_cost(models.base, kept);
    if (kept < prompt_tokens) {
      const PrefillCost scoring =
          attention_scoring_cost(models.base, scored_layers(models.base), prompt_tokens);
      cost.base += scoring.base;
      cost.attention += scoring.attention;
    }
    return cost;
  }
  [[nodiscard]] double paper_reduction(const ModelPair& /*models*/,
                                       int64_t /*prompt_tokens*/) const override {
    return keep_ == 1 ? 1 : 1 / (kScoredShare + keep_);
  }

  [[nodiscard]] CacheUse cache_use() const override { return {}; }

 private:
  PrefillState next(const PrefillStep& step, PrefillReport& report) const override {
    const Stopwatch watch;
    for (Sequence* sequence : step.sequences) sequence->answerer = Sequence::Answerer::kBase;
    auto positions = pending_positions(step.sequences);
    const bool drops = std::ranges::any_of(positions, [&](const auto& pending) {
      return kept_count(std::ssize(pending), keep_) < std::ssize(pending);
    });
    if (drops) {
      report.stopped = !keep_highest(*step.models.base, step.sequences, positions,
                                     step.workspace.base, step.stop);
      if (report.stopped) return PrefillState::kDone;
    }
    PrunedRows rows(*step.models.base, step.sequences, std::move(positions), step.workspace.base);
    report.computed_tokens += rows.total_rows();
    report.stopped = !rows.read(step.stop, step.logits);
    report.base_ms += watch.elapsed_ms();
    return PrefillState::kDone;
  }

  static constexpr double kScoredShare = 0.25;  // of the layers

  static int64_t scored_layers(const ModelConfig& base) {
    return std::max<int64_t>(1, std::llround(kScoredShare * static_cast<double>(base.n_layers())));
  }

  /// Leaves, of each sequence's pending `positions`, those to be kept. False: stopped.
  bool keep_highest(const Transformer& base, std::span<Sequence* const> sequences,
                    std::vector<std::vector<int64_t>>& positions, Workspace& workspace,
                    const std::stop_token& stop) const {
    PrunedRows rows(base, sequences, positions, workspace);
    std::vector<std::vector<float>> scores(sequences.size());  // [sequences][pending]
    std::vector<std::vector<float>> attention;                 // [sequences][cache rows]
    const int64_t layers = scored_layers(base.config());
    for (int64_t layer = 0; layer < layers; ++layer) {
      RunLayersOptions options;
      options.first = layer;
      options.last = layer + 1;
      // The last scored layer owes nothing but the last row's attention.
      if (layer + 1 == layers) options.output = LastLayerOutput::kLastRows;
      options.last_row_attention = &attention;
      options.stop = stop;
      if (!rows.run(options)) return false;
      for (size_t s = 0; s < sequences.size(); ++s) {
        scores[s].resize(positions[s].size());
        const auto pending = std::span(attention[s]).last(positions[s].size());
        std::ranges::transform(scores[s], pending, scores[s].begin(), std::plus());
      }
    }
    for (size_t s = 0; s < sequences.size(); ++s) {
      KVCache& cache = sequences[s]->base;
      cache.truncate(cache.next_position());  // what was appended for the scores
      std::vector<int64_t> kept;
      for (const int64_t row :
           highest_rows(scores[s], kept_count(std::ssize(positions[s]), keep_))) {
        kept.push_back(positions[s][static_cast<size_t>(row)]);
      }
      positions[s] = std::move(kept);
    }
    return true;
  }

  double keep_;
};

}  // namespace

std::unique_ptr<PrefillStrategy> make_static_strategy(double keep) {
  return std::make_unique<StaticStrategy>(keep);
}

}  // namespace kvcast
