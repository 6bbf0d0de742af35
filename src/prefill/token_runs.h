// Tokens of sequences through one model: what prefill strategies, decoding and scoring share.
#pragma once

#include <algorithm>
#include <functional>
#include <span>
#include <stop_token>
#include <vector>

#include "prefill/predictor.h"
#include "prefill/sequence.h"

namespace kvcast {

/// Scratch memory for prefill and decode, reused between calls.
struct PrefillWorkspace {
  Workspace base, auxiliary;
  PredictorWorkspace predictor;
  AlignedBuffer<float> auxiliary_logits;  // [rows, vocab_size], to be mixed in or guessed from

  [[nodiscard]] Workspace& of(Sequence::Answerer answerer) {
    return answerer == Sequence::Answerer::kBase ? base : auxiliary;
  }
};

/// What run_tokens runs: the tokens [cache position, end) of each sequence.
struct TokenRun {
  const Transformer* model = nullptr;
  CacheMember cache = nullptr;
  std::span<Sequence* const> sequences;
  std::span<const int64_t> ends;  ///< one past the last token to run, per sequence
  RunLayersOptions options;       ///< `last` 0 means all layers
};

/// Embeds, runs and advances the caches. Returns the hidden-state rows (in workspace.rows), or null
/// if the stop token fired. Sequences with nothing to run must not be passed.
float* run_tokens(const TokenRun& run, Workspace& workspace);

/// run_tokens, then the logits of its rows from `first_row` on, at most `block_rows` of them at a
/// time: `sink` gets the first row's index and [rows, vocab_size], its to change. False: stopped.
using LogitsBlockSink = std::function<void(int64_t first, int64_t rows, float* logits)>;
bool run_for_logits(const TokenRun& run, int64_t first_row, int64_t block_rows,
                    Workspace& workspace, AlignedBuffer<float>& logits,
                    const LogitsBlockSink& sink);

/// Rows that go through a model together: bounds the scratch memory of a long prompt or a large
/// batch, and is enough for the weights' traffic to be small beside the arithmetic and for every
/// thread to have its share.
constexpr int64_t rows_together(int threads) { return std::max<int64_t>(256, 32 * threads); }

/// Sequences, and how far each goes, that run together.
struct TokenPass {
  std::vector<Sequence*> sequences;
  std::vector<int64_t> ends;
};

/// Cuts the tokens from each `cache`'s position to its end into passes of at most `most_rows`
/// rows, to be run in this order: many sequences are grouped, and one that is longer goes through
/// by itself in equal parts, of which the last may join a group. A pass holds either nothing but
/// such an earlier part, or nothing but what reaches the ends.
std::vector<TokenPass> token_passes(CacheMember cache, std::span<Sequence* const> sequences,
                                    std::span<const int64_t> ends, int64_t most_rows);

/// Runs the tokens up to `ends` in token_passes, leaving K/V only. False: stopped.
bool run_without_output(const Transformer& model, CacheMember cache,
                        std::span<Sequence* const> sequences, std::span<const int64_t> ends,
                        RunLayersOptions options, Workspace& workspace);

/// The model runs what `cache` does not hold yet of each sequence, at least one token, in
/// token_passes; logits [sequences, vocab_size] of each last token. False: stopped.
bool run_to_ends(const Transformer& model, CacheMember cache, std::span<Sequence* const> sequences,
                 float* logits, Workspace& workspace, const std::stop_token& stop = {});

/// One decode step: the answering model of each sequence runs its pending tokens through all
/// layers (run_to_ends). All sequences must have the same answering model. False: stopped.
bool decode_step(const Models& models, std::span<Sequence* const> sequences, float* logits,
                 PrefillWorkspace& workspace, const std::stop_token& stop = {});

}  // namespace kvcast
