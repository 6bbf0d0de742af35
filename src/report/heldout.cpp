#include "report/heldout.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/macros.h"
#include "report/json_values.h"

namespace kvcast::report {
namespace {

constexpr int64_t kMost = int64_t{1} << 50;

std::string last_part(const std::string& path) {
  const auto normal = (std::filesystem::path(path) / "").lexically_normal().parent_path();
  return normal.filename().empty() ? path : normal.filename().string();
}

Result<HeldoutRow> parse_row(const Json& json, const std::string& where) {
  if (!json.is_object()) return fail(fmt::format("{}: expected an object", where));
  HeldoutRow row;
  KVCAST_TRY(row.model, JsonFields(json, where).string("model"));
  KVCAST_TRY(const Json* nlls, object_at(json, "suffix_nll", where));
  const std::string inside = where + ": key \"suffix_nll\"";
  for (const auto& [reader, unused] : nlls->items()) {
    KVCAST_TRY(const Json* score, object_at(*nlls, reader, inside));
    const std::string in_score = fmt::format("{}: key \"{}\"", inside, reader);
    KVCAST_TRY(row.suffix_nll[reader], number_or_nan(*score, "value", in_score));
    KVCAST_TRY(row.standard_error[reader], number_or_nan(*score, "standard_error", in_score));
  }
  if (!json.contains("share_of_gap_closed")) return row;
  KVCAST_TRY(const Json* shares, object_at(json, "share_of_gap_closed", where));
  for (const auto& [reader, unused] : shares->items()) {
    KVCAST_TRY(row.gap_closed[reader],
               number_or_nan(*shares, reader, where + ": key \"share_of_gap_closed\""));
  }
  return row;
}

double best_share(const HeldoutRow& row) {
  double best = -INFINITY;
  for (const auto& [reader, share] : row.gap_closed) {
    if (std::isfinite(share)) best = std::max(best, share);
  }
  return best;
}

}  // namespace

Result<Heldout> parse_heldout(const Json& json, const std::string& where) {
  const JsonFields fields(json, where);
  Heldout heldout;
  heldout.source = where;
  KVCAST_TRY(heldout.windows, fields.integer("windows", 1, kMost));
  KVCAST_TRY(heldout.prefix_tokens, fields.integer("prefix_tokens", 1, kMost));
  KVCAST_TRY(heldout.suffix_tokens, fields.integer("suffix_tokens", 1, kMost));
  if (json.contains("alone")) {
    KVCAST_TRY(const Json* alone, object_at(json, "alone", where));
    const std::string inside = where + ": key \"alone\"";
    KVCAST_TRY(heldout.alone, JsonFields(*alone, inside).string("model"));
    KVCAST_TRY(heldout.alone_nll, number_or_nan(*alone, "suffix_nll", inside));
  }
  KVCAST_TRY(const Json* rows, list_at(json, "results", where));
  for (const Json& row : *rows) {
    KVCAST_TRY(auto parsed, parse_row(row, fmt::format("{}: key \"results\" entry {}", where,
                                                       heldout.rows.size())));
    heldout.rows.push_back(std::move(parsed));
  }
  return heldout;
}

Table to_table(const Heldout& heldout) {
  std::set<std::string> readers;
  for (const HeldoutRow& row : heldout.rows) {
    for (const auto& [reader, share] : row.gap_closed) readers.insert(reader);
  }
  Table table;
  table.headers = {"model", "exact", "its auxiliary"};
  for (const std::string& reader : readers) {
    table.headers.insert(table.headers.end(), {reader, "gap closed (%)"});
  }
  std::vector<const HeldoutRow*> rows;
  for (const HeldoutRow& row : heldout.rows) rows.push_back(&row);
  std::ranges::stable_sort(rows, std::greater(),
                           [](const HeldoutRow* row) { return best_share(*row); });
  for (const HeldoutRow* row : rows) {
    const auto nll = [&](const std::string& reader) -> std::string {
      const auto found = row->suffix_nll.find(reader);
      if (found == row->suffix_nll.end() || !std::isfinite(found->second)) return "–";
      return fmt::format("{:.3f} ± {:.3f}", found->second, row->standard_error.at(reader));
    };
    std::vector<std::string> cells = {last_part(row->model), nll("exact"), nll("auxiliary")};
    for (const std::string& reader : readers) {
      const auto share = row->gap_closed.find(reader);
      cells.push_back(nll(reader));
      cells.push_back(share == row->gap_closed.end() || !std::isfinite(share->second)
                          ? "–"
                          : fmt::format("{:.1f}", 100 * share->second));
    }
    table.rows.push_back(std::move(cells));
  }
  return table;
}

}  // namespace kvcast::report
