// What a training run logs (recipes/README.md, "What a run leaves"), as numbers, a table and
// curves.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "kvcast/result.h"
#include "report/chart.h"
#include "report/table.h"

namespace kvcast::report {

/// One line of the log. Numbers that it does not have, or that are not finite, are NaN.
struct LogPoint {
  int64_t step = 0;
  int64_t tokens = 0;                    ///< seen since the beginning of training
  std::map<std::string, double> losses;  ///< by term, means since the line before
  double tokens_per_second = NAN, teraflops = NAN;
  double utilisation = NAN;  ///< model FLOPs over the devices' peak, a share
  double elapsed_seconds = NAN;
};

struct TrainingLog {
  std::string name;
  std::vector<LogPoint> points;    ///< ascending steps, at least one
  std::vector<std::string> notes;  ///< what is odd about the file, one line each
};

/// JSON lines. A last line that was cut short, as a crash leaves it, becomes a note; anything else
/// that is wrong is an error that names file, line and key. Where a resumed run repeats steps the
/// later lines count.
Result<TrainingLog> parse_training_log(std::string_view text, const std::string& name,
                                       const std::string& where);

/// Every term that some line of the log has.
std::set<std::string> loss_terms(const TrainingLog& log);

/// Models trained by themselves, and bundles (those whose logs have the term `base`).
std::vector<std::vector<const TrainingLog*>> comparable_runs(const std::vector<TrainingLog>& logs);

/// Steps, tokens, each loss at the end (mean of the last 5% of the
/// lines), median throughput, time.
Table training_table(const std::vector<const TrainingLog*>& runs);
/// Each loss against tokens. `id` begins the figures' names.
std::vector<Figure> training_figures(const std::vector<const TrainingLog*>& runs,
                                     const std::string& id);

}  // namespace kvcast::report
