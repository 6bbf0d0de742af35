#include "prefill/prefill_pace.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

#include "base/stopwatch.h"
#include "prefill/strategy.h"
#include "prefill/tail_run.h"

namespace kvcast {
namespace {

/// Weight of what is new: a few prompts change an estimate, one that was disturbed does not.
constexpr double kNew = 0.2;
/// The same for what all terms have in common: a machine that is shared is faster and slower by a
/// third from minute to minute.
constexpr double kNewLoad = 0.15;
/// One observation corrects by no more than this factor's logarithm to the base 2, once a length
/// has been seen twice: a prompt that the system interrupted says nothing about the next.
constexpr double kMostCorrection = 0.5;
/// Of the first work's time, which may not be all attention.
constexpr double kLeastProducts = 0.2;
/// Estimates that were off by this many times the mean error are one in ten or fewer.
constexpr double kNewError = 1.0 / 16;
constexpr double kMarginErrors = 2, kMostMargin = 1.3;

/// Operations: with weights, and attention's.
struct Operations {
  double products = 0, attention = 0;

  Operations& operator+=(const PrefillCost& cost) {
    products += cost.total() - cost.attention;
    attention += cost.attention;
    return *this;
  }
  Operations& operator-=(const PrefillCost& cost) {
    products -= cost.total() - cost.attention;
    attention -= cost.attention;
    return *this;
  }
};

Operations operations_of(const Models& models, const PrefillWork& work) {
  const ModelPair shapes = models.shapes();
  Operations found;
  const auto read_exactly = [&](int64_t start, int64_t rows) {
    found += exact_cost(shapes.base, start + rows);
    if (start == 0) return;
    PrefillCost before = exact_cost(shapes.base, start);
    before.lm_head = 0;  // the last token's logits are wanted all the same
    found -= before;
  };
  if (work.kind == PrefillWork::Kind::kExact) {
    read_exactly(work.start, work.rows);
    return found;
  }
  const auto forecast = [&](int64_t rows) {  // without the base's last row
    Operations some;
    if (rows == 0) return some;
    some += kv_prediction_cost(shapes.base, shapes.auxiliary, shapes.plan, rows + 1);
    some -= step_cost(shapes.base, rows);
    return some;
  };
  const int64_t end = work.start + work.rows;
  const Operations all = forecast(end), before = forecast(work.start);
  found = {all.products - before.products, all.attention - before.attention};
  if (work.kind == PrefillWork::Kind::kForecastWithTail) read_exactly(end, work.tail);
  return found;
}

size_t place_of(int64_t rows) {
  return std::min<size_t>(std::bit_width(static_cast<uint64_t>(rows)), 23);
}

double log_of(int64_t rows) { return std::log2(static_cast<double>(rows)); }

}  // namespace

/// Few rows wait for memory and many for arithmetic: between two lengths the speed's logarithm goes
/// about straight over the length's.
std::optional<double> PrefillPace::Speeds::log_speed(double log_rows) const {
  const Point* below = nullptr;
  const Point* above = nullptr;
  for (const Point& point : points) {
    if (point.count == 0) continue;
    if (point.log_rows <= log_rows) below = &point;
    if (point.log_rows > log_rows && above == nullptr) above = &point;
  }
  if (below == nullptr && above == nullptr) return std::nullopt;
  if (below == nullptr || above == nullptr) return (below != nullptr ? below : above)->log_speed;
  const double share = (log_rows - below->log_rows) / (above->log_rows - below->log_rows);
  return std::lerp(below->log_speed, above->log_speed, share);
}

std::optional<PrefillPace::Estimate> PrefillPace::estimate(const Models& models,
                                                           const PrefillWork& work) const {
  const auto log_speed = speeds_[static_cast<size_t>(work.kind)].log_speed(log_of(work.rows));
  if (!log_speed) return std::nullopt;
  const Operations operations = operations_of(models, work);
  const double now = std::exp2(log_slower_);
  return Estimate{operations.products * std::exp2(-*log_speed) * now,
                  operations.attention * attention_ms_ * now};
}

std::optional<double> PrefillPace::estimate_ms(const Models& models,
                                               const PrefillWork& work) const {
  if (work.rows < 1) return 0;
  const std::lock_guard lock(mutex_);
  const auto found = estimate(models, work);
  return found ? std::optional(found->total()) : std::nullopt;
}

void PrefillPace::observe(const Models& models, const PrefillWork& work, double ms) {
  if (work.rows < 1 || ms <= 0) return;
  const Operations operations = operations_of(models, work);
  const double log_rows = log_of(work.rows);
  const std::lock_guard lock(mutex_);
  auto& point = speeds_[static_cast<size_t>(work.kind)].points[place_of(work.rows)];
  const auto expected = estimate(models, work);
  if (!expected) {  // nothing like it has been seen: if need be, all operations last alike
    if (attention_ms_ == 0) attention_ms_ = ms / (operations.products + operations.attention);
    const double products_ms =
        std::max(ms - operations.attention * attention_ms_, kLeastProducts * ms);
    point = {log_rows, std::log2(operations.products / products_ms), 1};
    return;
  }
  const double speed = std::log2(operations.products / expected->products_ms) + log_slower_;
  if (point.count == 0) point = {log_rows, speed, 0};
  const double share = expected->attention_ms / expected->total();
  const double off = std::log2(ms / expected->total());
  const double correction = std::clamp(off, -kMostCorrection, kMostCorrection);
  log_slower_ += kNewLoad * correction;
  attention_ms_ *= std::exp2(kNew * share * correction);
  // The first observation is of a cold cache, and replaced by the second.
  const bool first = ++point.count <= 2;
  const double weight = (first ? 1 : kNew) * (1 - share);
  point.log_rows += weight * (log_rows - point.log_rows);
  point.log_speed += weight * (speed - (first ? off : correction) - point.log_speed);
}

void PrefillPace::observe_overhead(double ms) {
  const std::lock_guard lock(mutex_);
  overhead_ms_[static_cast<size_t>(overheads_++ % std::ssize(overhead_ms_))] = ms;
}

double PrefillPace::overhead_ms() const {
  const std::lock_guard lock(mutex_);
  if (overheads_ == 0) return 0;
  // The least of the last: what else the machine does only adds.
  return *std::min_element(
      overhead_ms_.begin(),
      overhead_ms_.begin() + std::min<int64_t>(overheads_, std::ssize(overhead_ms_)));
}

void PrefillPace::observe_error(double estimated_ms, double ms) {
  if (estimated_ms <= 0 || ms <= 0) return;
  const std::lock_guard lock(mutex_);
  const double error = std::min(std::abs(std::log2(ms / estimated_ms)), kMostCorrection);
  mean_error_ += (error - mean_error_) * kNewError;
}

double PrefillPace::margin() const {
  const std::lock_guard lock(mutex_);
  return std::min(std::exp2(kMarginErrors * mean_error_), kMostMargin);
}

void PrefillPace::measure_once(const Models& models) {
  std::call_once(measured_, [&] {
    measure_attention(models);
    PrefillWorkspace workspace;
    std::vector<float> logits(static_cast<size_t>(models.base->config().vocab_size));
    const int64_t most = models.base->config().max_context_tokens;
    const auto measure = [&](const PrefillStrategy& strategy, int64_t tokens) {
      if (tokens > most) return;
      Sequence sequence(models);
      Sequence* const one[] = {&sequence};
      sequence.tokens.assign(static_cast<size_t>(tokens), 0);
      for (size_t i = 0; i < sequence.tokens.size(); ++i) {
        sequence.tokens[i] = static_cast<int32_t>(i) % models.base->config().vocab_size;
      }
      observe_work(strategy, models, {},
                   strategy.prefill(models, one, logits.data(), workspace, {}));
    };
    constexpr int64_t kCarried = TailRun::kMostRows, kBehind = 2 * TailRun::kMostRows;
    for (const int64_t rows : {1, 1, 16, 64, 256}) {  // the first touches memory
      measure(*make_exact_strategy(), rows);
      if (!models.is_bundle()) continue;
      const int64_t read = rows + models.plan.sink_tokens;
      measure(*make_kv_prediction_strategy({.tail = kCarried}), read + kCarried);
      measure(*make_kv_prediction_strategy({.tail = kBehind}), read + kBehind);
    }
  });
}

/// The same rows at a prompt's beginning and behind a long cache: the difference is attention's.
void PrefillPace::measure_attention(const Models& models) {
  constexpr int64_t kRows = 32, kMostCached = 2048;
  const int64_t cached = std::min(kMostCached, models.base->config().max_context_tokens - kRows);
  if (cached <= kRows) return;
  PrefillWorkspace workspace;
  std::vector<float> logits(static_cast<size_t>(models.base->config().vocab_size));
  const auto strategy = make_exact_strategy();
  const auto least_ms = [&](int64_t start) {
    Sequence sequence(models);
    Sequence* const one[] = {&sequence};
    sequence.tokens.assign(static_cast<size_t>(start + kRows), 0);
    sequence.base.reserve(start + kRows);
    const std::vector<std::byte> zeros(static_cast<size_t>(sequence.base.held_bytes(start)));
    for (int64_t layer = 0; layer < sequence.base.n_layers(); ++layer) {
      sequence.base.append_held(layer, start, zeros.data());
    }
    sequence.base.advance(start);
    double least = std::numeric_limits<double>::infinity();
    for (int turn = 0; turn < 3; ++turn) {
      const Stopwatch watch;
      strategy->prefill(models, one, logits.data(), workspace, {});
      least = std::min(least, watch.elapsed_ms());
      sequence.base.truncate(start);
    }
    return least;
  };
  const double alone_ms = least_ms(0), behind_ms = least_ms(cached);
  const auto attention = [&](int64_t start) {
    return operations_of(models, {.start = start, .rows = kRows}).attention;
  };
  const std::lock_guard lock(mutex_);
  attention_ms_ =
      std::max(behind_ms - alone_ms, 1e-3 * alone_ms) / (attention(cached) - attention(0));
}

}  // namespace kvcast
