#include "report/sections.h"

#include <fmt/format.h>

#include <algorithm>

namespace kvcast::report {
namespace {

bool is_multiple_choice(const Comparison& comparison) {
  return comparison.style.metric == "acc" || comparison.style.metric == "acc_norm";
}

void add_frontier(const Comparison& comparison, Section& section) {
  Figure pareto = pareto_figure(comparison);
  if (pareto.panels.empty()) return;
  section.figures.push_back(std::move(pareto));
  for (const Cost cost : {Cost::kFlops, Cost::kTtft}) {
    const std::string statement = frontier_statement(comparison, cost);
    if (!statement.empty()) section.text += (section.text.empty() ? "" : "\n\n") + statement;
  }
}

Section analysis_section(const Analysis& analysis) {
  const std::string id = slug(analysis.label + " " + analysis.dtype);
  Section section{
      .title = "The predicted cache: " + analysis.label,
      .text = {},
      .tables = {{.id = "cache-" + id,
                  .title = "Predicted keys and values against exact ones, by layer",
                  .note = "L1: mean |predicted − exact|; relative: over mean |exact|; mean / σ: "
                          "of predicted − exact; cosine: of attention outputs.",
                  .table = to_table(analysis)}},
      .figures = to_figures(analysis)};
  for (Figure& figure : section.figures) figure.id += "-" + id;
  return section;
}

Section training_section(const std::vector<TrainingLog>& logs) {
  Section section{.title = "Training", .text = {}, .tables = {}, .figures = {}};
  int number = 1;
  for (const auto& runs : comparable_runs(logs)) {
    const std::string id = number == 1 ? "training" : fmt::format("training-{}", number);
    ++number;
    section.tables.push_back(
        {.id = id,
         .title = "Runs and their losses at the end",
         .note = "Losses: mean of the last 5% of the log's lines. Throughput: medians.",
         .table = training_table(runs)});
    auto figures = training_figures(runs, "loss-" + id);
    section.figures.insert(section.figures.end(), std::make_move_iterator(figures.begin()),
                           std::make_move_iterator(figures.end()));
  }
  return section;
}

Section heldout_section(const std::vector<Heldout>& heldouts) {
  Section section{
      .title = "Held-out likelihood after training", .text = {}, .tables = {}, .figures = {}};
  for (size_t i = 0; i < heldouts.size(); ++i) {
    const Heldout& heldout = heldouts[i];
    section.tables.push_back(
        {.id = fmt::format("held-out-{}", i + 1),
         .title =
             fmt::format("{} windows: {} tokens read, the next {} scored (nats/token ± standard "
                         "error)",
                         heldout.windows, heldout.prefix_tokens, heldout.suffix_tokens),
         .note = heldout.alone.empty()
                     ? "Gap closed: from the bundle's own auxiliary (0%) to exact (100%)."
                     : fmt::format("Gap closed: from {} ({:.3f}) as 0% to exact as 100%.",
                                   heldout.alone, heldout.alone_nll),
         .table = to_table(heldout)});
  }
  return section;
}

}  // namespace

std::vector<Section> quality_sections(const std::vector<Comparison>& comparisons) {
  Section choice{.title = "Multiple choice",
                 .text = {},
                 .tables = multiple_choice_tables(comparisons),
                 .figures = {}};
  Section price{.title = "Total time and memory", .text = {}, .tables = {}, .figures = {}};
  std::vector<Section> sections;
  for (const Comparison& comparison : comparisons) {
    if (comparison.entries.empty()) continue;
    Section section{.title = fmt::format("{}, {}", comparison.style.name, comparison.base),
                    .text = {},
                    .tables = {},
                    .figures = {}};
    if (comparison.length > 0) section.title += fmt::format(", length {}", comparison.length);
    add_frontier(comparison, section);
    section.tables.push_back(quality_table(comparison));
    for (auto& table : equal_cost_tables(comparison)) section.tables.push_back(std::move(table));
    for (auto& table : ablation_tables(comparison)) section.tables.push_back(std::move(table));
    if (is_multiple_choice(comparison)) {
      for (Figure& figure : section.figures) choice.figures.push_back(std::move(figure));
      choice.text += (choice.text.empty() || section.text.empty() ? "" : "\n\n") + section.text;
    } else {
      sections.push_back(std::move(section));
    }
    NamedTable costs = cost_table(comparison);
    if (costs.table.rows.empty()) continue;
    price.tables.push_back(std::move(costs));
    Figure figure = total_time_figure(comparison);
    if (!figure.panels.empty()) price.figures.push_back(std::move(figure));
  }
  if (!choice.tables.empty()) sections.push_back(std::move(choice));
  if (!price.tables.empty()) sections.push_back(std::move(price));
  return sections;
}

std::vector<Section> make_sections(const Results& results) {
  std::vector<Section> sections = quality_sections(compare(results.evals));
  for (auto& section : speed_sections(results.benches)) sections.push_back(std::move(section));
  for (const Analysis& analysis : results.analyses) sections.push_back(analysis_section(analysis));
  if (!results.heldouts.empty()) sections.push_back(heldout_section(results.heldouts));
  if (!results.logs.empty()) sections.push_back(training_section(results.logs));
  return sections;
}

}  // namespace kvcast::report
