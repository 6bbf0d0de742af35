#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "report/svg.h"
#include "report/training_log.h"

namespace kvcast::report {
namespace {

/// Curves that one chart can hold apart.
constexpr size_t kRunsInFigure = kSeriesColors;
/// More points than this show nothing more at the width of a figure.
constexpr size_t kMostPoints = 400;
/// The beginning of a run, where the loss falls from ln(vocabulary), does not set the y axis.
constexpr double kBeginning = 0.1;

double loss_of(const LogPoint& point, const std::string& term) {
  const auto found = point.losses.find(term);
  return found == point.losses.end() ? NAN : found->second;
}

double mean_of_finite(const std::vector<double>& values) {
  double sum = 0;
  int count = 0;
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    sum += value;
    ++count;
  }
  return count == 0 ? NAN : sum / count;
}

double median_of_finite(std::vector<double> values) {
  std::erase_if(values, [](double value) { return !std::isfinite(value); });
  if (values.empty()) return NAN;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double final_loss(const TrainingLog& log, const std::string& term) {
  const size_t last = std::max<size_t>(log.points.size() / 20, 1);
  std::vector<double> losses;
  for (size_t i = log.points.size() - last; i < log.points.size(); ++i) {
    losses.push_back(loss_of(log.points[i], term));
  }
  return mean_of_finite(losses);
}

std::string cell(double value, const char* format) {
  return std::isfinite(value) ? fmt::format(fmt::runtime(format), value) : "–";
}

/// Values in equal groups, each group's mean: a curve that can be drawn.
std::vector<Point> curve(const TrainingLog& log, const std::string& term, double tokens_unit,
                         size_t groups) {
  std::vector<Point> points;
  const size_t n = log.points.size();
  groups = std::min(groups, n);
  for (size_t g = 0; g < groups; ++g) {
    std::vector<double> losses;
    double tokens = 0;
    const size_t begin = g * n / groups, end = (g + 1) * n / groups;
    for (size_t i = begin; i < end; ++i) {
      losses.push_back(loss_of(log.points[i], term));
      tokens += static_cast<double>(log.points[i].tokens) / static_cast<double>(end - begin);
    }
    points.push_back({.x = tokens / tokens_unit, .y = mean_of_finite(losses)});
  }
  return points;
}

std::string loss_title(const std::string& term) {
  if (term == "loss") return "Training loss";
  if (term == "base") return "Base on the predicted cache";
  if (term == "auxiliary") return "Auxiliary";
  if (term == "keys") return "Predicted keys";
  if (term == "values") return "Predicted values";
  if (term == "kl") return "KL from the exact cache";
  if (term == "attention") return "Attention outputs";
  return term;
}

std::string loss_unit(const std::string& term) {
  if (term == "keys" || term == "values") return "mean |predicted − exact|";
  if (term == "attention") return "relative squared error";
  if (term == "z_loss") return "z-loss";
  return "loss (nats/token)";
}

struct Unit {
  double tokens;
  const char* name;
};
Unit token_unit(const std::vector<const TrainingLog*>& runs) {
  int64_t most = 0;
  for (const TrainingLog* log : runs) most = std::max(most, log->points.back().tokens);
  if (most >= 2'000'000'000) return {1e9, "tokens (billions)"};
  if (most >= 2'000'000) return {1e6, "tokens (millions)"};
  return {1e3, "tokens (thousands)"};
}

Chart loss_chart(const std::vector<const TrainingLog*>& runs, const std::string& term) {
  const Unit unit = token_unit(runs);
  Chart chart{
      .title = loss_title(term), .x = {.label = unit.name}, .y = {.label = loss_unit(term)}};
  chart.x.from_zero = true;
  double low = INFINITY, high = -INFINITY;
  for (size_t i = 0; i < runs.size(); ++i) {
    Series noisy{.name = "", .points = curve(*runs[i], term, unit.tokens, kMostPoints)};
    noisy.style = static_cast<int>(i);
    noisy.color = series_color(noisy.style);
    noisy.markers = false;
    noisy.width = 1;
    noisy.opacity = 0.35;
    const double beginning = noisy.points.back().x * kBeginning;
    for (const Point& point : noisy.points) {
      if (point.x < beginning || !std::isfinite(point.y)) continue;
      low = std::min(low, point.y);
      high = std::max(high, point.y);
    }
    Series smooth = noisy;
    smooth.name = runs[i]->name;
    smooth.points = curve(*runs[i], term, unit.tokens, 60);
    smooth.color = {};
    smooth.width = 2;
    smooth.opacity = 1;
    chart.series.push_back(std::move(noisy));
    chart.series.push_back(std::move(smooth));
  }
  if (low < high) {
    chart.y.low = low - 0.04 * (high - low);
    chart.y.high = high + 0.04 * (high - low);
  }
  return chart;
}

std::vector<std::string> terms_of(const std::vector<const TrainingLog*>& runs) {
  std::set<std::string> all;
  for (const TrainingLog* log : runs) all.merge(loss_terms(*log));
  std::vector<std::string> terms(all.begin(), all.end());
  // What the run is for first.
  static constexpr std::array<std::string_view, 5> kOrder = {"base", "auxiliary", "loss", "keys",
                                                             "values"};
  const auto rank = [](const std::string& term) {
    return std::ranges::find(kOrder, term) - kOrder.begin();
  };
  std::ranges::stable_sort(terms, {}, rank);
  return terms;
}

}  // namespace

Table training_table(const std::vector<const TrainingLog*>& runs) {
  const auto terms = terms_of(runs);
  Table table;
  table.headers = {"run", "steps", "tokens (M)"};
  table.headers.insert(table.headers.end(), terms.begin(), terms.end());
  table.headers.insert(table.headers.end(), {"tokens/s", "TFLOP/s"});
  const bool with_mfu = std::ranges::any_of(
      runs, [](const TrainingLog* log) { return std::isfinite(log->points.back().utilisation); });
  if (with_mfu) table.headers.emplace_back("MFU (%)");
  table.headers.emplace_back("minutes");
  for (const TrainingLog* log : runs) {
    const auto median = [&](double LogPoint::*member) {
      std::vector<double> values;
      for (const LogPoint& point : log->points) values.push_back(point.*member);
      return median_of_finite(std::move(values));
    };
    const LogPoint& last = log->points.back();
    std::vector<std::string> row = {log->name, with_thousands(last.step),
                                    fmt::format("{:.1f}", static_cast<double>(last.tokens) / 1e6)};
    for (const std::string& term : terms) row.push_back(cell(final_loss(*log, term), "{:.4f}"));
    const double speed = median(&LogPoint::tokens_per_second);
    row.push_back(std::isfinite(speed) ? with_thousands(std::llround(speed)) : "–");
    row.push_back(cell(median(&LogPoint::teraflops), "{:.1f}"));
    if (with_mfu) row.push_back(cell(100 * median(&LogPoint::utilisation), "{:.1f}"));
    row.push_back(cell(last.elapsed_seconds / 60, "{:.1f}"));
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::vector<Figure> training_figures(const std::vector<const TrainingLog*>& runs,
                                     const std::string& id) {
  std::vector<Figure> figures;
  for (size_t at = 0; at < runs.size(); at += kRunsInFigure) {
    const std::vector<const TrainingLog*> some(
        runs.begin() + static_cast<std::ptrdiff_t>(at),
        runs.begin() + static_cast<std::ptrdiff_t>(std::min(at + kRunsInFigure, runs.size())));
    Figure figure{.id = at == 0 ? id : fmt::format("{}-{}", id, at / kRunsInFigure + 1),
                  .caption =
                      "Losses in training against tokens seen: thin lines as logged, thick "
                      "lines running means. The fall at the beginning is cut off.",
                  .panels = {}};
    const auto terms = terms_of(some);
    for (const std::string& term : terms) {
      const bool informative = term != "z_loss" && !(term == "loss" && terms.front() == "base");
      if (informative) figure.panels.emplace_back(loss_chart(some, term));
    }
    if (!figure.panels.empty()) figures.push_back(std::move(figure));
  }
  return figures;
}

}  // namespace kvcast::report
