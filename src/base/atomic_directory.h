#pragma once

#include <filesystem>
#include <memory>

#include "kvcast/result.h"

namespace kvcast {

/// A directory that takes the place of `path` only when it is complete: files are written into
/// staging(), commit() swaps it in. Whatever happens, `path` is the old directory or the new one.
/// Destroyed without commit(), it removes the staging directory. Not thread-safe.
class AtomicDirectory {
 public:
  /// Makes the staging directory `path`.partial, in the place of one that an earlier, killed run
  /// left there.
  static Result<std::unique_ptr<AtomicDirectory>> create(const std::filesystem::path& path);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  [[nodiscard]] const std::filesystem::path& staging() const { return staging_; }
  /// Flushes names to disk and renames; the files' contents are their writer's to flush
  /// (AtomicFile).
  Status commit();

 private:
  AtomicDirectory(std::filesystem::path path, std::filesystem::path staging)
      : path_(std::move(path)), staging_(std::move(staging)) {}
  std::filesystem::path path_, staging_;
};

}  // namespace kvcast
