#include "report/plot_area.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace kvcast::report {
namespace {

constexpr StrokeStyle kGridLine{.color = {}, .ink = Ink::kGrid};
constexpr StrokeStyle kAxisLine{.color = {}, .ink = Ink::kAxis};
constexpr double kTickLength = 4;

std::string polygon(std::initializer_list<std::pair<double, double>> corners) {
  std::string data;
  for (const auto& [x, y] : corners) {
    data += fmt::format("{}{} {}", data.empty() ? "M" : "L", svg_number(x), svg_number(y));
  }
  return data + "z";
}

}  // namespace

double vertical_axis_width(const std::vector<Tick>& ticks, const std::string& label) {
  double widest = 0;
  for (const Tick& tick : ticks) widest = std::max(widest, text_width(tick.label, kTickSize));
  return widest + kTickLength + 6 + (label.empty() ? 4 : kLabelSize + 12);
}

void draw_horizontal_axis(Svg& svg, const PlotArea& area, const std::string& label) {
  const Box& box = area.box;
  double free_from = -INFINITY;  // where the next label may begin
  for (const Tick& tick : area.x->ticks()) {
    const double x = area.px(tick.value);
    if (x < box.left - 0.5 || x > box.right + 0.5) continue;
    svg.line(x, box.bottom, x, box.bottom + kTickLength, kAxisLine);
    const double half = text_width(tick.label, kTickSize) / 2;
    if (x - half < free_from) continue;
    free_from = x + half + 6;
    svg.text(x, box.bottom + kTickLength + 13, tick.label,
             {.size = kTickSize, .anchor = "middle", .ink = Ink::kMuted});
  }
  svg.line(box.left, box.bottom, box.right, box.bottom, kAxisLine);
  svg.text((box.left + box.right) / 2, box.bottom + 38, label,
           {.size = kLabelSize, .anchor = "middle"});
}

void draw_vertical_axis(Svg& svg, const PlotArea& area, const std::string& label) {
  const Box& box = area.box;
  double free_from = INFINITY;
  for (const Tick& tick : area.y->ticks()) {
    const double y = area.py(tick.value);
    if (y < box.top - 0.5 || y > box.bottom + 0.5) continue;
    svg.line(box.left, y, box.right, y, kGridLine);
    svg.line(box.left - kTickLength, y, box.left, y, kAxisLine);
    if (y + kTickSize / 2 > free_from) continue;
    free_from = y - kTickSize / 2 - 1;
    svg.text(box.left - kTickLength - 4, y + kTickSize * 0.36, tick.label,
             {.size = kTickSize, .anchor = "end", .ink = Ink::kMuted});
  }
  svg.line(box.left, box.top, box.left, box.bottom, kAxisLine);
  draw_vertical_label(svg, box.left - vertical_axis_width(area.y->ticks(), label) + kLabelSize, box,
                      label);
}

void draw_vertical_label(Svg& svg, double x, const Box& box, const std::string& label) {
  const double room = (box.bottom - box.top) / text_width(label, 1);  // longer labels are smaller
  svg.text(x, (box.top + box.bottom) / 2, label,
           {.size = std::min<double>(kLabelSize, room), .anchor = "middle", .rotate_degrees = -90});
}

void draw_title(Svg& svg, const Box& box, std::string_view title) {
  svg.text(box.left, box.top + kTitleSize, title, {.size = kTitleSize, .bold = true});
}

std::string marker_path(int style, double x, double y, double r) {
  // Where colours come round again, shapes are shifted: no two series look the same.
  switch ((style + style / kSeriesColors) % kSeriesColors) {
    case 1:
      return polygon({{x - r, y - r}, {x + r, y - r}, {x + r, y + r}, {x - r, y + r}});
    case 2:
      return polygon({{x, y - 1.2 * r}, {x + 1.2 * r, y + r}, {x - 1.2 * r, y + r}});
    case 3:
      return polygon({{x, y - 1.35 * r}, {x + 1.35 * r, y}, {x, y + 1.35 * r}, {x - 1.35 * r, y}});
    case 4:
      return polygon({{x, y + 1.2 * r}, {x + 1.2 * r, y - r}, {x - 1.2 * r, y - r}});
    case 5: {  // a plus
      const double t = r * 0.45, e = r * 1.25;
      return polygon({{x - t, y - e},
                      {x + t, y - e},
                      {x + t, y - t},
                      {x + e, y - t},
                      {x + e, y + t},
                      {x + t, y + t},
                      {x + t, y + e},
                      {x - t, y + e},
                      {x - t, y + t},
                      {x - e, y + t},
                      {x - e, y - t},
                      {x - t, y - t}});
    }
    case 6:
      return polygon({{x - r, y - 1.3 * r},
                      {x + r, y - 1.3 * r},
                      {x, y},
                      {x + r, y + 1.3 * r},
                      {x - r, y + 1.3 * r},
                      {x, y}});
    default:
      break;
  }
  return fmt::format("M{} {}a{} {} 0 1 0 {} 0a{} {} 0 1 0 {} 0z", svg_number(x - r), svg_number(y),
                     svg_number(r), svg_number(r), svg_number(2 * r), svg_number(r), svg_number(r),
                     svg_number(-2 * r));
}

std::string_view dash_pattern(int style) {
  static constexpr std::array<std::string_view, 4> kPatterns = {"", "7 3", "2 3", "9 3 2 3"};
  return kPatterns[static_cast<size_t>(style % 4)];
}

}  // namespace kvcast::report
