#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "kvcast/result.h"

namespace kvcast {

/// A whole file mapped read-only and shared. Owns the mapping; views of bytes() must not outlive
/// it. Safe to read from any number of threads. A file truncated by somebody else while mapped is
/// outside what this class can defend against.
class MappedFile {
 public:
  static Result<std::unique_ptr<MappedFile>> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }

  /// Says that `bytes`, part of a mapped file, will not be read soon: they stop counting as this
  /// process's memory, and come back from the file if they are read after all.
  static void release(std::span<const std::byte> bytes);

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  MappedFile(std::filesystem::path path, std::span<const std::byte> bytes)
      : path_(std::move(path)), bytes_(bytes) {}
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

/// The whole file as a string; for small files (configs, tokenizers), at most 256 MiB. Errors name
/// the path.
Result<std::string> read_text_file(const std::filesystem::path& path);

/// The first bytes of a file, at most `bytes` of them. Like the functions above it refuses what is
/// no regular file, and does not wait for anybody to write into a pipe.
Result<std::string> read_file_head(const std::filesystem::path& path, size_t bytes);

/// Writes `contents` to `path` so that a reader sees the old file or the whole new one, never a
/// part: a temporary file beside it, fsync, rename. On error nothing is left behind.
Status write_file_atomically(const std::filesystem::path& path, std::string_view contents);

}  // namespace kvcast
