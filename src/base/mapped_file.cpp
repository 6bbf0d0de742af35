#include "base/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/atomic_file.h"
#include "base/macros.h"
#include "base/shrunken_files.h"

namespace kvcast {
namespace {

/// Configs, indices, tokenizers and prompts are far smaller.
constexpr size_t kMaxTextFileBytes = size_t{1} << 28;

/// A regular file that is open for reading; closed when this leaves scope.
struct RegularFile {
  int fd = -1;
  size_t size = 0;  // bytes of the file
  RegularFile() = default;
  RegularFile(const RegularFile&) = delete;
  RegularFile& operator=(const RegularFile&) = delete;
  ~RegularFile() {
    if (fd >= 0) close(fd);
  }

  Status open(const std::filesystem::path& path) {
    // Without O_NONBLOCK, opening a pipe would wait for a writer.
    fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return fail(fmt::format("{}: cannot open: {}", path.string(), strerror(errno)));
    struct stat info = {};
    if (fstat(fd, &info) != 0) {
      return fail(fmt::format("{}: cannot stat: {}", path.string(), strerror(errno)));
    }
    if (!S_ISREG(info.st_mode)) return fail(fmt::format("{}: not a regular file", path.string()));
    size = static_cast<size_t>(info.st_size);
    return {};
  }
};

}  // namespace

Result<std::unique_ptr<MappedFile>> MappedFile::open(const std::filesystem::path& path) {
  RegularFile file;
  KVCAST_CHECK(file.open(path));
  const size_t size = file.size;
  if (size == 0) return std::unique_ptr<MappedFile>(new MappedFile(path, {}));
  void* address = mmap(nullptr, size, PROT_READ, MAP_SHARED, file.fd, 0);
  if (address == MAP_FAILED) {
    return fail(fmt::format("{}: cannot map {} bytes: {}", path.string(), size, strerror(errno)));
  }
  const std::span bytes(static_cast<const std::byte*>(address), size);
  remember_mapping(bytes, path.native());
  return std::unique_ptr<MappedFile>(new MappedFile(path, bytes));
}

MappedFile::~MappedFile() {
  if (bytes_.empty()) return;
  forget_mapping(bytes_);
  munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::release(std::span<const std::byte> bytes) {
  // Whole pages only: those at the ends may hold something else that is about to be read.
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t to_page = (page - reinterpret_cast<uintptr_t>(bytes.data()) % page) % page;
  if (bytes.size() < to_page + page) return;
  const auto pages = bytes.subspan(to_page, (bytes.size() - to_page) / page * page);
  madvise(const_cast<std::byte*>(pages.data()), pages.size(), MADV_DONTNEED);
}

Result<std::string> read_text_file(const std::filesystem::path& path) {
  KVCAST_TRY(const auto file, MappedFile::open(path));
  const auto bytes = file->bytes();
  if (bytes.size() > kMaxTextFileBytes) {
    return fail(fmt::format("{}: {} bytes, expected at most {}", path.string(), bytes.size(),
                            kMaxTextFileBytes));
  }
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Result<std::string> read_file_head(const std::filesystem::path& path, size_t bytes) {
  RegularFile file;
  KVCAST_CHECK(file.open(path));
  std::string head(std::min(bytes, file.size), '\0');
  size_t done = 0;
  while (done < head.size()) {
    const ssize_t got = ::read(file.fd, head.data() + done, head.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(fmt::format("{}: cannot read: {}", path.string(), strerror(errno)));
    if (got == 0) break;  // it has become shorter
    done += static_cast<size_t>(got);
  }
  head.resize(done);
  return head;
}

Status write_file_atomically(const std::filesystem::path& path, std::string_view contents) {
  KVCAST_TRY(auto file, AtomicFile::create(path));
  KVCAST_CHECK(file->write(std::as_bytes(std::span(contents))));
  return file->commit();
}

}  // namespace kvcast
