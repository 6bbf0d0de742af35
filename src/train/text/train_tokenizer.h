// `tokenizer`: a SentencePiece model learnt from a sample of the sources.
#pragma once

#include <string>

#include "train/data/recipe.h"

namespace kvcast::train {

/// What came of it, for the command's report.
struct TokenizerReport {
  int64_t lines = 0, text_bytes = 0;  ///< of the sample
  int64_t vocab_size = 0;
};

/// Writes recipe.output atomically. Shaped like Llama's tokenizer: ids 0 <unk>, 1 <s>, 2 </s>, then
/// one piece for each byte (so that every text is encoded without loss), digits one by one, text
/// not normalised, runs of spaces kept. Line breaks are byte pieces. Deterministic by seed.
TokenizerReport train_tokenizer(const TokenizerRecipe& recipe);

}  // namespace kvcast::train
