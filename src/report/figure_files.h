#pragma once

#include <filesystem>
#include <vector>

#include "kvcast/result.h"
#include "report/chart.h"

namespace kvcast::report {

/// Makes `directory` and its parents if they are not there.
Status make_directory(const std::filesystem::path& directory);

/// Writes DIRECTORY/ID.svg for every figure, each file whole or not at all.
Status write_svg_files(const std::vector<Figure>& figures, const std::filesystem::path& directory);

/// Makes DIRECTORY/ID.png from the SVG files that write_svg_files wrote, through the program
/// rsvg-convert (Debian: librsvg2-bin). An error if it is not installed or fails.
Status write_png_files(const std::vector<Figure>& figures, const std::filesystem::path& directory);

}  // namespace kvcast::report
