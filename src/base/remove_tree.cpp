#include "base/remove_tree.h"

#include <ftw.h>
#include <stdio.h>

#include <cerrno>

namespace kvcast {

std::error_code remove_tree(const std::filesystem::path& path) {
  constexpr int kOpenDirectories = 16;
  const auto remove_entry = [](const char* entry, const struct stat*, int, struct FTW*) {
    return ::remove(entry);
  };
  if (::nftw(path.c_str(), remove_entry, kOpenDirectories, FTW_DEPTH | FTW_PHYS) == 0) return {};
  return errno == ENOENT ? std::error_code() : std::error_code(errno, std::generic_category());
}

}  // namespace kvcast
