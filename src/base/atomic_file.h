#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

#include "kvcast/result.h"

namespace kvcast {

/// A file that appears under its name only when it is complete: bytes go to a temporary file
/// beside it, commit() flushes it to disk and renames. Destroyed without commit(), it leaves
/// nothing behind. Not thread-safe.
class AtomicFile {
 public:
  /// What is at `path` already must be a regular file, or a link to one.
  static Result<std::unique_ptr<AtomicFile>> create(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  Status write(std::span<const std::byte> bytes);
  /// Replaces the file's first bytes, which were written before, e.g. by a header that counts what
  /// followed it.
  Status rewrite_start(std::span<const std::byte> bytes);
  /// After this the object is spent.
  Status commit();

 private:
  AtomicFile(std::filesystem::path path, std::filesystem::path temporary, int fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}
  [[nodiscard]] tl::unexpected<Error> failure(const char* action) const;

  std::filesystem::path path_, temporary_;
  int fd_ = -1;
};

}  // namespace kvcast
