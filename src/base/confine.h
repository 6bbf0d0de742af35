#pragma once

#include <filesystem>
#include <span>

#include "kvcast/result.h"

namespace kvcast {

/// From now on this thread, and every thread and process that it starts, cannot write, create,
/// rename or remove files but below `writable`, and cannot execute any: whoever takes the process
/// over finds little to do. Files that are open stay as they are, reading is not restricted. Cannot
/// be taken back. Call it before other threads start.
///
/// Linux's Landlock (5.13 and later). Returns false where the kernel has none, and nothing is
/// confined then. Errors: a folder of `writable` that cannot be opened.
Result<bool> confine_files(std::span<const std::filesystem::path> writable);

}  // namespace kvcast
