// GPT-2's way of writing bytes as printable characters, in which byte-level vocabularies are
// stored: printable ASCII and Latin-1 stand for themselves, the other 68 bytes, in order, for
// U+0100 onwards.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace kvcast {

/// The bytes that `written` stands for; nullopt if it has a character outside the alphabet.
[[nodiscard]] std::optional<std::string> bytes_of_written(std::string_view written);

/// The inverse.
[[nodiscard]] std::string written_bytes(std::string_view bytes);

}  // namespace kvcast
