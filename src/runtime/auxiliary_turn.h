// What an auxiliary that is a model of its own adds to a decode step: its share of the logits of
// answers that mix, and guesses at what comes next.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "prefill/token_runs.h"
#include "runtime/drafter.h"

namespace kvcast {

/// One answer's part of a step.
struct AuxiliaryRows {
  Sequence* sequence = nullptr;
  Drafter* drafter = nullptr;  ///< null: nothing is guessed
  int64_t most = 0;            ///< drafts that the answer has room for
  /// To be run behind the pending tokens: from the text, or what the auxiliary guesses.
  std::vector<int32_t> drafts = {};

  /// What the auxiliary holds likeliest, and how likely it holds it.
  struct Choice {
    int32_t token = 0;
    double probability = 0;
  };
  /// After the last pending token, and after drafts of its own.
  std::vector<Choice> choices = {};
  /// Of an answer that mixes, the auxiliary's logits [vocab_size] after the last pending token and
  /// after each draft, in PrefillWorkspace::auxiliary_logits.
  std::vector<const float*> logits = {};
};

/// The auxiliaries of `answers`, whose answering model is the base and which come with drafts from
/// their text if any, run what they have not read of answers that mix, drafts and all; and, token
/// by token, they guess where their drafter asks them and nothing better is known: where a number
/// of drafts is fixed and the text has none, or where guesses make more tokens a second, by how
/// often they came true in this answer and by what steps of both models take. `base_rows`: of the
/// base's step, with the drafts from the text. Caches of auxiliaries are left with the rows of
/// drafts, to be truncated to those that come true. Speculative decoding with a model that has read
/// the prompt already (Leviathan et al. 2023), where tokens are compared and answers do not change.
void run_auxiliaries(const Models& models, std::span<AuxiliaryRows> answers, int64_t base_rows,
                     PrefillWorkspace& workspace);

}  // namespace kvcast
