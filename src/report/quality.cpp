#include "report/quality.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <tuple>

namespace kvcast::report {
namespace {

constexpr std::string_view kPredicted = "kv-prediction";

/// "KVP-C-10M ours" -> {"KVP-C-10M", "ours"}: the variant is what follows the first space.
std::pair<std::string, std::string> split_label(const std::string& label) {
  const auto space = label.find(' ');
  if (space == std::string::npos) return {label, {}};
  return {label.substr(0, space), label.substr(space + 1)};
}

std::string with_variant(std::string method, const std::string& variant) {
  return variant.empty() ? method : fmt::format("{} ({})", method, variant);
}

/// `spec` without `prefix` and ':'; empty if it does not begin so.
std::string after(const std::string& spec, std::string_view prefix) {
  if (!spec.starts_with(prefix) || spec.size() <= prefix.size()) return {};
  return spec.substr(prefix.size() + 1);
}

void name_entry(Entry& entry, const EvalResult& result, int64_t base_parameters) {
  const auto [model, variant] = split_label(result.label);
  const std::string& spec = result.prefill;
  if (spec == "exact") {
    const bool is_base = !result.is_plain() || result.base_parameters == base_parameters;
    entry.method = is_base ? "exact" : with_variant("alone", variant);
    entry.name = is_base ? "exact" : model;
  } else if (spec.starts_with(kPredicted)) {
    const std::string tail = after(spec, kPredicted);  // "tail=16"
    entry.method = with_variant("KV prediction", variant);
    if (tail.starts_with("tail=")) entry.method += ", tail " + tail.substr(5);
    entry.name = model;
  } else if (spec == "auxiliary") {
    entry.method = with_variant("its auxiliary alone", variant);
    entry.name = model;
  } else if (spec.starts_with("random")) {
    entry.method = "random tokens (RP)";
    entry.name = after(spec, "random");
  } else if (spec.starts_with("static")) {
    entry.method = "static pruning (SP)";
    entry.name = after(spec, "static");
  } else if (spec.starts_with("lazy")) {
    entry.method = "LazyLLM";
    entry.name = after(spec, "lazy");
  } else {
    entry.method = spec;
    entry.name = model;
  }
  if (result.scoring == "predicted") entry.method += ", predicted scoring";
}

/// TTFT under exact in the file that `result` is from; NaN if it is not there.
double exact_ttft(const EvalResult& result, const std::vector<EvalResult>& all) {
  for (const EvalResult& other : all) {
    if (other.source == result.source && other.task == result.task && other.prefill == "exact" &&
        other.length == result.length) {
      return other.ttft_ms.median;
    }
  }
  return NAN;
}

struct GroupKey {
  int64_t base_parameters;
  std::string base_hash, task;
  int64_t length, shots;
  auto operator<=>(const GroupKey&) const = default;
};

int64_t method_rank(const std::string& method) {
  static constexpr std::array<std::string_view, 7> kOrder = {
      "exact", "KV prediction", "alone", "its auxiliary", "LazyLLM", "static", "random"};
  return std::ranges::find_if(kOrder,
                              [&](std::string_view prefix) { return method.starts_with(prefix); }) -
         kOrder.begin();
}

Entry make_entry(const EvalResult& result, const std::vector<EvalResult>& all,
                 const GroupKey& group, const TaskStyle& style) {
  Entry entry{.result = &result, .method = {}, .name = {}, .quality = {}};
  name_entry(entry, result, group.base_parameters);
  const Estimate& metric = result.metrics.at(style.metric);
  entry.quality = {metric.value * style.scale, metric.low * style.scale, metric.high * style.scale};
  entry.flops_share_paper = 1 / result.reduction_paper;
  entry.flops_share = 1 / result.reduction_exact;
  entry.ttft_share = result.ttft_ms.median / exact_ttft(result, all);
  if (result.is_plain() &&
      !entry.is_exact()) {  // its own reductions are over its own exact prefill
    entry.flops_share_paper = static_cast<double>(result.base_parameters) /
                              static_cast<double>(group.base_parameters) / result.reduction_paper;
    entry.flops_share = NAN;
    entry.ttft_share = NAN;  // known once exact is
  }
  return entry;
}

void finish(Comparison& comparison) {
  auto& entries = comparison.entries;
  std::ranges::stable_sort(entries, {}, [](const Entry& entry) {
    const double cost = cost_of(entry, Cost::kFlops);
    return std::tuple(method_rank(entry.method), entry.method, std::isfinite(cost) ? cost : 0.0);
  });
  // Every bundle reports the exact base again.
  const auto not_exact =
      std::ranges::find_if(entries, [](const Entry& e) { return !e.is_exact(); });
  if (not_exact - entries.begin() > 1) entries.erase(entries.begin() + 1, not_exact);
  if (const Entry* exact = comparison.exact()) {
    for (Entry& entry : entries) {
      if (entry.result->is_plain() && !entry.is_exact()) {
        entry.ttft_share = entry.result->ttft_ms.median / exact->result->ttft_ms.median;
      }
    }
  }
}

}  // namespace

std::string short_parameters(int64_t parameters) {
  const auto p = static_cast<double>(parameters);
  if (p >= 1e9) return fmt::format("{:.1f}B", p / 1e9);
  if (p >= 1e7) return fmt::format("{:.0f}M", p / 1e6);
  return fmt::format("{:.1f}M", p / 1e6);
}

TaskStyle task_style(const EvalResult& result) {
  const std::string& task = result.task;
  const auto has = [&](const char* metric) { return result.metrics.contains(metric); };
  if (task == "nll" && has("nll")) {
    return {.name = "Held-out text", .metric = "nll", .higher_is_better = false};
  }
  const std::map<std::string, std::string> names = {
      {"triviaqa", "TriviaQA"},   {"humaneval", "HumanEval"}, {"arc_challenge", "ARC-c"},
      {"arc_easy", "ARC-e"},      {"boolq", "BoolQ"},         {"hellaswag", "HellaSwag"},
      {"piqa", "PIQA"},           {"sciq", "SciQ"},           {"winogrande", "WinoGrande"},
      {"next_line", "Next line"}, {"passkey", "Passkey"},     {"recall", "Recall"},
      {"agreement", "Agreement"}};
  const auto known = names.find(task);
  TaskStyle style{.name = known == names.end() ? task : known->second, .metric = {}, .scale = 100};
  const bool yes_no = task == "boolq" || task == "winogrande";  // length says nothing there
  if (has("acc_norm") && !yes_no) return style.metric = "acc_norm", style;
  for (const char* metric : {"acc", "agreement", "exact_match", "pass@1", "edit_similarity"}) {
    if (has(metric)) return style.metric = metric, style;
  }
  style.metric = result.metrics.begin()->first;
  style.scale = 1;
  style.higher_is_better = style.metric != "nll" && style.metric != "kl";
  return style;
}

std::string metric_label(const TaskStyle& style) {
  if (style.metric == "nll") return "negative log-likelihood (nats/token)";
  if (style.metric == "acc") return "accuracy (%)";
  if (style.metric == "acc_norm") return "length-normalised accuracy (%)";
  if (style.metric == "exact_match") return "exact match (%)";
  return style.scale == 100 ? style.metric + " (%)" : style.metric;
}

double cost_of(const Entry& entry, Cost cost) {
  if (entry.is_control()) return NAN;
  if (cost == Cost::kTtft) return entry.ttft_share;
  return std::isfinite(entry.flops_share) ? entry.flops_share : entry.flops_share_paper;
}

std::vector<Comparison> compare(const std::vector<EvalResult>& results) {
  std::map<GroupKey, std::vector<const EvalResult*>> groups;
  const auto key_of = [](const EvalResult& r) {
    return GroupKey{r.base_parameters, r.base_hash, r.task, r.length, r.shots};
  };
  for (const EvalResult& result : results) {
    if (!result.is_plain()) groups[key_of(result)].push_back(&result);
  }
  for (const EvalResult& result : results) {
    if (!result.is_plain()) continue;
    bool belongs = false;
    for (auto& [key, group] : groups) {
      if (key.task != result.task || key.length != result.length || key.shots != result.shots)
        continue;
      if (group.front()->is_plain()) continue;
      const bool same_size = result.base_parameters == key.base_parameters;
      const bool is_base = same_size && result.base_hash == key.base_hash;
      if (is_base || result.base_parameters < key.base_parameters) {
        group.push_back(&result);
        belongs = true;
      }
    }
    if (!belongs) groups[key_of(result)].push_back(&result);
  }
  std::vector<Comparison> comparisons;
  for (const auto& [key, group] : groups) {
    Comparison comparison{.base = "base " + short_parameters(key.base_parameters),
                          .task = key.task,
                          .length = key.length,
                          .style = task_style(*group.front()),
                          .entries = {}};
    for (const EvalResult* result : group) {
      if (!result->metrics.contains(comparison.style.metric)) continue;
      comparison.entries.push_back(make_entry(*result, results, key, comparison.style));
    }
    finish(comparison);
    comparisons.push_back(std::move(comparison));
  }
  return comparisons;
}

}  // namespace kvcast::report
