#include "base/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/atomic_file.h"
#include "base/macros.h"
#include "base/shrunken_files.h"

namespace kvcast {
namespace {

/// Configs, indices, tokenizers and prompts are far smaller.
constexpr size_t kMaxTextFileBytes = size_t{1} << 28;

/// Closes the descriptor when it leaves scope.
struct Descriptor {
  int fd = -1;
  explicit Descriptor(int opened) : fd(opened) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

}  // namespace

Result<std::unique_ptr<MappedFile>> MappedFile::open(const std::filesystem::path& path) {
  // Without O_NONBLOCK, opening a pipe would wait for a writer.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.fd < 0) return fail(fmt::format("{}: cannot open: {}", path.string(), strerror(errno)));
  struct stat info = {};
  if (fstat(file.fd, &info) != 0) {
    return fail(fmt::format("{}: cannot stat: {}", path.string(), strerror(errno)));
  }
  if (!S_ISREG(info.st_mode)) return fail(fmt::format("{}: not a regular file", path.string()));
  const auto size = static_cast<size_t>(info.st_size);
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
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data());
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t last = (begin + bytes.size()) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
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

Status write_file_atomically(const std::filesystem::path& path, std::string_view contents) {
  KVCAST_TRY(auto file, AtomicFile::create(path));
  KVCAST_CHECK(file->write(std::as_bytes(std::span(contents))));
  return file->commit();
}

}  // namespace kvcast
