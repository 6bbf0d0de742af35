// An auxiliary that is a model of its own has a say in the answer while the base's cache holds
// forecast rows: logits are (1 - Sequence::mix) base + mix auxiliary, both for the same tokens,
// which the auxiliary has read itself. That is a weighted geometric mean of the two distributions.
#pragma once

#include <functional>
#include <span>
#include <stop_token>

#include "prefill/token_runs.h"

namespace kvcast {

/// Whether the next token of this sequence is chosen from mixed logits. Once its cache is exact, or
/// longer than the auxiliary's context, the base answers alone.
bool mixes(const Models& models, const Sequence& sequence);

/// The auxiliary's share into one token's logits of the base; both [vocab_size].
void mix_into(std::span<float> logits, const float* auxiliary, double mix);

/// Leaves in the auxiliary's cache what all of its layers can go on from, at most `position` rows.
void cut_auxiliary(Sequence& sequence, int64_t position);

/// Of the sequences that mix, the auxiliaries run what they have not read, in one batch, and their
/// share goes into `logits` [sequences] [vocab_size]: the base's after each one's last token.
/// False: stopped.
bool mix_logits(const Models& models, std::span<Sequence* const> sequences,
                std::span<const std::span<float>> logits, PrefillWorkspace& workspace,
                const std::stop_token& stop = {});

/// A decode_step, and mix_logits of what it gives.
bool next_logits(const Models& models, std::span<Sequence* const> sequences, float* logits,
                 PrefillWorkspace& workspace, const std::stop_token& stop = {});

/// run_for_logits of the answering model on the tokens behind its caches up to `ends`, mixed where
/// they mix. All sequences must have the same answering model.
bool run_for_mixed_logits(const Models& models, std::span<Sequence* const> sequences,
                          std::span<const int64_t> ends, int64_t first_row, int64_t block_rows,
                          PrefillWorkspace& workspace, AlignedBuffer<float>& logits,
                          const LogitsBlockSink& sink, const std::stop_token& stop = {});

}  // namespace kvcast
