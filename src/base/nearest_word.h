#pragma once

#include <span>
#include <string>
#include <string_view>

namespace kvcast {

/// The word of `words` that `typed` was most likely meant to be: at most a third of its letters are
/// missing, added, replaced or swapped with their neighbours. Empty if none is that near.
[[nodiscard]] std::string nearest_word(std::string_view typed, std::span<const std::string> words);

}  // namespace kvcast
