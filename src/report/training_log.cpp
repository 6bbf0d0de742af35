#include "report/training_log.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/macros.h"
#include "report/json_values.h"

namespace kvcast::report {
namespace {

constexpr int64_t kMost = int64_t{1} << 60;

/// The number under `key`; NaN if it is not there.
Result<double> optional_number(const Json& line, const char* key, const std::string& where) {
  if (!line.contains(key)) return NAN;
  return number_or_nan(line, key, where);
}

Result<LogPoint> parse_line(std::string_view text, const std::string& where) {
  KVCAST_TRY(const Json line, parse_json(text, where));
  if (!line.is_object()) return fail(fmt::format("{}: expected a JSON object", where));
  const JsonFields fields(line, where);
  LogPoint point;
  KVCAST_TRY(point.step, fields.integer("step", 0, kMost));
  KVCAST_TRY(point.tokens, fields.integer("tokens", 0, kMost));
  KVCAST_TRY(const Json* losses, object_at(line, "losses", where));
  for (const auto& [term, value] : losses->items()) {
    KVCAST_TRY(point.losses[term], number_or_nan(*losses, term, where + ": key \"losses\""));
  }
  KVCAST_TRY(point.tokens_per_second, optional_number(line, "tokens_per_second", where));
  KVCAST_TRY(point.teraflops, optional_number(line, "teraflops", where));
  KVCAST_TRY(point.utilisation, optional_number(line, "utilisation", where));
  KVCAST_TRY(point.elapsed_seconds, optional_number(line, "elapsed_seconds", where));
  return point;
}

void add_point(TrainingLog& log, LogPoint point) {
  if (!log.points.empty() && point.step <= log.points.back().step) {
    log.notes.push_back(
        fmt::format("{}: resumed after step {}; the lines that it repeats count once", log.name,
                    std::max<int64_t>(point.step - 1, 0)));
    std::erase_if(log.points, [&](const LogPoint& old) { return old.step >= point.step; });
  }
  log.points.push_back(std::move(point));
}

void note_losses_that_are_not_finite(TrainingLog& log) {
  for (const std::string& term : loss_terms(log)) {
    const auto missing = std::ranges::count_if(log.points, [&](const LogPoint& point) {
      const auto found = point.losses.find(term);
      return found != point.losses.end() && !std::isfinite(found->second);
    });
    if (missing > 0) {
      log.notes.push_back(
          fmt::format("{}: \"{}\" is not finite in {} lines", log.name, term, missing));
    }
  }
}

}  // namespace

Result<TrainingLog> parse_training_log(std::string_view text, const std::string& name,
                                       const std::string& where) {
  TrainingLog log{.name = name, .points = {}, .notes = {}};
  for (int number = 1; !text.empty(); ++number) {
    const auto end = text.find('\n');
    const bool complete = end != std::string_view::npos;
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(complete ? end + 1 : text.size());
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    auto point = parse_line(line, fmt::format("{}: line {}", where, number));
    if (!point && !complete && number > 1) {
      log.notes.push_back(
          fmt::format("{}: line {}, the last, is cut short and left out", name, number));
      break;
    }
    if (!point) return tl::unexpected(point.error());
    add_point(log, std::move(*point));
  }
  if (log.points.empty()) return fail(fmt::format("{}: no line in it", where));
  note_losses_that_are_not_finite(log);
  return log;
}

std::set<std::string> loss_terms(const TrainingLog& log) {
  std::set<std::string> terms;  // a line has only what was computed since the one before
  for (const LogPoint& point : log.points) {
    for (const auto& [term, loss] : point.losses) terms.insert(term);
  }
  return terms;
}

std::vector<std::vector<const TrainingLog*>> comparable_runs(const std::vector<TrainingLog>& logs) {
  std::vector<const TrainingLog*> plain, predicting;
  for (const TrainingLog& log : logs) {
    (loss_terms(log).contains("base") ? predicting : plain).push_back(&log);
  }
  std::vector<std::vector<const TrainingLog*>> runs = {std::move(plain), std::move(predicting)};
  std::erase_if(runs, [](const auto& group) { return group.empty(); });
  return runs;
}

}  // namespace kvcast::report
