// A chart from back to front: grid and axes, bands, reference lines, lines, error bars, markers,
// labels.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "report/panel.h"

namespace kvcast::report {
namespace {

constexpr double kMarkerRadius = 4;
constexpr double kLegendLine = 18;    // height of one row
constexpr double kLegendSample = 26;  // width of the sample before a name
constexpr double kPointLabelSize = 11;

std::string color_of(const Series& series) {
  return series.color.empty() ? std::string(series_color(series.style)) : series.color;
}

std::vector<double> all_values(const Chart& chart, bool horizontal) {
  std::vector<double> values;
  for (const Series& series : chart.series) {
    for (const Point& point : series.points) {
      if (!std::isfinite(point.x) || !std::isfinite(point.y)) continue;
      const std::array<double, 3> along = {point.x, point.x_low, point.x_high};
      const std::array<double, 3> up = {point.y, point.low, point.high};
      const auto& own = horizontal ? along : up;
      values.insert(values.end(), own.begin(), own.end());
    }
  }
  for (const ReferenceLine& line : chart.lines) {
    if (line.horizontal != horizontal) values.push_back(line.at);
  }
  return values;
}

// ---- the legend: one or more rows between title and plot ----

struct LegendEntry {
  const Series* series;
  double x = 0;
  int row = 0;
};

std::vector<LegendEntry> lay_out_legend(const Chart& chart, double width) {
  std::vector<LegendEntry> entries;
  double x = 0;
  int row = 0;
  for (const Series& series : chart.series) {
    if (series.name.empty()) continue;
    const double needed = kLegendSample + 6 + text_width(series.name, kTickSize) + 16;
    if (x > 0 && x + needed > width) x = 0, ++row;
    entries.push_back({&series, x, row});
    x += needed;
  }
  return entries;
}

void draw_sample(Svg& svg, const Series& series, double x, double y) {
  const std::string color = color_of(series);
  if (series.line) {
    svg.line(x, y, x + kLegendSample, y,
             {.color = color,
              .width = series.width,
              .opacity = series.opacity,
              .dashes = series.markers || !series.color.empty() ? "" : dash_pattern(series.style)});
  }
  if (series.markers) {
    svg.fill_path(marker_path(series.style, x + kLegendSample / 2, y, kMarkerRadius), color, 1,
                  series.hollow);
  }
}

void draw_legend(Svg& svg, const std::vector<LegendEntry>& entries, double left, double top) {
  for (const LegendEntry& entry : entries) {
    const double x = left + entry.x, y = top + entry.row * kLegendLine + kLegendLine / 2;
    draw_sample(svg, *entry.series, x, y);
    svg.text(x + kLegendSample + 6, y + kTickSize * 0.36, entry.series->name, {.size = kTickSize});
  }
}

// ---- data ----

std::string line_data(const std::vector<Point>& points, const PlotArea& area) {
  std::string data;
  bool pen_down = false;
  for (const Point& point : points) {
    const double x = area.px(point.x), y = area.py(point.y);
    if (!std::isfinite(x) || !std::isfinite(y)) {
      pen_down = false;
      continue;
    }
    data += fmt::format("{}{} {}", pen_down ? "L" : "M", svg_number(x), svg_number(y));
    pen_down = true;
  }
  return data;
}

/// The region between the intervals' ends, one closed outline for each run of points that have one.
std::string band_data(const std::vector<Point>& points, const PlotArea& area) {
  std::string data, way_back;
  const auto close = [&] {
    if (!way_back.empty()) data += way_back + "z";
    way_back.clear();
  };
  for (const Point& point : points) {
    const double x = area.px(point.x), low = area.py(point.low), high = area.py(point.high);
    if (!std::isfinite(x) || !std::isfinite(low) || !std::isfinite(high)) {
      close();
      continue;
    }
    data += fmt::format("{}{} {}", way_back.empty() ? "M" : "L", svg_number(x), svg_number(high));
    way_back = fmt::format("L{} {}", svg_number(x), svg_number(low)) + way_back;
  }
  close();
  return data;
}

void draw_error_bars(Svg& svg, const Series& series, const PlotArea& area) {
  constexpr double kCap = 3;
  const std::string color = color_of(series);
  const StrokeStyle style{.color = color, .width = 1.2};
  for (const Point& point : series.points) {
    const double x = area.px(point.x), y = area.py(point.y);
    const double low = area.py(point.low), high = area.py(point.high);
    if (std::isfinite(x) && std::isfinite(low) && std::isfinite(high)) {
      svg.line(x, low, x, high, style);
      svg.line(x - kCap, low, x + kCap, low, style);
      svg.line(x - kCap, high, x + kCap, high, style);
    }
    const double left = area.px(point.x_low), right = area.px(point.x_high);
    if (std::isfinite(y) && std::isfinite(left) && std::isfinite(right)) {
      svg.line(left, y, right, y, style);
      svg.line(left, y - kCap, left, y + kCap, style);
      svg.line(right, y - kCap, right, y + kCap, style);
    }
  }
}

void draw_series(Svg& svg, const Series& series, const PlotArea& area) {
  const std::string color = color_of(series);
  if (series.line) {
    const bool dashes = !series.markers && series.color.empty();
    svg.stroke_path(line_data(series.points, area),
                    {.color = color,
                     .width = series.width,
                     .opacity = series.opacity,
                     .dashes = dashes ? dash_pattern(series.style) : ""});
  }
  if (!series.band) draw_error_bars(svg, series, area);
  if (!series.markers) return;
  for (const Point& point : series.points) {
    const double x = area.px(point.x), y = area.py(point.y);
    if (!std::isfinite(x) || !std::isfinite(y)) continue;
    svg.fill_path(marker_path(series.style, x, y, kMarkerRadius), color, 1, series.hollow);
  }
}

void draw_reference_lines(Svg& svg, const Chart& chart, const PlotArea& area) {
  const Box& box = area.box;
  for (const ReferenceLine& line : chart.lines) {
    const StrokeStyle style{.color = {}, .ink = Ink::kAxis, .width = 1.2, .dashes = "5 4"};
    const TextStyle text{.size = kPointLabelSize, .ink = Ink::kMuted, .halo = true};
    if (line.horizontal) {
      const double y = area.py(line.at);
      svg.line(box.left, y, box.right, y, style);
      TextStyle at_the_right = text;
      at_the_right.anchor = "end";
      svg.text(box.right - 4, y - 5, line.label, at_the_right);
    } else {
      const double x = area.px(line.at);
      svg.line(x, box.top, x, box.bottom, style);
      svg.text(x + 4, box.top + 12, line.label, text);
    }
  }
}

// ---- labels beside points ----

/// Places labels one by one where they cover neither a marker nor another label; where there is no
/// such place the label is drawn above its point all the same.
class LabelPlacer {
 public:
  LabelPlacer(const Chart& chart, const PlotArea& area) : area_(area) {
    for (const Series& series : chart.series) {
      for (const Point& point : series.points) {
        const double x = area.px(point.x), y = area.py(point.y), r = kMarkerRadius + 1;
        if (!series.markers || !std::isfinite(x) || !std::isfinite(y)) continue;
        taken_.push_back({x - r, y - r, x + r, y + r});
      }
    }
  }

