// Fill in the middle: what stands between a text and another.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace kvcast {

/// The prompt that asks a model for what stands between `prefix` and `suffix` (Bavarian et al.,
/// arXiv 2207.14255, prefix first). nullopt: the tokenizer has no control tokens for it.
std::optional<std::vector<int32_t>> fill_in_prompt(const Tokenizer& tokenizer,
                                                   std::string_view prefix,
                                                   std::string_view suffix);

}  // namespace kvcast
