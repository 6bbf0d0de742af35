// Which file of a model describes its tokenizer, and what tokenizer_config.json adds to it.
#pragma once

#include <array>
#include <filesystem>
#include <memory>
#include <string_view>

#include "kvcast/result.h"
#include "tokenizer/tokenizer.h"

namespace kvcast {

/// In the order in which they are looked for: tokenizer.json knows the tokens that were added
/// later.
inline constexpr std::array<std::string_view, 2> kTokenizerFiles = {"tokenizer.json",
                                                                    "tokenizer.model"};

/// Empty if the directory has none of them.
[[nodiscard]] std::filesystem::path find_tokenizer(const std::filesystem::path& directory);

/// The tokenizer of a model directory; null if it has none. `explicit_file`, if not empty, is read
/// instead: a file, or another model's directory.
Result<std::unique_ptr<Tokenizer>> load_tokenizer(const std::filesystem::path& directory,
                                                  const std::filesystem::path& explicit_file = {});

/// tokenizer_config.json: which of the `known` tokens are BOS and EOS, and whether the model wants
/// them around a text (add_bos_token, add_eos_token). What it does not say stays as it is.
Status apply_tokenizer_config(const std::filesystem::path& file, const AddedTokens& known,
                              SpecialTokens& special);

}  // namespace kvcast
