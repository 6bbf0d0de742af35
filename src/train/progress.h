// The log (JSON lines) and the progress line of a training run.
#pragma once

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "train/data/recipe.h"

namespace kvcast::train {

struct LogEntry {
  int64_t step = 0;    ///< updates done
  int64_t tokens = 0;  ///< seen since the beginning of training
  double learning_rate = 0, gradient_norm = 0;
  double tokens_per_second = 0, teraflops = 0;  ///< since the last entry, all processes
  double utilisation = 0;         ///< teraflops as a share of the devices' peak; 0: peak not known
  int64_t peak_memory_bytes = 0;  ///< of the first process's GPU so far; 0: not known
  double elapsed_seconds = 0, remaining_seconds = 0;
  std::vector<std::pair<std::string, double>> losses;  ///< means since the last entry
};

class ProgressLog {
 public:
  /// Goes on with `file` as it was at step `keep_to`: the checkpoint's copy, or its entries up to
  /// then. What a run that was killed wrote after its last checkpoint goes, so the log is one
  /// curve.
  ProgressLog(const OutputRecipe& output, int64_t total_steps, int64_t keep_to, bool quiet);
  ~ProgressLog();
  ProgressLog(const ProgressLog&) = delete;
  ProgressLog& operator=(const ProgressLog&) = delete;

  void write(const LogEntry& entry);

 private:
  std::ofstream file_;
  std::filesystem::path path_;
  int64_t total_steps_;
  bool quiet_, terminal_, line_open_ = false;
};

}  // namespace kvcast::train
