#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "report/panel.h"

namespace kvcast::report {
namespace {

constexpr double kBarWidth = 14, kBarGap = 16;
constexpr int kColorSteps = 64;  // cells of one colour form one path, which keeps files small

int color_step(double share) {
  return std::clamp(static_cast<int>(share * (kColorSteps - 1) + 0.5), 0, kColorSteps - 1);
}

std::string step_color(int step) { return sequential_color(step / (kColorSteps - 1.0)); }

std::string rectangle(double left, double top, double right, double bottom) {
  return fmt::format("M{} {}H{}V{}H{}z", svg_number(left), svg_number(top), svg_number(right),
                     svg_number(bottom), svg_number(left));
}

std::vector<double> finite_values(const HeatMap& map) {
  std::vector<double> values;
  for (const auto& row : map.values) {
    for (const double value : row) {
      if (std::isfinite(value)) values.push_back(value);
    }
  }
  return values;
}

/// Neighbours overlap by a hair, or gaps would shine through between them.
void draw_cells(Svg& svg, const HeatMap& map, const PlotArea& area, const Scale& color) {
  constexpr double kOverlap = 0.3;
  const double height = area.box.height() / static_cast<double>(map.rows.size());
  std::map<int, std::string> paths;  // by colour
  for (size_t row = 0; row < map.values.size(); ++row) {
    const double bottom = area.box.bottom - static_cast<double>(row) * height;
    for (size_t column = 0; column < map.values[row].size(); ++column) {
      const double value = map.values[row][column];
      if (!std::isfinite(value)) continue;
      paths[color_step(color.place(value))] +=
          rectangle(area.px(map.column_edges[column]), bottom - height - kOverlap,
                    area.px(map.column_edges[column + 1]) + kOverlap, bottom);
    }
  }
  for (const auto& [step, path] : paths) svg.fill_path(path, step_color(step));
}

void draw_row_labels(Svg& svg, const HeatMap& map, const Box& plot) {
  const double height = plot.height() / static_cast<double>(map.rows.size());
  const auto every = static_cast<size_t>(std::ceil((kTickSize + 2) / height));
  for (size_t row = 0; row < map.rows.size(); row += every) {
    const double y = plot.bottom - (static_cast<double>(row) + 0.5) * height;
    svg.text(plot.left - 6, y + kTickSize * 0.36, map.rows[row],
             {.size = kTickSize, .anchor = "end", .ink = Ink::kMuted});
  }
}

void draw_color_bar(Svg& svg, const Box& bar, const Scale& color, const std::string& label) {
  const double height = bar.height() / kColorSteps;
  for (int step = 0; step < kColorSteps; ++step) {
    const double bottom = bar.bottom - step * height;
    svg.fill_path(rectangle(bar.left, bottom - height - (step + 1 < kColorSteps ? 0.3 : 0),
                            bar.right, bottom),
                  step_color(step));
  }
  double widest = 0;
  for (const Tick& tick : color.ticks()) {
    const double y = bar.bottom - color.place(tick.value) * bar.height();
    if (y < bar.top - 0.5 || y > bar.bottom + 0.5) continue;
    svg.line(bar.right, y, bar.right + 4, y, {});
    svg.text(bar.right + 7, y + kTickSize * 0.36, tick.label,
             {.size = kTickSize, .ink = Ink::kMuted});
    widest = std::max(widest, text_width(tick.label, kTickSize));
  }
  draw_vertical_label(svg, bar.right + 7 + widest + kLabelSize + 2, bar, label);
}

}  // namespace

void draw_panel(Svg& svg, const Box& box, const std::string& /*clip_id*/, const HeatMap& map) {
  if (map.rows.empty() || map.column_edges.size() < 2) return;
  const auto values = finite_values(map);
  const auto [low, high] = values.empty() ? std::pair{0.0, 1.0}
                                          : std::pair{*std::ranges::min_element(values),
                                                      *std::ranges::max_element(values)};
  const Scale x(
      {.label = {}, .low = map.column_edges.front(), .high = map.column_edges.back(), .ticks = {}},
      {}, 7);
  const Scale color({.label = {}, .low = low, .high = high, .ticks = {}}, {}, 5);

  double row_names = 0;
  for (const auto& name : map.rows) row_names = std::max(row_names, text_width(name, kTickSize));
  Box plot = box;
  plot.top += kTitleSize + 12;
  plot.bottom -= kHorizontalAxisHeight;
  plot.left += row_names + 10 + kLabelSize + 10;
  const double bar_room = kBarGap + vertical_axis_width(color.ticks(), map.value_label) + kBarWidth;
  plot.right -= bar_room + 4;
  const PlotArea area{plot, &x, nullptr};

  draw_title(svg, box, map.title);
  draw_cells(svg, map, area, color);
  draw_row_labels(svg, map, plot);
  draw_vertical_label(svg, box.left + kLabelSize, plot, map.y_label);
  draw_horizontal_axis(svg, area, map.x_label);
  draw_color_bar(svg,
                 {plot.right + kBarGap, plot.top, plot.right + kBarGap + kBarWidth, plot.bottom},
                 color, map.value_label);
}

}  // namespace kvcast::report
