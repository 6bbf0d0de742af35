// Drawing one panel of a figure into its box.
#pragma once

#include <string>

#include "report/chart.h"
#include "report/plot_area.h"
#include "report/svg.h"

namespace kvcast::report {

/// `clip_id`: a name for the panel's clip path, unique on the page.
void draw_panel(Svg& svg, const Box& box, const std::string& clip_id, const Chart& chart);
void draw_panel(Svg& svg, const Box& box, const std::string& clip_id, const HeatMap& map);

/// What a panel needs beyond the usual height, so that a long legend does not press its plot.
double extra_height(const Chart& chart, double width);
inline double extra_height(const HeatMap& /*map*/, double /*width*/) { return 0; }

}  // namespace kvcast::report
