// What a report consists of: sections of tables and figures, made from results.
#pragma once

#include <string>
#include <vector>

#include "report/chart.h"
#include "report/quality.h"
#include "report/results.h"
#include "report/table.h"

namespace kvcast::report {

struct NamedTable {
  std::string id;  ///< file name without extension; unique in a report
  std::string title;
  std::string note;  ///< below the table; may be empty
  Table table;
};

struct Section {
  std::string title;
  std::string text;  ///< paragraphs, separated by empty lines
  std::vector<NamedTable> tables;
  std::vector<Figure> figures;
};

/// Whatever there are results for, in the order of a paper: quality, its price, speed, analysis,
/// training.
std::vector<Section> make_sections(const Results& results);

/// "20.7 [20.0, 21.4]"; without an interval just the value.
std::string estimate_cell(const Estimate& estimate, int decimals);
/// "–" for what is not finite.
std::string number_cell(double value, int decimals);
/// A name that is safe as a file name and an id: lower case, words joined by '-'.
std::string slug(const std::string& text);

// ---- the parts ----

std::vector<Section> quality_sections(const std::vector<Comparison>& comparisons);
std::vector<Section> speed_sections(const std::vector<BenchRun>& runs);

/// Tables of a comparison (quality_tables.cpp).
NamedTable quality_table(const Comparison& comparison);
NamedTable cost_table(const Comparison& comparison);
/// Multiple choice, one column for each task and their mean; needs comparisons with one base.
std::vector<NamedTable> multiple_choice_tables(const std::vector<Comparison>& comparisons);
/// At each predicted point's cost, what the other methods reach within it; empty without both.
std::vector<NamedTable> equal_cost_tables(const Comparison& comparison);
/// Bundles with the same base and the same size of auxiliary, trained differently.
std::vector<NamedTable> ablation_tables(const Comparison& comparison);
/// Which points no other one beats.
std::string frontier_statement(const Comparison& comparison, Cost cost);

/// Quality against cost, with the frontier (quality_figures.cpp); no panel: too few points.
Figure pareto_figure(const Comparison& comparison);
/// Total time against answer tokens; no panel: not measured.
Figure total_time_figure(const Comparison& comparison);

}  // namespace kvcast::report
