#include <fmt/format.h>

#include <algorithm>

#include "report/frontier.h"
#include "report/sections.h"
#include "report/svg.h"

namespace kvcast::report {
namespace {

std::vector<size_t> frontier_of(const Comparison& comparison, Cost cost) {
  std::vector<CostQuality> points;
  for (const Entry& entry : comparison.entries) {
    points.push_back({cost_of(entry, cost), comparison.goodness(entry)});
  }
  return pareto_frontier(points);
}

/// A method's place among all of the comparison's: it looks the same against either cost, whichever
/// methods have no value of one.
int style_of(const Comparison& comparison, const std::string& method) {
  std::vector<std::string> methods;
  for (const Entry& entry : comparison.entries) {
    if (entry.method == method) break;
    if (std::ranges::find(methods, entry.method) == methods.end()) methods.push_back(entry.method);
  }
  return static_cast<int>(methods.size());
}

/// A series for each method, in the order of the entries. Only the frontier's points are labelled:
/// all of them would hide each other.
std::vector<Series> method_series(const Comparison& comparison, Cost cost) {
  const auto frontier = frontier_of(comparison, cost);
  std::vector<Series> all;
  for (size_t i = 0; i < comparison.entries.size(); ++i) {
    const Entry& entry = comparison.entries[i];
    const double share = cost_of(entry, cost);
    if (!std::isfinite(share) || !std::isfinite(entry.quality.value)) continue;
    auto found = std::ranges::find(all, entry.method, &Series::name);
    if (found == all.end()) {
      Series series{.name = entry.method, .style = style_of(comparison, entry.method)};
      series.width = 1;
      series.opacity = 0.5;
      series.hollow =
          entry.method.starts_with("alone") || entry.method.starts_with("its auxiliary");
      all.push_back(std::move(series));
      found = all.end() - 1;
    }
    const bool labelled = std::ranges::find(frontier, i) != frontier.end() && !entry.is_exact();
    found->points.push_back({.x = 1 / share,
                             .y = entry.quality.value,
                             .low = entry.quality.low,
                             .high = entry.quality.high,
                             .label = labelled ? entry.name : ""});
  }
  for (Series& series : all) std::ranges::sort(series.points, {}, &Point::x);
  return all;
}

Series frontier_series(const Comparison& comparison, Cost cost) {
  Series series{.name = "frontier"};
  series.color = "#8A929E";
  series.markers = false;
  series.width = 3.5;
  series.opacity = 0.45;
  for (const size_t i : frontier_of(comparison, cost)) {
    const Entry& entry = comparison.entries[i];
    series.points.push_back({.x = 1 / cost_of(entry, cost), .y = entry.quality.value});
  }
  return series;
}

Chart pareto_chart(const Comparison& comparison, Cost cost) {
  const bool flops = cost == Cost::kFlops;
  const TaskStyle& style = comparison.style;
  Chart chart{.title = style.name + (flops ? " against prefill FLOPs" : " against measured TTFT"),
              .x = {.label = flops ? "FLOPs reduction (×)" : "TTFT reduction (×)"},
              .y = {.label = metric_label(style)}};
  chart.x.log = true;
  chart.series = method_series(comparison, cost);
  chart.series.insert(chart.series.begin(), frontier_series(comparison, cost));
  if (const Entry* exact = comparison.exact()) {
    chart.lines.push_back({.horizontal = true, .at = exact->quality.value, .label = "exact"});
  }
  return chart;
}

size_t point_count(const Chart& chart) {
  size_t count = 0;
  for (const Series& series : chart.series) {
    if (series.markers) count += series.points.size();
  }
  return count;
}

}  // namespace

Figure pareto_figure(const Comparison& comparison) {
  Figure figure{
      .id = slug(fmt::format("pareto {} {} {}", comparison.task,
                             comparison.length > 0 ? std::to_string(comparison.length) : "",
                             comparison.base)),
      .caption =
          fmt::format("{}, {}{}: quality against what is saved before the first token. Bars: 95% "
                      "intervals. Grey "
                      "line: the points that no other one beats{}. FLOPs are counted exactly, "
                      "except for models "
                      "alone (the paper's approximation). TTFT reductions are within one run.",
                      comparison.style.name, comparison.base,
                      comparison.length > 0 ? fmt::format(", length {}", comparison.length) : "",
                      comparison.style.higher_is_better ? "" : "; lower is better"),
      .panels = {}};
  for (const Cost cost : {Cost::kFlops, Cost::kTtft}) {
    Chart chart = pareto_chart(comparison, cost);
    if (point_count(chart) >= 3) figure.panels.emplace_back(std::move(chart));
  }
  return figure;
}

Figure total_time_figure(const Comparison& comparison) {
  Chart chart{.title = "Time to the end of the answer",
              .x = {.label = "answer (tokens)", .log = true},
              .y = {.label = "time since the prompt (ms)", .log = true}};
  for (const Entry& entry : comparison.entries) {
    // What answers as exact does once the prompt is read, and the auxiliary, which may be done
    // sooner; the rest is in the table.
    const std::string& prefill = entry.result->prefill;
    const bool shown = prefill == "exact" || prefill == "kv-prediction" || prefill == "auxiliary";
    if (!shown || entry.result->total_ms.size() < 2) continue;
    if (chart.series.size() == kSeriesColors) break;
    Series series{
        .name = entry.is_exact() ? entry.method : fmt::format("{} {}", entry.method, entry.name),
        .style = static_cast<int>(chart.series.size())};
    for (const auto& [tokens, ms] : entry.result->total_ms) {
      series.points.push_back({.x = static_cast<double>(tokens), .y = ms});
      if (std::ranges::find(chart.x.ticks, static_cast<double>(tokens)) == chart.x.ticks.end()) {
        chart.x.ticks.push_back(static_cast<double>(tokens));
      }
    }
    chart.series.push_back(std::move(series));
  }
  std::ranges::sort(chart.x.ticks);
  Figure figure{
      .id = slug("total-time " + comparison.task + " " + comparison.base),
      .caption = fmt::format("{}: median time to the end of an answer, prompts as in {}, "
                             "batch 1. Where a curve crosses the auxiliary's, it breaks even.",
                             comparison.base, comparison.style.name),
      .panels = {}};
  if (!chart.series.empty()) figure.panels.emplace_back(std::move(chart));
  return figure;
}

}  // namespace kvcast::report
