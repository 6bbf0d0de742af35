// A forecast cache heals: the base computes rows again, over exact rows only, and they overwrite
// the forecast, in the same products as the decode rows of answers that go on meanwhile.
#pragma once

#include <functional>
#include <span>
#include <stop_token>
#include <vector>

#include "prefill/token_runs.h"

namespace kvcast {

/// The next rows of a sequence's base cache to be made exact: from its exact_rows() on.
struct RefineBlock {
  Sequence* sequence = nullptr;
  int64_t rows = 0;
  int64_t outputs = 0;  ///< of the last of these rows, logits are wanted of so many
};

/// A sequence's part of a decode step: its pending tokens, and guesses at those that follow.
struct DecodeRows {
  Sequence* sequence = nullptr;
  /// Run behind the pending tokens and put into the cache, which is to be truncated to those that
  /// come true.
  std::span<const int32_t> drafts = {};

  /// How many logits are wanted: after the last pending token, and after each draft.
  [[nodiscard]] int64_t outputs() const { return 1 + std::ssize(drafts); }
};

/// How many rows of the base's cache can be made exact; none where tokens have been left out.
int64_t inexact_rows(const Sequence& sequence);

/// How many of the next rows, at most `most`, go together: those whose first layers are exact
/// already and need not run again (KVCache::kept_residual), or others.
int64_t rows_to_refine(const Sequence& sequence, int64_t most);

/// What a model that reads the prompt computed of rows about to be forecast: where it leaves the
/// base's exact layers, the caches keep it.
void keep_for_refinement(const Models& models, PromptReader reader,
                         std::span<const SequenceRows> rows, const RawKeyValues& computed);

/// A decode step of sequences that have the same answering model, and the blocks beside it, of the
/// base, where that answers; either may be empty. Where a block reaches the end of its cache, its
/// sequence's decode row, in the same call, is exact already. `logits` [all outputs, vocab_size]:
/// the sequences', then the blocks'. The bits are those of an exact prefill, however the rows are
/// cut into blocks, and of tokens that are decoded one by one. False: stopped; answers' rows are as
/// before, blocks must be refined again.
bool decode_and_refine(const Models& models, std::span<const DecodeRows> decoding,
                       std::span<const RefineBlock> blocks, float* logits,
                       PrefillWorkspace& workspace, const std::stop_token& stop = {});

/// Makes rows exact with nothing beside them, a chunk at a time, while `go_on` says so. Returns the
/// rows that were made exact.
int64_t refine_alone(const Models& models, Sequence& sequence, PrefillWorkspace& workspace,
                     const std::stop_token& stop, const std::function<bool()>& go_on);

}  // namespace kvcast
