#include "prefill/refine.h"

#include <algorithm>

namespace kvcast {
namespace {

/// Enough for the weights' traffic to be small beside the arithmetic, few enough to be interrupted.
constexpr int64_t kRowsAlone = 64;

}  // namespace

int64_t inexact_rows(const Sequence& sequence) {
  const KVCache& cache = sequence.base;
  const bool whole = cache.rows_in_first(cache.n_layers()) == cache.next_position();
  return whole ? cache.next_position() - cache.exact_rows() : 0;
}

bool decode_and_refine(const Models& models, std::span<Sequence* const> sequences,
                       std::span<const RefineBlock> blocks, float* logits,
                       PrefillWorkspace& prefill_workspace, const std::stop_token& stop) {
  const Transformer& base = *models.base;
  Workspace& workspace = prefill_workspace.base;
  std::vector<SequenceRows> rows;
  std::vector<int32_t> tokens;
  int64_t outputs = 0;
  const auto add = [&](Sequence& sequence, const SequenceRows& added) {
    const auto first = sequence.tokens.begin() + added.first_position();
    tokens.insert(tokens.end(), first, first + added.rows);
    rows.push_back(added);
    outputs += added.outputs;
  };
  for (Sequence* sequence : sequences) {
    sequence->base.reserve(static_cast<int64_t>(sequence->tokens.size()));
    add(*sequence, {.cache = &sequence->base, .rows = sequence->pending_tokens()});
  }
  for (const RefineBlock& block : blocks) {
    add(*block.sequence, {.cache = &block.sequence->base,
                          .rows = block.rows,
                          .overwrites = true,
                          .outputs = block.outputs});
  }
  const auto dim = static_cast<size_t>(base.config().model_dim);
  float* hidden = workspace.rows.ensure(tokens.size() * dim);
  base.embed(tokens, hidden);
  RunLayersOptions options;
  options.last = base.config().n_layers();
  options.output = outputs == 0 ? LastLayerOutput::kNothing : LastLayerOutput::kLastRows;
  options.stop = stop;
  if (!base.run_layers(hidden, rows, options, workspace)) {
    for (Sequence* sequence : sequences) sequence->base.truncate(sequence->base.next_position());
    return false;
  }
  // Blocks first: a decode row over nothing but exact rows is exact.
  for (const RefineBlock& block : blocks) block.sequence->base.make_exact(block.rows);
  for (size_t s = 0; s < sequences.size(); ++s) sequences[s]->base.advance(rows[s].rows);
  if (outputs > 0) base.logits(hidden, outputs, logits, workspace);
  return true;
}

int64_t refine_alone(const Models& models, Sequence& sequence, PrefillWorkspace& workspace,
                     const std::stop_token& stop, const std::function<bool()>& go_on) {
  int64_t refined = 0;
  for (int64_t left = inexact_rows(sequence); left > 0 && go_on(); left = inexact_rows(sequence)) {
    const RefineBlock block[] = {{.sequence = &sequence, .rows = std::min(left, kRowsAlone)}};
    if (!decode_and_refine(models, {}, block, nullptr, workspace, stop)) break;
    refined += block[0].rows;
  }
  return refined;
}

}  // namespace kvcast
