#include "prefill/prefill_pace.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <span>
#include <vector>

#include "base/stopwatch.h"
#include "prefill/strategy.h"

namespace kvcast {
namespace {

/// Weight of what is new: a few prompts change an estimate, one that was disturbed does not.
constexpr double kNew = 0.3;

double flops_of(const Models& models, PrefillPace::Kind kind, int64_t start, int64_t rows) {
  const ModelPair shapes = models.shapes();
  const auto whole = [&](int64_t tokens) {
    if (tokens < 1) return 0.0;
    return kind == PrefillPace::Kind::kExact
               ? exact_cost(shapes.base, tokens).total()
               : kv_prediction_cost(shapes.base, shapes.auxiliary, shapes.plan, tokens + 1).total();
  };
  return std::max(1.0, whole(start + rows) - whole(start));
}

size_t place_of(int64_t rows) {
  return std::min<size_t>(std::bit_width(static_cast<uint64_t>(rows)), 23);
}

}  // namespace

void PrefillPace::measure_once(const Models& models) {
  std::call_once(measured_, [&] {
    PrefillWorkspace workspace;
    std::vector<float> logits(static_cast<size_t>(models.base->config().vocab_size));
    const auto measure = [&](const PrefillStrategy& strategy, Kind kind, int64_t rows) {
      Sequence sequence(models);
      Sequence* const one[] = {&sequence};
      sequence.tokens.resize(static_cast<size_t>(kind == Kind::kExact ? rows : rows + 1));
      for (size_t i = 0; i < sequence.tokens.size(); ++i) {
        sequence.tokens[i] = static_cast<int32_t>(i) % models.base->config().vocab_size;
      }
      const Stopwatch watch;
      strategy.prefill(models, one, logits.data(), workspace, {});
      observe(models, kind, 0, rows, watch.elapsed_ms());
    };
    const int64_t most = models.base->config().max_context_tokens - 1;
    for (const int64_t rows : {1, 1, 16, 64, 256}) {  // the first touches memory
      if (rows > most) break;
      measure(*make_exact_strategy(), Kind::kExact, rows);
      if (models.is_bundle()) {
        measure(*make_kv_prediction_strategy({}), Kind::kForecast, rows);
      }
    }
  });
}

void PrefillPace::observe(const Models& models, Kind kind, int64_t start, int64_t rows, double ms) {
  if (rows < 1 || ms <= 0) return;
  const double log_rows = std::log2(static_cast<double>(rows));
  const double log_speed = std::log2(flops_of(models, kind, start, rows) / ms);
  const std::lock_guard lock(mutex_);
  auto& point = speeds_[static_cast<size_t>(kind)].points[place_of(rows)];
  // The first observation is of a cold cache, and replaced by the second.
  const double share = ++point.count <= 2 ? 1 : kNew;
  point.log_rows += share * (log_rows - point.log_rows);
  point.log_speed += share * (log_speed - point.log_speed);
}

std::optional<double> PrefillPace::estimate_ms(const Models& models, Kind kind, int64_t start,
                                               int64_t rows) const {
  if (rows < 1) return 0;
  const double log_rows = std::log2(static_cast<double>(rows));
  const std::lock_guard lock(mutex_);
  // Few rows wait for memory and many for arithmetic: between two lengths the speed's logarithm
  // goes about straight over the length's.
  const Speeds::Point* below = nullptr;
  const Speeds::Point* above = nullptr;
  for (const auto& point : speeds_[static_cast<size_t>(kind)].points) {
    if (point.count == 0) continue;
    if (point.log_rows <= log_rows) below = &point;
    if (point.log_rows > log_rows && above == nullptr) above = &point;
  }
  if (below == nullptr && above == nullptr) return std::nullopt;
  double log_speed = 0;
  if (below != nullptr && above != nullptr) {
    const double share = (log_rows - below->log_rows) / (above->log_rows - below->log_rows);
    log_speed = std::lerp(below->log_speed, above->log_speed, share);
  } else {
    log_speed = (below != nullptr ? below : above)->log_speed;
  }
  return flops_of(models, kind, start, rows) / std::exp2(log_speed);
}

}  // namespace kvcast
