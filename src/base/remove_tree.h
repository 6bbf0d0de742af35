#pragma once

#include <filesystem>
#include <system_error>

namespace kvcast {

/// Removes a file, or a directory with all that is in it; links are not followed. That nothing is
/// there is no error. In place of std::filesystem::remove_all, of which PyTorch 2's libtorch.so
/// brings a copy that crashes when the trainer calls it.
std::error_code remove_tree(const std::filesystem::path& path);

}  // namespace kvcast