  void draw(Svg& svg, const Point& point) {
    const double x = area_.px(point.x), y = area_.py(point.y);
    if (point.label.empty() || !std::isfinite(x) || !std::isfinite(y)) return;
    const Box box = find_place(x, y, text_width(point.label, kPointLabelSize));
    taken_.push_back(box);
    const double near_x = std::clamp(x, box.left, box.right);
    const double near_y = std::clamp(y, box.top, box.bottom);
    if (std::hypot(near_x - x, near_y - y) > kFarLabel) {  // say which point it belongs to
      svg.line(x, y, near_x, near_y, {.color = {}, .ink = Ink::kAxis, .width = 0.7});
    }
    svg.text(box.left, box.bottom - 3, point.label, {.size = kPointLabelSize, .halo = true});
  }

 private:
  static constexpr double kNearLabel = 7, kFarLabel = 14, kFarthestLabel = 120;

  [[nodiscard]] bool is_free(const Box& box) const {
    return area_.box.contains(box) &&
           std::ranges::none_of(taken_, [&](const Box& other) { return box.overlaps(other); });
  }

  /// Beside the point if possible, else in growing circles around it.
  [[nodiscard]] Box find_place(double x, double y, double width) const {
    constexpr double kHeight = kPointLabelSize + 2;
    constexpr std::pair<double, double> kDirections[] = {
        {1, 0}, {-1, 0}, {0, -1}, {0, 1}, {0.7, -0.7}, {0.7, 0.7}, {-0.7, -0.7}, {-0.7, 0.7}};
    for (double distance = kNearLabel; distance < kFarthestLabel; distance *= 1.5) {
      for (const auto& [dx, dy] : kDirections) {
        // The edge or corner of the label that faces the point is `distance` away from it.
        const double left = x + dx * distance - (dx > 0 ? 0 : dx < 0 ? width : width / 2);
        const double top = y + dy * distance - (dy > 0 ? 0 : dy < 0 ? kHeight : kHeight / 2);
        const Box box{left, top, left + width, top + kHeight};
        if (is_free(box)) return box;
      }
    }
    const double left = std::clamp(x - width / 2, area_.box.left,
                                   std::max(area_.box.left, area_.box.right - width));
    return {left, y - kNearLabel - kHeight, left + width, y - kNearLabel};
  }

  const PlotArea& area_;
  std::vector<Box> taken_;
};

}  // namespace

double extra_height(const Chart& chart, double width) {
  constexpr int kUsualRows = 2;
  const auto legend = lay_out_legend(chart, width);
  if (legend.empty()) return 0;
  return std::max(0, legend.back().row + 1 - kUsualRows) * kLegendLine;
}

void draw_panel(Svg& svg, const Box& box, const std::string& clip_id, const Chart& chart) {
  const Scale x(chart.x, all_values(chart, true), 7), y(chart.y, all_values(chart, false), 6);
  Box plot = box;
  plot.top += chart.title.empty() ? 0 : kTitleSize + 10;
  const auto legend = lay_out_legend(chart, box.width());
  const double legend_top = plot.top;
  if (legend.size() > 1) plot.top += (legend.back().row + 1) * kLegendLine + 6;
  plot.left += vertical_axis_width(y.ticks(), chart.y.label);
  plot.right -= 16;  // half of the last tick's label
  plot.bottom -= kHorizontalAxisHeight;
  const PlotArea area{plot, &x, &y};

  draw_title(svg, box, chart.title);
  if (legend.size() > 1) draw_legend(svg, legend, box.left, legend_top);
  draw_vertical_axis(svg, area, chart.y.label);
  draw_horizontal_axis(svg, area, chart.x.label);
  svg.begin_clip(clip_id, plot.left - 1, plot.top - 6, plot.width() + 7, plot.height() + 7);
  for (const Series& series : chart.series) {
    if (series.band) svg.fill_path(band_data(series.points, area), color_of(series), 0.18);
  }
  draw_reference_lines(svg, chart, area);
  for (const Series& series : chart.series) draw_series(svg, series, area);
  svg.end_clip();
  LabelPlacer labels(chart, area);
  for (const Series& series : chart.series) {
    for (const Point& point : series.points) labels.draw(svg, point);
  }
}

}  // namespace kvcast::report
