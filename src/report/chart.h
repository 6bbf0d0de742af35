// Figures: charts of points and lines, heat maps, one or several side by side in one SVG.
#pragma once

#include <cmath>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "report/axis.h"

namespace kvcast::report {

/// One value. Intervals are drawn if they are finite.
struct Point {
  double x = NAN, y = NAN;           ///< not finite: a gap in the line
  double low = NAN, high = NAN;      ///< interval of y
  double x_low = NAN, x_high = NAN;  ///< interval of x
  std::string label = {};            ///< written beside the point where there is room
};

/// Points of one kind. Colour, marker and dashes follow from `style`, so that a series can be told
/// apart without colour too.
struct Series {
  std::string name;  ///< for the legend; empty: none
  std::vector<Point> points = {};
  int style = 0;
  std::string color = {};  ///< other than the style's
  bool line = true;
  bool markers = true;
  bool hollow = false;  ///< markers are outlines
  bool band = false;    ///< intervals as a band instead of error bars, for many points
  double width = 2;     ///< of the line
  double opacity = 1;   ///< of the line
};

/// A line across the plot, e.g. at zero or at the exact model's quality.
struct ReferenceLine {
  bool horizontal = true;
  double at = 0;
  std::string label = {};
};

struct Chart {
  std::string title;
  Axis x, y;
  std::vector<Series> series = {};
  std::vector<ReferenceLine> lines = {};
};

/// Cells of a grid coloured by value.
struct HeatMap {
  std::string title;
  std::string x_label, y_label, value_label;  ///< with units
  std::vector<double> column_edges;           ///< [columns + 1], ascending, on the x axis
  std::vector<std::string> rows;              ///< names, drawn from bottom to top
  std::vector<std::vector<double>> values;    ///< [rows][columns]; not finite: no cell
};

struct Figure {
  std::string id;       ///< file name without extension; unique on a page
  std::string caption;  ///< what is shown, under which conditions; not part of the SVG
  std::vector<std::variant<Chart, HeatMap>> panels;
};

/// The whole SVG file.
std::string to_svg(const Figure& figure);

}  // namespace kvcast::report
