#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "report/frontier.h"
#include "report/sections.h"

namespace kvcast::report {
namespace {

constexpr std::string_view kPredictedMethod = "KV prediction";

int decimals_of(const TaskStyle& style) { return style.scale == 100 ? 1 : 3; }

std::string reduction_cell(double share) { return number_cell(1 / share, 2); }

std::string title_of(const Comparison& comparison) {
  std::string title = fmt::format("{}, {}", comparison.style.name, comparison.base);
  if (comparison.length > 0) title += fmt::format(", length {}", comparison.length);
  return title;
}

std::string id_of(const Comparison& comparison, const char* what) {
  return slug(fmt::format("{} {} {} {}", what, comparison.task,
                          comparison.length > 0 ? std::to_string(comparison.length) : "",
                          comparison.base));
}

/// Score over exact's; for likelihoods the difference says more.
std::string retention_cell(const Comparison& comparison, const Entry& entry) {
  const Entry* exact = comparison.exact();
  if (exact == nullptr) return "–";
  if (!comparison.style.higher_is_better) {
    return fmt::format("{:+.3f}", entry.quality.value - exact->quality.value);
  }
  return number_cell(100 * entry.quality.value / exact->quality.value, 1);
}

/// Costs and qualities of a method's points. Every method can also run exactly.
std::vector<CostQuality> method_points(const Comparison& comparison, const std::string& method,
                                       Cost cost) {
  std::vector<CostQuality> points;
  for (const Entry& entry : comparison.entries) {
    if (entry.method == method || entry.is_exact()) {
      points.push_back({cost_of(entry, cost), comparison.goodness(entry)});
    }
  }
  return points;
}

/// All but exact and the controls.
std::vector<std::string> methods_of(const Comparison& comparison) {
  std::vector<std::string> methods;
  for (const Entry& entry : comparison.entries) {
    if (entry.is_exact() || entry.is_control()) continue;
    if (std::ranges::find(methods, entry.method) == methods.end()) methods.push_back(entry.method);
  }
  return methods;
}

NamedTable equal_cost_table(const Comparison& comparison, Cost cost) {
  const bool flops = cost == Cost::kFlops;
  NamedTable named{.id = id_of(comparison, flops ? "equal-flops" : "equal-ttft"),
                   .title = fmt::format("{}: at equal {}", title_of(comparison),
                                        flops ? "prefill FLOPs" : "measured TTFT"),
                   .note =
                       "Score and, in brackets, share of exact's. The other methods' scores are "
                       "interpolated on their own frontiers, exact included, to this cost; –: "
                       "none of the method's points is so cheap.",
                   .table = {}};
  if (!comparison.style.higher_is_better) {
    named.note =
        "Lower is better; in brackets the difference from exact. The other methods' values "
        "are interpolated on their own frontiers, exact included, to this cost; –: none of "
        "the method's points is so cheap.";
  }
  const Entry* exact = comparison.exact();
  const auto methods = methods_of(comparison);
  named.table.headers = {"point", flops ? "FLOPs ÷" : "TTFT ÷", "its score"};
  for (const std::string& method : methods) named.table.headers.push_back(method);
  const auto cell = [&](double goodness) {
    const double value = comparison.style.higher_is_better ? goodness : -goodness;
    const int decimals = decimals_of(comparison.style);
    if (exact == nullptr) return number_cell(value, decimals);
    return comparison.style.higher_is_better
               ? fmt::format("{:.{}f} ({:.0f}%)", value, decimals,
                             100 * value / exact->quality.value)
               : fmt::format("{:.{}f} ({:+.3f})", value, decimals, value - exact->quality.value);
  };
  for (const Entry& entry : comparison.entries) {
    const double at = cost_of(entry, cost);
    if (!entry.method.starts_with(kPredictedMethod) || !std::isfinite(at)) continue;
    std::vector<std::string> row = {fmt::format("{}, {}", entry.name, entry.method),
                                    reduction_cell(at), cell(comparison.goodness(entry))};
    for (const std::string& method : methods) {
      const auto quality = quality_at_cost(method_points(comparison, method, cost), at);
      row.push_back(method == entry.method ? "·" : quality ? cell(*quality) : "–");
    }
    named.table.rows.push_back(std::move(row));
  }
  return named;
}

const std::vector<std::string>& multiple_choice_tasks() {
  static const std::vector<std::string> tasks = {
      "arc_challenge", "arc_easy", "boolq", "hellaswag", "piqa", "sciq", "winogrande"};
  return tasks;
}

}  // namespace

std::string number_cell(double value, int decimals) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, decimals) : "–";
}

std::string estimate_cell(const Estimate& estimate, int decimals) {
  std::string text = number_cell(estimate.value, decimals);
  if (std::isfinite(estimate.low) && std::isfinite(estimate.high)) {
    text += fmt::format(" [{:.{}f}, {:.{}f}]", estimate.low, decimals, estimate.high, decimals);
  }
  return text;
}

