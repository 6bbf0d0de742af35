#include <fmt/format.h>

#include "report/analysis.h"
#include "report/svg.h"

namespace kvcast::report {
namespace {

constexpr const char* kL1 = "mean |predicted − exact|";

/// What every caption ends with.
std::string conditions(const Analysis& analysis) {
  return fmt::format("{}, {}, {} windows of {} tokens of {}.", analysis.label, analysis.dtype,
                     analysis.windows, analysis.window_tokens, analysis.data);
}

using ByLayer = Estimate (*)(const LayerAnalysis&);
Series over_layers(const Analysis& analysis, std::string name, int style, ByLayer value) {
  Series series{.name = std::move(name), .style = style};
  for (size_t i = 0; i < analysis.layers.size(); ++i) {
    const Estimate e = value(analysis.layers[i]);
    series.points.push_back(
        {.x = static_cast<double>(i), .y = e.value, .low = e.low, .high = e.high});
  }
  return series;
}

Figure by_layer(const Analysis& analysis) {
  const Axis layers{.label = "base layer"};
  Chart absolute{.title = "L1 error", .x = layers, .y = {.label = kL1, .from_zero = true}};
  absolute.series = {
      over_layers(analysis, "keys", 0, [](const LayerAnalysis& l) { return l.keys.l1; }),
      over_layers(analysis, "values", 1, [](const LayerAnalysis& l) { return l.values.l1; })};
  Chart relative{.title = "L1 error relative to the exact cache",
                 .x = layers,
                 .y = {.label = std::string(kL1) + " / mean |exact|", .from_zero = true}};
  relative.series = {
      over_layers(analysis, "keys", 0,
                  [](const LayerAnalysis& l) { return Estimate{l.keys.relative_l1}; }),
      over_layers(analysis, "values", 1,
                  [](const LayerAnalysis& l) { return Estimate{l.values.relative_l1}; })};
  return {.id = "l1-by-layer",
          .caption =
              "Error of predicted keys (after k_norm, before RoPE) and values by layer; "
              "bars: 95% interval over windows. " +
              conditions(analysis),
          .panels = {absolute, relative}};
}

Figure by_position(const Analysis& analysis) {
  Chart chart{.title = "L1 error by position",
              .x = {.label = "position (tokens)"},
              .y = {.label = std::string(kL1) + ", mean over layers", .from_zero = true}};
  for (const bool keys : {true, false}) {
    Series series{.name = keys ? "keys" : "values", .style = keys ? 0 : 1, .markers = false};
    for (size_t bin = 0; bin + 1 < analysis.position_edges.size(); ++bin) {
      double sum = 0;
      for (const LayerAnalysis& layer : analysis.layers) {
        sum += (keys ? layer.keys : layer.values).l1_by_position[bin];
      }
      series.points.push_back({.x = (static_cast<double>(analysis.position_edges[bin]) +
                                     static_cast<double>(analysis.position_edges[bin + 1]) - 1) /
                                    2,
                               .y = sum / static_cast<double>(analysis.layers.size())});
    }
    chart.series.push_back(std::move(series));
  }
  return {.id = "l1-by-position",
          .caption = "Error of predicted keys and values by position in the window. " +
                     conditions(analysis),
          .panels = {chart}};
}

using Cells = const std::vector<double>& (*)(const LayerAnalysis&);
HeatMap heat_map(const Analysis& analysis, std::string title, std::string value_label,
                 Cells cells) {
  HeatMap map{.title = std::move(title),
              .x_label = "position (tokens)",
              .y_label = "base layer",
              .value_label = std::move(value_label),
              .column_edges = {analysis.position_edges.begin(), analysis.position_edges.end()},
              .rows = {},
              .values = {}};
  for (size_t i = 0; i < analysis.layers.size(); ++i) {
    map.rows.push_back(std::to_string(i));
    map.values.push_back(cells(analysis.layers[i]));
  }
  return map;
}

Figure heat_maps(const Analysis& analysis) {
  return {.id = "l1-heat-map",
          .caption =
              "Error of predicted keys and values by layer and position. " + conditions(analysis),
          .panels = {heat_map(analysis, "Keys", kL1,
                              [](const LayerAnalysis& l) -> const std::vector<double>& {
                                return l.keys.l1_by_position;
                              }),
                     heat_map(analysis, "Values", kL1,
                              [](const LayerAnalysis& l) -> const std::vector<double>& {
                                return l.values.l1_by_position;
                              })}};
}

Series density_curve(const Density& density, size_t layer, std::string color) {
  Series series{.name = fmt::format("layer {}", layer),
                .color = std::move(color),
                .markers = false,
                .width = 1.8};
  double total = static_cast<double>(density.below) + static_cast<double>(density.above);
  for (const int64_t count : density.counts) total += static_cast<double>(count);
  const double width = (density.high - density.low) / static_cast<double>(density.counts.size());
  for (size_t bin = 0; bin < density.counts.size(); ++bin) {
    series.points.push_back({.x = density.low + (static_cast<double>(bin) + 0.5) * width,
                             .y = static_cast<double>(density.counts[bin]) / (total * width)});
  }
  return series;
}

Figure densities(const Analysis& analysis) {
  Figure figure{
      .id = "difference-density",
      .caption = "Density of predicted minus exact keys and values. " + conditions(analysis),
      .panels = {}};
  for (const bool keys : {true, false}) {
    Chart chart{.title = keys ? "Keys" : "Values",
                .x = {.label = "predicted − exact"},
                .y = {.label = "density", .from_zero = true},
                .series = {},
                .lines = {{.horizontal = false, .at = 0}}};
    for (size_t i = 0; i < analysis.layers.size(); ++i) {
      const auto& errors = keys ? analysis.layers[i].keys : analysis.layers[i].values;
      if (errors.density.counts.empty()) continue;
      const double depth =
          analysis.layers.size() > 1
              ? static_cast<double>(i) / (static_cast<double>(analysis.layers.size()) - 1)
              : 0;
      chart.series.push_back(density_curve(errors.density, i, sequential_color(0.85 * depth)));
    }
    figure.panels.emplace_back(std::move(chart));
  }
  return figure;
}

Figure cosines(const Analysis& analysis) {
  Chart chart{.title = "Attention outputs against the exact cache's",
              .x = {.label = "base layer"},
              .y = {.label = "mean cosine"}};
  chart.series = {over_layers(analysis, "predicted keys and values", 0,
                              [](const LayerAnalysis& l) { return l.attention_cosine; }),
                  over_layers(analysis, "predicted keys, exact values", 1,
                              [](const LayerAnalysis& l) { return l.attention_cosine_keys; }),
                  over_layers(analysis, "exact keys, predicted values", 2,
                              [](const LayerAnalysis& l) { return l.attention_cosine_values; })};
  return {.id = "attention-cosine",
          .caption =
              "Cosine between each layer's attention outputs over the predicted and over the "
              "exact cache, with exact queries; bars: 95% interval over windows. " +
              conditions(analysis),
          .panels = {chart, heat_map(analysis, "Predicted keys and values", "mean cosine",
                                     [](const LayerAnalysis& l) -> const std::vector<double>& {
                                       return l.attention_cosine_by_position;
                                     })}};
}

}  // namespace

std::vector<Figure> to_figures(const Analysis& analysis) {
  return {by_layer(analysis), by_position(analysis), heat_maps(analysis), densities(analysis),
          cosines(analysis)};
}

}  // namespace kvcast::report
