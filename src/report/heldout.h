// What `kvcast-train heldout` prints: suffix likelihoods of many bundles over the same windows.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "io/json.h"
#include "kvcast/result.h"
#include "report/table.h"

namespace kvcast::report {

struct HeldoutRow {
  std::string model;
  /// By how the prefix was read (`exact`, `auxiliary`, a strategy's spec): nats a token.
  std::map<std::string, double> suffix_nll, standard_error;
  std::map<std::string, double> gap_closed;  ///< by the strategy's spec, a share
};

struct Heldout {
  std::string source;
  int64_t windows = 0, prefix_tokens = 0, suffix_tokens = 0;
  std::string alone;     ///< the model whose likelihood closes nothing of the gap; may be empty
  double alone_nll = 0;  ///< 0 without one
  std::vector<HeldoutRow> rows;
};

Result<Heldout> parse_heldout(const Json& json, const std::string& where);

/// One row for each bundle, best first: its likelihoods and how much of the gap to exact they
/// close.
Table to_table(const Heldout& heldout);

}  // namespace kvcast::report
