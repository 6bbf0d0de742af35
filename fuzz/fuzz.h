// What the fuzz targets share: input as files, and checks that stay in optimised builds.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>

#define FUZZ_CHECK(condition)                                                        \
  do {                                                                               \
    if (!(condition)) {                                                              \
      std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                  \
    }                                                                                \
  } while (false)

namespace kvcast {

/// A file in memory whose contents can be replaced.
class MemoryFile {
 public:
  MemoryFile() : fd_(memfd_create("fuzz", MFD_CLOEXEC)) { FUZZ_CHECK(fd_ >= 0); }
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  void set(std::string_view contents) const {
    FUZZ_CHECK(ftruncate(fd_, 0) == 0);
    const auto size = static_cast<ssize_t>(contents.size());
    FUZZ_CHECK(pwrite(fd_, contents.data(), contents.size(), 0) == size);
  }
  [[nodiscard]] std::filesystem::path path() const {
    return "/proc/self/fd/" + std::to_string(fd_);
  }

 private:
  int fd_;
};

/// The repository, as the tests name it; the variable says where that is on another machine.
inline const std::filesystem::path KVCAST_SOURCE_DIR =
    std::getenv("KVCAST_SOURCE_DIR") != nullptr ? std::getenv("KVCAST_SOURCE_DIR") : PATH_OF_SOURCE;

/// A folder that exists while the process does.
class ScratchDirectory {
 public:
  ScratchDirectory() {
    std::string name = std::filesystem::temp_directory_path() / "kvcast-fuzz-XXXXXX";
    FUZZ_CHECK(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;

  void write(std::string_view name, std::string_view contents) const {
    std::ofstream(path_ / name, std::ios::binary).write(contents.data(), std::ssize(contents));
  }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Every message of the library is one line of moderate length.
inline void check_message(std::string_view message) {
  FUZZ_CHECK(!message.empty() && message.size() <= 1000);
  for (const char c : message) FUZZ_CHECK(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F);
}

/// Takes pieces off the front of the input.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}

  [[nodiscard]] bool empty() const { return rest_.empty(); }
  uint8_t byte() {
    if (rest_.empty()) return 0;
    const auto first = static_cast<uint8_t>(rest_[0]);
    rest_.remove_prefix(1);
    return first;
  }
  /// Up to `longest` bytes; how many is the input's choice.
  std::string_view text(size_t longest) {
    const size_t length = std::min(rest_.size(), byte() % (longest + 1));
    const auto taken = rest_.substr(0, std::min(length, rest_.size()));
    rest_.remove_prefix(taken.size());
    return taken;
  }
  std::string_view rest() { return std::exchange(rest_, {}); }

 private:
  std::string_view rest_;
};

}  // namespace kvcast
