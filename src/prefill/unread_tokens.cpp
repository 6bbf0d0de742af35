#include "prefill/unread_tokens.h"

#include <algorithm>

namespace kvcast {

int64_t reader_layers(const Models& models, double mix) {
  return mix > 0 ? models.auxiliary->config().n_layers() : models.plan.auxiliary_layers();
}

int64_t known_rows(const Models& models, const Sequence& sequence, int64_t layers) {
  const int64_t position = sequence.base.next_position();
  if (!models.auxiliary) return position;
  return std::min(position, sequence.auxiliary.rows_in_first(layers));
}

void drop_incomplete_rows(KVCache& auxiliary) {
  auxiliary.truncate(auxiliary.rows_in_first(auxiliary.n_layers()));
}

RunLayersOptions keys_and_values(int64_t layers, const std::stop_token& stop) {
  RunLayersOptions options;
  options.last = layers;
  options.output = LastLayerOutput::kNothing;
  options.stop = stop;
  return options;
}

TokenPass unread(const Models& models, std::span<Sequence* const> sequences, int64_t layers,
                 int64_t max_rows) {
  TokenPass behind;
  for (Sequence* sequence : sequences) {
    const int64_t start = sequence->base.next_position();
    const int64_t known = known_rows(models, *sequence, layers);
    if (known == start) continue;
    behind.sequences.push_back(sequence);
    behind.ends.push_back(std::min(start, known + max_rows));
  }
  return behind;
}

TokenPass sinks(const Models& models, std::span<Sequence* const> sequences,
                std::span<const int64_t> ends) {
  TokenPass found;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const int64_t end = std::min(ends[s], models.plan.sink_tokens);
    if (sequences[s]->base.next_position() >= end) continue;
    found.sequences.push_back(sequences[s]);
    found.ends.push_back(end);
  }
  return found;
}

bool run_sinks(const Models& models, const TokenPass& sinks, PrefillWorkspace& workspace,
               const std::stop_token& stop) {
  RunLayersOptions options;
  options.stop = stop;
  return run_without_output(*models.base, &Sequence::base, sinks.sequences, sinks.ends, options,
                            workspace.base);
}

bool read_unread(const Models& models, const TokenPass& behind, int64_t layers,
                 PrefillWorkspace& workspace, const std::stop_token& stop) {
  if (behind.sequences.empty()) return true;  // always so without an auxiliary
  for (Sequence* sequence : behind.sequences) {
    sequence->auxiliary.truncate(known_rows(models, *sequence, layers));
  }
  return run_without_output(*models.auxiliary, &Sequence::auxiliary, behind.sequences, behind.ends,
                            keys_and_values(layers, stop), workspace.auxiliary);
}

}  // namespace kvcast
