// The base's run over the last tokens of each sequence, while the auxiliary still computes.
#pragma once

#include <exception>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "kernels/background.h"
#include "prefill/sequence.h"

namespace kvcast {

/// A base layer can run as soon as the layers that it and those before it read have been through
/// their last rows. Few rows of the base wait for its weights to come from memory, the
/// auxiliary's many rows for arithmetic: while this lives, the calling thread's products of many
/// rows carry those of the layers that are ready along (BackgroundProducts).
class TailRun {
 public:
  /// More rows have arithmetic of their own to wait for.
  static constexpr int64_t kMostRows = 16;
  /// With sinks among them.
  static constexpr int64_t kMostRowsWithSinks = 24;

  /// The tokens [begins, end of the sequence) of each; at least one each, kMostRows in all. Base
  /// caches must have room. Embeds them. `sinks`, if not empty: so many of each sequence's first
  /// tokens run too (kMostRowsWithSinks in all) and overwrite what is forecast there; the caches
  /// of those sequences are empty now.
  TailRun(const Models& models, std::span<Sequence* const> sequences,
          std::span<const int64_t> begins, std::span<const int64_t> sinks, Workspace& workspace,
          std::stop_token stop);

  /// The base caches hold the rows of all base layers that are ready after this stage of the plan.
  void forecast_reached(int64_t stage);
  /// The rest of the layers, with all threads; the caches advance. The last token of each sequence
  /// [sequences, model_dim], until the workspace is used again. Null: stopped. Rethrows what was
  /// thrown on the way.
  const float* finish();

 private:
  void begin_products();

  const Models& models_;
  std::vector<SequenceRows> rows_;
  std::vector<int64_t> positions_;  // [rows of the tails], of all sequences
  Workspace& workspace_;
  std::stop_token stop_;
  int64_t ready_layers_ = 0;
  std::exception_ptr error_;
  std::optional<SteppedRun> steps_;
  std::optional<BackgroundProducts> products_;
  std::optional<BackgroundProducts::Scope> carried_;
};

}  // namespace kvcast
