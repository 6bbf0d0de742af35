// Time to first token as `kvcast bench` measured it: the paper's Figures 1 and 5b, and a table.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "report/sections.h"

namespace kvcast::report {
namespace {

/// Rows of one run with the same model and dtype.
struct Subject {
  const BenchRun* run = nullptr;
  std::string arch, dtype;
  std::vector<const BenchRow*> rows;

  [[nodiscard]] std::set<int64_t> batches() const {
    std::set<int64_t> found;
    for (const BenchRow* row : rows) found.insert(row->batch);
    return found;
  }
  [[nodiscard]] std::vector<std::string> strategies() const {
    std::vector<std::string> found;
    for (const BenchRow* row : rows) {
      if (std::ranges::find(found, row->prefill) == found.end()) found.push_back(row->prefill);
    }
    return found;
  }
  /// What no other subject of the report is called.
  [[nodiscard]] std::string name() const {
    std::string text = fmt::format("{}, {}", arch, dtype);
    if (!run->isa.empty()) text += ", " + run->isa;
    return text;
  }
  [[nodiscard]] std::string conditions() const {
    return fmt::format("{}{}{}; medians, bars from the 10% to the 90% quantile; all in one run{}.",
                       name(), run->threads > 0 ? fmt::format(", {} threads", run->threads) : "",
                       run->machine.empty() ? "" : ", " + run->machine,
                       run->commit.empty() ? "" : ", commit " + run->commit);
  }
};

std::vector<Subject> subjects_of(const std::vector<BenchRun>& runs) {
  std::vector<Subject> subjects;
  for (const BenchRun& run : runs) {
    const size_t first = subjects.size();
    for (const BenchRow& row : run.rows) {
      auto found = std::find_if(
          subjects.begin() + static_cast<std::ptrdiff_t>(first), subjects.end(),
          [&](const Subject& s) { return s.arch == row.arch && s.dtype == row.dtype; });
      if (found == subjects.end()) {
        subjects.push_back({&run, row.arch, row.dtype, {}});
        found = subjects.end() - 1;
      }
      found->rows.push_back(&row);
    }
  }
  return subjects;
}

const BenchRow* find(const Subject& subject, const std::string& prefill, int64_t batch,
                     int64_t tokens) {
  for (const BenchRow* row : subject.rows) {
    if (row->prefill == prefill && row->batch == batch && row->prompt_tokens == tokens) return row;
  }
  return nullptr;
}

Axis prompt_axis(const Subject& subject) {
  std::set<double> lengths;
  for (const BenchRow* row : subject.rows) lengths.insert(static_cast<double>(row->prompt_tokens));
  return {.label = "prompt (tokens)", .log = true, .ticks = {lengths.begin(), lengths.end()}};
}

/// `value` of each row of one strategy and batch, over prompt length; empty name: no legend.
template <typename Value>
Series over_prompts(const Subject& subject, std::string name, const std::string& prefill,
                    int64_t batch, int style, Value value) {
  Series series{.name = std::move(name), .style = style};
  for (const BenchRow* row : subject.rows) {
    if (row->prefill == prefill && row->batch == batch) series.points.push_back(value(*row));
  }
  std::ranges::sort(series.points, {}, &Point::x);
  return series;
}

Point ttft_point(const BenchRow& row) {
  return {.x = static_cast<double>(row.prompt_tokens),
          .y = row.ttft_ms.median,
          .low = row.ttft_ms.p10,
          .high = row.ttft_ms.p90};
}

double step_ms(const BenchRow& row) {
  return row.decode_tokens_per_s > 0
             ? 1000.0 * static_cast<double>(row.batch) / row.decode_tokens_per_s
             : NAN;
}

bool has_several_lengths(const Subject& subject) { return prompt_axis(subject).ticks.size() > 1; }

/// The paper's Figure 5b: each strategy's TTFT over prompt length, a panel for each batch.
Figure by_prompt(const Subject& subject, const std::string& id) {
  Figure figure{.id = "ttft-" + id,
                .caption = "Time to first token against prompt length. " + subject.conditions(),
                .panels = {}};
  for (const int64_t batch : subject.batches()) {
    Chart chart{.title = fmt::format("Batch {}", batch),
                .x = prompt_axis(subject),
                .y = {.label = "TTFT (ms)", .log = true}};
    int style = 0;
    for (const std::string& prefill : subject.strategies()) {
      chart.series.push_back(over_prompts(subject, prefill, prefill, batch, style++, ttft_point));
    }
    figure.panels.emplace_back(std::move(chart));
  }
  return figure;
}

/// The paper's Figure 1: how long the first token takes under exact, and in generation steps.
Figure in_steps(const Subject& subject, const std::string& id) {
  Chart absolute{.title = "TTFT of exact prefill",
                 .x = prompt_axis(subject),
                 .y = {.label = "TTFT (ms)", .log = true}};
  Chart relative{.title = "TTFT over one generation step",
                 .x = prompt_axis(subject),
                 .y = {.label = "TTFT / time of a step", .log = true}};
  int style = 0;
  for (const int64_t batch : subject.batches()) {
    const std::string name = fmt::format("batch {}", batch);
    absolute.series.push_back(over_prompts(subject, name, "exact", batch, style, ttft_point));
    relative.series.push_back(
        over_prompts(subject, name, "exact", batch, style++, [](const BenchRow& row) {
          return Point{.x = static_cast<double>(row.prompt_tokens),
                       .y = row.ttft_ms.median / step_ms(row)};
        }));
  }
  return {
      .id = "ttft-in-steps-" + id,
      .caption = "What waiting for the first token costs, and how many generation steps that is. " +
                 subject.conditions(),
      .panels = {absolute, relative}};
}

bool has_steps(const Subject& subject) {
  return std::ranges::any_of(subject.rows, [](const BenchRow* row) {
    return row->prefill == "exact" && std::isfinite(step_ms(*row));
  });
}

NamedTable speed_table(const Subject& subject, const std::string& id) {
  NamedTable named{
      .id = "ttft-" + id,
      .title = "Time to first token (ms): " + subject.name(),
      .note = "÷: exact's TTFT over this one's, within the run. " + subject.conditions(),
      .table = {}};
  const auto strategies = subject.strategies();
  const bool with_exact = std::ranges::find(strategies, "exact") != strategies.end();
  named.table.text_columns = 0;
  named.table.headers = {"batch", "prompt"};
  for (const std::string& prefill : strategies) {
    named.table.headers.push_back(prefill);
    if (with_exact && prefill != "exact") named.table.headers.emplace_back("÷");
  }
  named.table.headers.emplace_back("step ms");
  std::set<std::pair<int64_t, int64_t>> cases;
  for (const BenchRow* row : subject.rows) cases.emplace(row->batch, row->prompt_tokens);
  for (const auto& [batch, tokens] : cases) {
    std::vector<std::string> cells = {std::to_string(batch), with_thousands(tokens)};
    const BenchRow* exact = find(subject, "exact", batch, tokens);
    for (const std::string& prefill : strategies) {
      const BenchRow* row = find(subject, prefill, batch, tokens);
      cells.push_back(number_cell(row ? row->ttft_ms.median : NAN, 2));
      if (with_exact && prefill != "exact") {
        cells.push_back(
            number_cell(row && exact ? exact->ttft_ms.median / row->ttft_ms.median : NAN, 2));
      }
    }
    const BenchRow* any = exact ? exact : subject.rows.front();
    cells.push_back(number_cell(step_ms(*any), 2));
    named.table.rows.push_back(std::move(cells));
  }
  return named;
}

}  // namespace

std::vector<Section> speed_sections(const std::vector<BenchRun>& runs) {
  Section section{.title = "Time to first token", .text = {}, .tables = {}, .figures = {}};
  std::set<std::string> ids;
  for (const Subject& subject : subjects_of(runs)) {
    std::string id = slug(subject.name());
    for (int next = 2; !ids.insert(id).second; ++next) {
      id = fmt::format("{}-{}", slug(subject.name()), next);
    }
    section.tables.push_back(speed_table(subject, id));
    if (!has_several_lengths(subject)) continue;
    section.figures.push_back(by_prompt(subject, id));
    if (has_steps(subject)) section.figures.push_back(in_steps(subject, id));
  }
  if (section.tables.empty()) return {};
  return {std::move(section)};
}

}  // namespace kvcast::report
