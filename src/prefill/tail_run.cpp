#include "prefill/tail_run.h"

#include <utility>

namespace kvcast {

TailRun::TailRun(const Models& models, std::span<Sequence* const> sequences,
                 std::span<const int64_t> begins, Workspace& workspace, std::stop_token stop)
    : models_(models),
      workspace_(workspace),
      stop_(std::move(stop)),
      job_([this] { run_ready_layers(); }) {
  std::vector<int32_t> tokens;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const std::vector<int32_t>& all = sequences[s]->tokens;
    tokens.insert(tokens.end(), all.begin() + begins[s], all.end());
    const auto end = static_cast<int64_t>(all.size());
    for (int64_t i = begins[s]; i < end; ++i) positions_.push_back(i);
  }
  const int64_t* positions = positions_.data();
  for (size_t s = 0; s < sequences.size(); ++s) {
    const int64_t count = static_cast<int64_t>(sequences[s]->tokens.size()) - begins[s];
    rows_.push_back({&sequences[s]->base, count, positions});
    positions += count;
  }
  const auto dim = static_cast<size_t>(models.base->config().model_dim);
  models.base->embed(tokens, workspace.rows.ensure(tokens.size() * dim));
}

void TailRun::forecast_reached(int64_t auxiliary_layer) {
  const std::vector<int64_t>& map = models_.layer_map;
  int64_t ready = ready_layers_.load(std::memory_order_relaxed);
  while (ready < static_cast<int64_t>(map.size()) && map[ready] <= auxiliary_layer) ++ready;
  ready_layers_.store(ready, std::memory_order_release);
  if (ready > 0) job_.offer(models_.base->threads());
}

void TailRun::run_ready_layers() {
  try {
    while (next_layer_ < ready_layers_.load(std::memory_order_acquire) && !pausing_.load() &&
           !error_) {
      if (!run_to(next_layer_ + 1)) return;
    }
  } catch (...) {
    error_ = std::current_exception();
  }
}

void TailRun::pause() {
  pausing_.store(true);
  job_.withdraw();
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

bool TailRun::run_to(int64_t last) {
  RunLayersOptions options;
  options.first = next_layer_;
  options.last = last;
  if (last == models_.base->config().n_layers()) {
    options.output = LastLayerOutput::kLastRowOfEachSequence;
  }
  options.stop = stop_;
  if (!models_.base->run_layers(workspace_.rows.data(), rows_, options, workspace_)) return false;
  next_layer_ = last;
  return true;
}

bool TailRun::finish(float* logits) {
  pause();
  const int64_t layers = models_.base->config().n_layers();
  if (next_layer_ < layers && !run_to(layers)) return false;
  for (const SequenceRows& sequence : rows_) sequence.cache->advance(sequence.rows);
  models_.base->logits(workspace_.rows.data(), static_cast<int64_t>(rows_.size()), logits,
                       workspace_);
  return true;
}

}  // namespace kvcast
