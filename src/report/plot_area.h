// What charts and heat maps share when they are drawn: the frame, axes, titles and legends.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "report/axis.h"
#include "report/svg.h"

namespace kvcast::report {

struct Box {
  double left = 0, top = 0, right = 0, bottom = 0;
  [[nodiscard]] double width() const { return right - left; }
  [[nodiscard]] double height() const { return bottom - top; }
  [[nodiscard]] bool overlaps(const Box& other) const {
    return left < other.right && other.left < right && top < other.bottom && other.top < bottom;
  }
  [[nodiscard]] bool contains(const Box& other) const {
    return left <= other.left && other.right <= right && top <= other.top && other.bottom <= bottom;
  }
};

inline constexpr double kTitleSize = 14, kLabelSize = 12.5, kTickSize = 11.5;

/// Where a value lies on paper: Scale on the sides of a box.
struct PlotArea {
  Box box;
  const Scale* x = nullptr;
  const Scale* y = nullptr;
  [[nodiscard]] double px(double value) const { return box.left + x->place(value) * box.width(); }
  [[nodiscard]] double py(double value) const {
    return box.bottom - y->place(value) * box.height();
  }
};

/// Room that the tick labels of a vertical axis need, label included.
double vertical_axis_width(const std::vector<Tick>& ticks, const std::string& label);
inline constexpr double kHorizontalAxisHeight = 46;

/// Ticks with labels, the axis label and, across from a vertical axis, grid lines. Tick labels that
/// would run into each other are left out.
void draw_horizontal_axis(Svg& svg, const PlotArea& area, const std::string& label);
void draw_vertical_axis(Svg& svg, const PlotArea& area, const std::string& label);
/// Rotated by 90 degrees, centred on the left of `box`.
void draw_vertical_label(Svg& svg, double x, const Box& box, const std::string& label);
void draw_title(Svg& svg, const Box& box, std::string_view title);

/// The outline of marker number `style` around a point, as path data.
std::string marker_path(int style, double x, double y, double radius);
std::string_view dash_pattern(int style);

}  // namespace kvcast::report
