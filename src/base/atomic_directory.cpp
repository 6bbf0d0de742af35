#include "base/atomic_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/remove_tree.h"

namespace kvcast {
namespace {

namespace fs = std::filesystem;

void sync_directory(const fs::path& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace

Result<std::unique_ptr<AtomicDirectory>> AtomicDirectory::create(const fs::path& requested) {
  // "out/" names the directory out, whose sibling the staging directory is.
  fs::path path = requested.lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  const fs::path staging = path.string() + ".partial";
  std::error_code error = remove_tree(staging);
  if (!error) fs::create_directories(staging, error);
  if (error) {
    return fail(fmt::format("{}: cannot create: {}", staging.string(), error.message()));
  }
  return std::unique_ptr<AtomicDirectory>(new AtomicDirectory(path, staging));
}

AtomicDirectory::~AtomicDirectory() { (void)remove_tree(staging_); }

Status AtomicDirectory::commit() {
  const auto failed = [this](const std::string& why) {
    return fail(fmt::format("{}: cannot replace: {}", path_.string(), why));
  };
  std::error_code error;
  for (fs::recursive_directory_iterator entry(staging_, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->is_directory(error)) sync_directory(entry->path());
  }
  sync_directory(staging_);
  // With an old directory the two names are exchanged in one step; the old one is then removed as
  // the staging directory.
  if (!fs::exists(path_, error)) {
    fs::rename(staging_, path_, error);
  } else if (::renameat2(AT_FDCWD, staging_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) !=
             0) {
    // A file system without exchange: for a moment there is only the complete staging directory.
    if (errno != EINVAL && errno != ENOSYS) return failed(strerror(errno));
    error = remove_tree(path_);
    if (!error) fs::rename(staging_, path_, error);
  }
  if (error) return failed(error.message());
  sync_directory(fs::absolute(path_, error).parent_path());
  return {};
}

}  // namespace kvcast
