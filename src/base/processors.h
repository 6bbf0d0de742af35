// How many threads are worth starting, as the system says it.
#pragma once

#include <filesystem>
#include <vector>

namespace kvcast {

/// Threads that compute best at a time, at least 1: one for each processor that the system lets
/// this process use; of a hybrid processor one for each performance core; no more than a control
/// group's quota of processor time pays for, a part of a processor counted as one.
int available_processors();

/// The same for the processors `allowed` on a system whose /proc and /sys are below `root`. What
/// cannot be read or understood there does not restrict.
int available_processors(const std::vector<int>& allowed, const std::filesystem::path& root);

}  // namespace kvcast
