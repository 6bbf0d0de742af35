#include "report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "report/panel.h"

namespace kvcast::report {
namespace {

constexpr double kPadding = 14;
constexpr double kPanelGap = 18;
/// A single panel has the shape of a text column's figure; several share the width of a page.
constexpr double kSinglePanelWidth = 640, kSinglePanelHeight = 400;
constexpr double kPanelWidth = 470, kPanelHeight = 370;
constexpr size_t kPanelsInRow = 2;

}  // namespace

std::string to_svg(const Figure& figure) {
  const bool single = figure.panels.size() == 1;
  const double width = single ? kSinglePanelWidth : kPanelWidth;
  double extra = 0;
  for (const auto& panel : figure.panels) {
    extra =
        std::max(extra, std::visit([&](const auto& p) { return extra_height(p, width); }, panel));
  }
  const double height = (single ? kSinglePanelHeight : kPanelHeight) + extra;
  const size_t columns = std::min(figure.panels.size(), kPanelsInRow);
  const size_t rows = (figure.panels.size() + kPanelsInRow - 1) / kPanelsInRow;
  Svg svg(2 * kPadding + static_cast<double>(columns) * (width + kPanelGap) - kPanelGap,
          2 * kPadding + static_cast<double>(rows) * (height + kPanelGap) - kPanelGap,
          figure.caption.empty() ? figure.id : figure.caption);
  for (size_t i = 0; i < figure.panels.size(); ++i) {
    const double left = kPadding + static_cast<double>(i % kPanelsInRow) * (width + kPanelGap);
    const double top = kPadding + static_cast<double>(i / kPanelsInRow) * (height + kPanelGap);
    const Box box{left, top, left + width, top + height};
    const std::string id = fmt::format("clip-{}-{}", figure.id, i);
    std::visit([&](const auto& panel) { draw_panel(svg, box, id, panel); }, figure.panels[i]);
  }
  return svg.finish();
}

}  // namespace kvcast::report
