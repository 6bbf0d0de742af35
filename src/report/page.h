// A report as files: figures, tables, a Markdown document and one HTML page that needs nothing
// else.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "report/sections.h"

namespace kvcast::report {

struct Report {
  std::string title;
  std::string made_by;  ///< one line: program, commit
  std::vector<Section> sections;
  std::vector<std::string> notes;  ///< what the reader should know about the inputs
};

/// Everything in one file: tables, SVG, style; asks for nothing from anywhere.
std::string to_html(const Report& report);
/// Tables as Markdown; figures by their file names.
std::string to_markdown(const Report& report);

/// DIRECTORY/index.html, report.md, figures/ID.svg, tables/ID.csv; `png`: figures/ID.png too.
Status write_report(const Report& report, const std::filesystem::path& directory, bool png);

}  // namespace kvcast::report
