#include "prefill/tail_run.h"

#include <algorithm>
#include <utility>

namespace kvcast {

TailRun::TailRun(const Models& models, std::span<Sequence* const> sequences,
                 std::span<const int64_t> begins, std::span<const int64_t> sinks,
                 Workspace& workspace, std::stop_token stop)
    : models_(models), workspace_(workspace), stop_(std::move(stop)) {
  std::vector<int32_t> tokens;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const auto end = static_cast<int64_t>(sequences[s]->tokens.size());
    for (int64_t i = begins[s]; i < end; ++i) positions_.push_back(i);
  }
  const int64_t* positions = positions_.data();
  for (size_t s = 0; s < sequences.size(); ++s) {
    const std::vector<int32_t>& all = sequences[s]->tokens;
    KVCache* const cache = &sequences[s]->base;
    if (const int64_t first = sinks.empty() ? 0 : sinks[s]; first > 0) {
      tokens.insert(tokens.end(), all.begin(), all.begin() + first);
      rows_.push_back({.cache = cache, .rows = first, .overwrites = true, .outputs = 0});
    }
    tokens.insert(tokens.end(), all.begin() + begins[s], all.end());
    const int64_t count = static_cast<int64_t>(all.size()) - begins[s];
    rows_.push_back({.cache = cache, .rows = count, .positions = positions});
    positions += count;
  }
  const auto dim = static_cast<size_t>(models.base->config().model_dim);
  models.base->embed(tokens, workspace.rows.ensure(tokens.size() * dim));
  steps_.emplace(*models.base, workspace.rows.data(), rows_, workspace);
  products_.emplace(static_cast<int64_t>(tokens.size()), models.base->threads(),
                    [this] { begin_products(); });
  carried_.emplace(&*products_);
}

void TailRun::forecast_reached(int64_t stage) {
  const ForecastPlan& plan = models_.plan;
  while (ready_layers_ < plan.base_layers() && plan.ready_stage(ready_layers_) <= stage) {
    ++ready_layers_;
  }
  if (products_->idle()) begin_products();
}

/// Nothing is in progress. In the last layer not all rows need everything: it is left to finish().
void TailRun::begin_products() {
  try {
    const int64_t end = std::min(ready_layers_, models_.base->config().n_layers() - 1);
    while (!error_ && !stop_.stop_requested() &&
           (steps_->layer() < end || !steps_->between_layers())) {
      const std::span<const MatmulArgs> products = steps_->step();
      if (!products.empty()) return products_->start(products);
    }
  } catch (...) {
    error_ = std::current_exception();
  }
}

const float* TailRun::finish() {
  carried_.reset();
  while (!error_ && !steps_->between_layers()) {
    products_->finish();
    const std::span<const MatmulArgs> products = steps_->step();
    if (!products.empty()) products_->start(products);
  }
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  RunLayersOptions options;
  options.first = steps_->layer();
  options.last = models_.base->config().n_layers();
  options.output = LastLayerOutput::kLastRows;
  options.stop = stop_;
  float* const rows = workspace_.rows.data();
  if (!models_.base->run_layers(rows, rows_, options, workspace_)) return nullptr;
  for (const SequenceRows& sequence : rows_) {  // a sequence's sinks come before its tail
    if (sequence.overwrites) {
      sequence.cache->make_exact(sequence.rows);
    } else {
      sequence.cache->advance(sequence.rows);
    }
  }
  return rows;
}

}  // namespace kvcast
