#include "base/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace kvcast {

tl::unexpected<Error> AtomicFile::failure(const char* action) const {
  return fail(fmt::format("{}: cannot {}: {}", path_.string(), action, strerror(errno)));
}

Result<std::unique_ptr<AtomicFile>> AtomicFile::create(const std::filesystem::path& requested) {
  std::error_code error;
  const auto existing = std::filesystem::status(requested, error);
  if (std::filesystem::exists(existing) && !std::filesystem::is_regular_file(existing)) {
    // Renaming would put a file in the place of the device, pipe or directory.
    return fail(fmt::format("{}: cannot write: not a regular file", requested.string()));
  }
  // A link stays a link: what it leads to is replaced.
  std::filesystem::path path = std::filesystem::canonical(requested, error);
  if (error) path = requested;
  std::string name = path.string() + ".tmp.XXXXXX";
  const int fd = mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) return fail(fmt::format("{}: cannot create: {}", path.string(), strerror(errno)));
  fchmod(fd, 0644);  // mkostemp makes private files; these are ordinary results
  return std::unique_ptr<AtomicFile>(new AtomicFile(path, name, fd));
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

Status AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return failure("write");
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return {};
}

Status AtomicFile::rewrite_start(std::span<const std::byte> bytes) {
  if (lseek(fd_, 0, SEEK_SET) != 0) return failure("seek");
  if (auto written = write(bytes); !written) return written;
  if (lseek(fd_, 0, SEEK_END) < 0) return failure("seek");
  return {};
}

Status AtomicFile::commit() {
  if (fsync(fd_) != 0) return failure("flush to disk");
  if (rename(temporary_.c_str(), path_.c_str()) != 0) return failure("rename into place");
  close(fd_);
  fd_ = -1;
  return {};
}

}  // namespace kvcast
