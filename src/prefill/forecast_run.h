// A forecast of base caches: the prompt's readers and the predictor, pass by pass.
#pragma once

#include <cstdint>
#include <span>
#include <stop_token>

#include "prefill/strategy.h"
#include "prefill/tail_run.h"

namespace kvcast {

/// What a forecast works with, and how.
struct ForecastRun {
  const Models& models;
  PrefillWorkspace& workspace;
  const std::stop_token& stop;
  PrefillReport& report;
  int64_t reader_layers = 0;    ///< of the auxiliary
  bool keeps_residual = false;  ///< what leaves the exact layers is kept for refinement
  TailRun* tail = nullptr;      ///< may begin during the last pass
  /// In the last pass the auxiliary goes on to the end of the only sequence, for the mix.
  bool reads_to_the_end = false;
};

/// Forecasts the base caches of `sequences` up to `ends`, each beyond its base's position, once
/// nothing is unread(). False: stopped.
bool forecast(const ForecastRun& run, std::span<Sequence* const> sequences,
              std::span<const int64_t> ends);

/// Forecasts the base caches up to `ends` [sequences], each beyond its cache's position, and runs
/// nothing of the base: the predicted cache of training (method §4).
void forecast_up_to(const Models& models, std::span<Sequence* const> sequences,
                    std::span<const int64_t> ends, PrefillWorkspace& workspace);

}  // namespace kvcast