std::string slug(const std::string& text) {
  std::string id;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    const bool upper = c >= 'A' && c <= 'Z';
    if (plain || upper) {
      id += static_cast<char>(upper ? c - 'A' + 'a' : c);
    } else if (!id.empty() && id.back() != '-') {
      id += '-';
    }
  }
  while (!id.empty() && id.back() == '-') id.pop_back();
  return id.empty() ? "x" : id;
}

NamedTable quality_table(const Comparison& comparison) {
  const TaskStyle& style = comparison.style;
  NamedTable named{
      .id = id_of(comparison, "quality"),
      .title = title_of(comparison),
      .note =
          "Intervals: 95%. FLOPs ÷: exact's prefill over this one's, by the paper's approximation "
          "and by an exact count; TTFT ÷: the same of measured times.",
      .table = {}};
  // Further metrics of the task, in their own columns.
  std::set<std::string> others;
  for (const Entry& entry : comparison.entries) {
    for (const auto& [metric, value] : entry.result->metrics) {
      if (metric != style.metric) others.insert(metric);
    }
  }
  named.table.text_columns = 2;
  named.table.headers = {"method",
                         "model",
                         "FLOPs ÷ (paper)",
                         "FLOPs ÷ (count)",
                         "TTFT ms",
                         "TTFT ÷",
                         metric_label(style),
                         style.higher_is_better ? "% of exact" : "over exact"};
  named.table.headers.insert(named.table.headers.end(), others.begin(), others.end());
  named.table.headers.emplace_back("n");
  for (const Entry& entry : comparison.entries) {
    std::vector<std::string> row = {entry.method,
                                    entry.name,
                                    reduction_cell(entry.flops_share_paper),
                                    reduction_cell(entry.flops_share),
                                    number_cell(entry.result->ttft_ms.median, 2),
                                    reduction_cell(entry.ttft_share),
                                    estimate_cell(entry.quality, decimals_of(style)),
                                    retention_cell(comparison, entry)};
    for (const std::string& metric : others) {
      const auto found = entry.result->metrics.find(metric);
      row.push_back(found == entry.result->metrics.end() ? "–" : estimate_cell(found->second, 3));
    }
    row.push_back(with_thousands(entry.result->n));
    named.table.rows.push_back(std::move(row));
  }
  return named;
}

NamedTable cost_table(const Comparison& comparison) {
  std::set<int64_t> lengths;
  for (const Entry& entry : comparison.entries) {
    for (const auto& [tokens, ms] : entry.result->total_ms) lengths.insert(tokens);
  }
  NamedTable named{.id = id_of(comparison, "total-time"),
                   .title = title_of(comparison) + ": time and memory",
                   .note =
                       "Milliseconds from the prompt to the end of so many answer tokens, batch 1. "
                       "Break-even: answers of this many tokens or more take longer than with the "
                       "bundle's auxiliary alone.",
                   .table = {}};
  named.table.text_columns = 2;
  named.table.headers = {"method", "model", "prompt"};
  for (const int64_t tokens : lengths)
    named.table.headers.push_back(fmt::format("{} tokens", tokens));
  named.table.headers.insert(named.table.headers.end(), {"break-even", "peak memory MB"});
  for (const Entry& entry : comparison.entries) {
    const EvalResult& result = *entry.result;
    if (result.total_ms.empty()) continue;
    std::vector<std::string> row = {entry.method, entry.name, std::to_string(result.prompt_tokens)};
    for (const int64_t tokens : lengths) {
      const auto found = result.total_ms.find(tokens);
      row.push_back(number_cell(found == result.total_ms.end() ? NAN : found->second, 1));
    }
    row.push_back(result.break_even.empty() ? "–" : result.break_even);
    row.push_back(number_cell(result.peak_rss_bytes / 1e6, 0));
    named.table.rows.push_back(std::move(row));
  }
  return named;
}

