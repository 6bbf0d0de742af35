#include "prefill/pruned_rows.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace kvcast {

int64_t kept_count(int64_t rows, double keep) {
  return std::clamp<int64_t>(std::llround(keep * static_cast<double>(rows)), 1, rows);
}

std::vector<int64_t> highest_rows(std::span<const float> scores, int64_t count) {
  std::vector<int64_t> rows(scores.size() - 1);
  std::iota(rows.begin(), rows.end(), int64_t{0});
  std::ranges::stable_sort(rows, [&](int64_t a, int64_t b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  });
  rows.resize(static_cast<size_t>(count - 1));
  rows.push_back(static_cast<int64_t>(scores.size()) - 1);
  std::ranges::sort(rows);
  return rows;
}

std::vector<std::vector<int64_t>> pending_positions(std::span<Sequence* const> sequences) {
  std::vector<std::vector<int64_t>> positions;
  for (const Sequence* sequence : sequences) {
    const int64_t first = sequence->base.next_position();
    auto& pending = positions.emplace_back(sequence->tokens.size() - static_cast<size_t>(first));
    std::iota(pending.begin(), pending.end(), first);
  }
  return positions;
}

PrunedRows::PrunedRows(const Transformer& base, std::span<Sequence* const> sequences,
                       std::vector<std::vector<int64_t>> positions, Workspace& workspace)
    : base_(base),
      sequences_(sequences),
      positions_(std::move(positions)),
      workspace_(workspace),
      hidden_(workspace.rows.ensure(static_cast<size_t>(total_rows() * base.config().model_dim))) {
  std::vector<int32_t> tokens;
  for (size_t s = 0; s < sequences_.size(); ++s) {
    sequences_[s]->base.reserve(static_cast<int64_t>(sequences_[s]->tokens.size()));
    for (const int64_t position : positions_[s]) {
      tokens.push_back(sequences_[s]->tokens[static_cast<size_t>(position)]);
    }
  }
  base_.embed(tokens, hidden_);
}

int64_t PrunedRows::total_rows() const {
  int64_t total = 0;
  for (const auto& rows : positions_) total += static_cast<int64_t>(rows.size());
  return total;
}

void PrunedRows::keep(const std::vector<std::vector<int64_t>>& kept) {
  const int64_t dim = base_.config().model_dim;
  int64_t first = 0, to = 0;  // rows of `hidden_`
  for (size_t s = 0; s < sequences_.size(); ++s) {
    std::vector<int64_t> positions;
    for (const int64_t row : kept[s]) {
      if (first + row != to) {
        std::copy_n(hidden_ + (first + row) * dim, dim, hidden_ + to * dim);
      }
      positions.push_back(positions_[s][static_cast<size_t>(row)]);
      ++to;
    }
    first += rows(s);
    positions_[s] = std::move(positions);
  }
}

bool PrunedRows::run(const RunLayersOptions& options) {
  std::vector<SequenceRows> batch;
  for (size_t s = 0; s < sequences_.size(); ++s) {
    batch.push_back({&sequences_[s]->base, rows(s), positions_[s].data()});
  }
  return base_.run_layers(hidden_, batch, options, workspace_);
}

bool PrunedRows::read(const std::stop_token& stop, float* logits) {
  RunLayersOptions options;
  options.last = base_.config().n_layers();
  options.output = LastLayerOutput::kLastRows;
  options.stop = stop;
  if (!run(options)) return false;
  finish(logits);
  return true;
}

void PrunedRows::finish(float* logits) {
  for (Sequence* sequence : sequences_) {
    sequence->base.advance_inexact(static_cast<int64_t>(sequence->tokens.size()) -
                                   sequence->base.next_position());
  }
  base_.logits(hidden_, static_cast<int64_t>(sequences_.size()), logits, workspace_);
}

}  // namespace kvcast
