#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "kvcast/result.h"

namespace kvcast {

/// Text that somebody wrote, from a file, a pipe, or standard input ("-"): at most 256 MiB of
/// UTF-8; a byte-order mark is dropped. Errors name the path, and for text in another encoding the
/// offset of the first byte that is none.
Result<std::string> read_text_input(const std::filesystem::path& path);

/// The same for text that is here already; `name` is what errors call it.
Result<std::string> check_text_input(std::string text, std::string_view name);

}  // namespace kvcast
