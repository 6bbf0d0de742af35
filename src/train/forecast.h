// A base that reads prompts through its own first layers and a few trained ones that go on from
// there: what the trained part computes, and the training step (method §10, §11; docs/FORMAT.md,
// format 2).
#pragma once

#include <utility>
#include <vector>

#include "train/kvp_loss.h"
#include "train/model.h"
#include "train/predictor.h"

namespace kvcast::train {

/// What of a base is exact, and what is forecast.
struct ForecastShape {
  /// Layers whose keys and values are the base's own: all but the last of them run whole, the last
  /// gives its keys and values only. None of them: what reads has to be a model of its own.
  int64_t exact_layers = 1;
  int64_t sink_tokens = 4;  ///< first positions that the base runs through all layers
  /// Streams of the reader, ascending, that every map reads beside its own, a later one: theirs
  /// come first in its input.
  std::vector<int64_t> beside = {};

  /// The layer whose entering rows the trained layers go on from.
  [[nodiscard]] int64_t start() const { return exact_layers > 0 ? exact_layers - 1 : 0; }
};

/// What is trained. Source j of a map is the residual stream, divided by its RMS, that enters
/// layer j of the reader; source `layers` is what leaves the last one. ForecastShape::beside has
/// further ones.
struct Forecaster {
  /// With embeddings: a model that reads the tokens itself. Without: layers of the base's width
  /// that go on from the rows which enter base layer shape.start().
  Model reader;
  Predictor maps;  ///< layer_map: for each base layer after the exact ones, its source
};

/// The base's exact pass over tokens [B, T], without gradients.
struct ExactRun {
  Tensor tokens;   ///< [B, T]
  Tensor start;    ///< [B, T, model_dim] rows that enter layer shape.start()
  Tensor resumed;  ///< likewise of the first layer after the exact ones
  Cache cache;     ///< of the layers after the exact ones
  Tensor hidden;   ///< after the final norm
};
ExactRun run_exact(const Model& base, const ForecastShape& shape, const Tensor& tokens);

/// The sources for the first `tokens` positions, [B, tokens, the reader's model_dim] each.
Tensors forecast_sources(const Model& reader, const ExactRun& exact, int64_t tokens);

/// What a map of this source reads, [B, T, its width].
Tensor map_input(const ForecastShape& shape, const Tensors& sources, int64_t source);

/// The rows of base layers after the exact ones, for the positions of `sources`, first ones of
/// `exact`.
Cache forecast_cache(const Model& base, const ForecastShape& shape, const Predictor& maps,
                     const ExactRun& exact, const Tensors& sources);

/// Hidden states of positions from pass.predicted_tokens on, as the base has them over forecast
/// rows: of all positions (0: every key and value replaced), or of those after the split, which
/// `forecast` ends at.
Tensor run_on_forecast(const Model& base, const ForecastShape& shape, const ExactRun& exact,
                       const Cache& forecast, const KvpPass& pass);

/// A split of its own for each sequence: the base has forecast keys and values before it, its own
/// from there on. All positions are scored, those before at another weight.
struct SequenceSplits {
  Tensor own_from = {};        ///< [B] int64, 1 and more; undefined: the pass says where, for all
  double prefix_weight = 1.0;  ///< of positions before the split
};

/// An auxiliary that reads prompt and answer itself and has a say in the next token: logits are
/// (1 - share) base + share auxiliary (`kv-prediction:mix=`).
struct Companion {
  Tensor hidden = {};   ///< [B, T, its model_dim] behind its final norm; undefined: none
  Tensor lm_head = {};  ///< [vocab, base's model_dim + its model_dim]: both heads beside each other
  double share = 0.0;
};
/// `student` and `teacher` [rows, base's model_dim] with the companion's `hidden` [rows, ...]
/// behind them: rows whose products with Companion::lm_head are the mixed logits, and the teacher's
/// own.
std::pair<Tensor, Tensor> beside_companion(const Tensor& student, const Tensor& teacher,
                                           const Tensor& hidden, double share);

struct ForecastLosses {
  /// scalar, differentiable: lambda_base CE + lambda_kl KL(exact || forecast) + lambda_auxiliary CE
  Tensor total;
  CrossEntropy base;
  Tensor kl;               ///< scalar, detached
  CrossEntropy auxiliary;  ///< of a reader that is a model; undefined at weight 0
};
/// input_ids and targets [B, T]; of `options` the three weights and the cross-entropy's. With
/// `splits` the pass is not looked at. A companion's mixed distribution is what is held against the
/// exact one.
ForecastLosses forecast_loss(const Model& base, const ForecastShape& shape,
                             const Forecaster& forecaster, const Tensor& input_ids,
                             const Tensor& targets, const KvpLossOptions& options,
                             const KvpPass& pass, const SequenceSplits& splits = {},
                             const Companion& companion = {});

}  // namespace kvcast::train
