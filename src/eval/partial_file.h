#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "eval/task.h"
#include "kvcast/result.h"

namespace kvcast {

/// Examples that a run has finished, kept so that it can be killed and go on. JSON Lines: the first
/// line says which run it is, each further line holds one example under all strategies. A last line
/// that was cut short counts as not written. Not thread-safe.
class PartialFile {
 public:
  struct Record {
    size_t example = 0;
    std::vector<ExampleScore> scores;  // [strategies]
  };

  /// Keeps nothing.
  PartialFile() = default;
  /// Opens or makes `path`. A file of a run with another `identity` (JSON text) is an error.
  static Result<PartialFile> open(const std::filesystem::path& path, const std::string& identity);
  ~PartialFile();
  PartialFile(PartialFile&& other) noexcept;
  PartialFile& operator=(PartialFile&& other) noexcept;

  /// What was found on opening.
  [[nodiscard]] const std::vector<Record>& records() const { return records_; }
  Status append(const std::vector<Record>& records);
  /// The run is complete and its result written: removes the file.
  void remove();

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  std::vector<Record> records_;
};

}  // namespace kvcast
