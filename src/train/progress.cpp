#include "train/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include "base/mapped_file.h"
#include "base/note.h"
#include "io/json.h"
#include "train/data/error.h"
#include "train/data/rerun.h"

namespace kvcast::train {
namespace {

std::string duration(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  return fmt::format("{}m{:02}s", s / 60, s % 60);
}

/// 1234567 as 1.2M, 45678 as 45.7k.
std::string short_count(double value) {
  if (value >= 1e6) return fmt::format("{:.1f}M", value / 1e6);
  if (value >= 1e3) return fmt::format("{:.1f}k", value / 1e3);
  return fmt::format("{:.0f}", value);
}

std::string progress_line(const LogEntry& entry, int64_t total_steps) {
  std::string line = fmt::format("step {}/{}", entry.step, total_steps);
  for (const auto& [name, value] : entry.losses) line += fmt::format("  {} {:.4f}", name, value);
  line += fmt::format("  lr {:.2e}  {} tok/s  {:.2f} TFLOP/s", entry.learning_rate,
                      short_count(entry.tokens_per_second), entry.teraflops);
  if (entry.utilisation > 0) line += fmt::format(" ({:.0f}% MFU)", 100.0 * entry.utilisation);
  return line + fmt::format("  {} tokens  {} left", short_count(static_cast<double>(entry.tokens)),
                            duration(entry.remaining_seconds));
}

/// The log's lines up to a step, from the checkpoint's copy where there is one: the log itself may
/// have been lost or cut. A last line that was cut off is no JSON and goes too.
std::string entries_up_to(const OutputRecipe& output, int64_t step) {
  if (step == 0) return {};
  const auto copy = output.checkpoint / kCheckpointLogName;
  const auto& file = std::filesystem::exists(copy) ? copy : output.log;
  if (!std::filesystem::is_regular_file(file)) return {};  // reading a pipe would wait for a writer
  std::ifstream in(file);
  std::string kept;
  for (std::string line; std::getline(in, line);) {
    const Json entry = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (entry.is_object() && entry.value("step", step + 1) <= step) kept += line + "\n";
  }
  return kept;
}

}  // namespace

ProgressLog::ProgressLog(const OutputRecipe& output, int64_t total_steps, int64_t keep_to,
                         bool quiet)
    : path_(output.log),
      total_steps_(total_steps),
      quiet_(quiet),
      terminal_(isatty(STDERR_FILENO) != 0) {
  const std::filesystem::path& file = path_;
  std::error_code error;
  if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path(), error);
  if (error) {
    throw TrainError(fmt::format("{}: cannot write the log: {}", file.string(), error.message()));
  }
  unwrap(write_file_atomically(file, entries_up_to(output, keep_to)));
  file_.open(file, std::ios::app);
  if (!file_) throw TrainError(file.string() + ": cannot write the log");
}

ProgressLog::~ProgressLog() {
  if (line_open_) print_note("\n");
}

void ProgressLog::write(const LogEntry& entry) {
  Json losses;
  for (const auto& [name, value] : entry.losses) losses[name] = value;
  Json json = {{"step", entry.step},
               {"tokens", entry.tokens},
               {"losses", losses},
               {"learning_rate", entry.learning_rate},
               {"gradient_norm", entry.gradient_norm},
               {"tokens_per_second", entry.tokens_per_second},
               {"teraflops", entry.teraflops},
               {"elapsed_seconds", entry.elapsed_seconds}};
  if (entry.utilisation > 0) json["utilisation"] = entry.utilisation;
  if (entry.peak_memory_bytes > 0) json["peak_memory_bytes"] = entry.peak_memory_bytes;
  file_ << json.dump() << '\n' << std::flush;
  if (!file_) throw TrainError(path_.string() + ": cannot write the log");
  if (quiet_) return;
  const std::string line = progress_line(entry, total_steps_);
  print_note("{}{}{}", terminal_ ? "\r\033[K" : "", line, terminal_ ? "" : "\n");
  line_open_ = terminal_;
}

}  // namespace kvcast::train