std::vector<NamedTable> multiple_choice_tables(const std::vector<Comparison>& comparisons) {
  std::map<std::string, std::map<std::string, const Comparison*>> by_base;  // base -> task
  for (const Comparison& comparison : comparisons) {
    const auto& tasks = multiple_choice_tasks();
    if (std::ranges::find(tasks, comparison.task) != tasks.end()) {
      by_base[comparison.base][comparison.task] = &comparison;
    }
  }
  std::vector<NamedTable> tables;
  for (const auto& [base, by_task] : by_base) {
    NamedTable named{
        .id = slug("multiple-choice " + base),
        .title = "Multiple choice, " + base,
        .note =
            "Per cent; the mean is over the tasks in the table and given where a model "
            "was measured on all of them.",
        .table = {}};
    named.table.text_columns = 2;
    named.table.headers = {"method", "model"};
    std::vector<std::pair<std::string, std::string>> names;  // rows, in the order of first sight
    for (const std::string& task : multiple_choice_tasks()) {
      const auto found = by_task.find(task);
      if (found == by_task.end()) continue;
      const TaskStyle& style = found->second->style;
      named.table.headers.push_back(fmt::format("{} ({})", style.name, style.metric));
      for (const Entry& entry : found->second->entries) {
        const std::pair name(entry.method, entry.name);
        if (std::ranges::find(names, name) == names.end()) names.push_back(name);
      }
    }
    named.table.headers.emplace_back("mean");
    for (const auto& [method, model] : names) {
      std::vector<std::string> row = {method, model};
      double sum = 0;
      size_t count = 0;
      for (const std::string& task : multiple_choice_tasks()) {
        const auto found = by_task.find(task);
        if (found == by_task.end()) continue;
        const auto& entries = found->second->entries;
        const auto entry = std::ranges::find_if(
            entries,
            [&, m = method, n = model](const Entry& e) { return e.method == m && e.name == n; });
        row.push_back(entry == entries.end() ? "–" : estimate_cell(entry->quality, 1));
        if (entry == entries.end()) continue;
        sum += entry->quality.value;
        ++count;
      }
      row.push_back(
          number_cell(count == by_task.size() ? sum / static_cast<double>(count) : NAN, 1));
      named.table.rows.push_back(std::move(row));
    }
    tables.push_back(std::move(named));
  }
  return tables;
}

std::vector<NamedTable> equal_cost_tables(const Comparison& comparison) {
  std::vector<NamedTable> tables;
  for (const Cost cost : {Cost::kFlops, Cost::kTtft}) {
    NamedTable named = equal_cost_table(comparison, cost);
    if (named.table.rows.empty() || methods_of(comparison).size() < 2) continue;
    tables.push_back(std::move(named));
  }
  return tables;
}

std::vector<NamedTable> ablation_tables(const Comparison& comparison) {
  std::map<int64_t, std::vector<const Entry*>> by_auxiliary;
  for (const Entry& entry : comparison.entries) {
    if (entry.result->prefill == "kv-prediction") {
      by_auxiliary[entry.result->auxiliary_parameters].push_back(&entry);
    }
  }
  const Entry* exact = comparison.exact();
  std::vector<NamedTable> tables;
  for (auto& [parameters, entries] : by_auxiliary) {
    if (entries.size() < 3) continue;  // two are in the main table, side by side
    const auto alone =
        std::ranges::find_if(comparison.entries, [&, p = parameters](const Entry& e) {
          return e.method.starts_with("alone") && e.result->base_parameters == p;
        });
    std::ranges::stable_sort(entries, std::greater(),
                             [&](const Entry* e) { return comparison.goodness(*e); });
    NamedTable named{
        .id = id_of(comparison, fmt::format("ablation-{}", short_parameters(parameters)).c_str()),
        .title = fmt::format("{}: auxiliary of {}, trained differently", title_of(comparison),
                             short_parameters(parameters)),
        .note =
            "Gap closed: how far from the model of the auxiliary's size alone (0%) to exact "
            "(100%).",
        .table = {}};
    named.table.headers = {"bundle", metric_label(comparison.style), "gap closed (%)"};
    for (const Entry* entry : entries) {
      const bool known = exact != nullptr && alone != comparison.entries.end();
      const double gap = known ? (entry->quality.value - alone->quality.value) /
                                     (exact->quality.value - alone->quality.value)
                               : NAN;
      named.table.rows.push_back({entry->result->label,
                                  estimate_cell(entry->quality, decimals_of(comparison.style)),
                                  number_cell(100 * gap, 1)});
    }
    tables.push_back(std::move(named));
  }
  return tables;
}

std::string frontier_statement(const Comparison& comparison, Cost cost) {
  std::vector<CostQuality> points;
  for (const Entry& entry : comparison.entries) {
    points.push_back({cost_of(entry, cost), comparison.goodness(entry)});
  }
  const auto frontier = pareto_frontier(points);
  std::string on, off;
  for (size_t i = 0; i < points.size(); ++i) {
    if (!std::isfinite(points[i].cost) || !std::isfinite(points[i].quality)) continue;
    const Entry& entry = comparison.entries[i];
    std::string& list = std::ranges::find(frontier, i) != frontier.end() ? on : off;
    list += (list.empty() ? "" : "; ") +
            (entry.is_exact() ? entry.method : fmt::format("{} {}", entry.method, entry.name));
  }
  if (on.empty()) return {};
  return fmt::format("{}: on the frontier of quality against {}: {}. Not on it: {}.",
                     title_of(comparison), cost == Cost::kFlops ? "prefill FLOPs" : "measured TTFT",
                     on, off.empty() ? "none" : off);
}

}  // namespace kvcast::report
