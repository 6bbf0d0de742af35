// Fill in the middle: what stands between a text and another.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace kvcast {

/// What is said of a model whose tokenizer has no control tokens for it.
inline constexpr std::string_view kNoFillIn =
    "suffix: this model has no tokens for filling in (Qwen2.5-Coder and StarCoder have them)";
inline constexpr std::string_view kFillInNeedsText = "suffix: expected a text as the prompt";

/// The prompt that asks a model for what stands between `prefix` and `suffix` (Bavarian et al.,
/// arXiv 2207.14255, prefix first). nullopt: the tokenizer has no control tokens for it.
std::optional<std::vector<int32_t>> fill_in_prompt(const Tokenizer& tokenizer,
                                                   std::string_view prefix,
                                                   std::string_view suffix);

/// What ends an answer that is filled in: any control token. Models end the middle by one of
/// several (end of text, padding, the separator of files) and would begin another text behind it.
std::vector<int32_t> fill_in_end_tokens(const Tokenizer& tokenizer);

}  // namespace kvcast
