#include "prefill/token_runs.h"

#include <cassert>
#include <utility>

namespace kvcast {

float* run_tokens(const TokenRun& run, Workspace& workspace) {
  std::vector<SequenceRows> rows;
  int64_t total = 0;
  for (size_t s = 0; s < run.sequences.size(); ++s) {
    KVCache& cache = run.sequences[s]->*run.cache;
    const int64_t count = run.ends[s] - cache.next_position();
    assert(count > 0);
    cache.reserve(run.ends[s]);
    rows.push_back({&cache, count});
    total += count;
  }
  const int64_t dim = run.model->config().model_dim;
  float* hidden = workspace.rows.ensure(static_cast<size_t>(total * dim));
  float* next = hidden;
  for (size_t s = 0; s < run.sequences.size(); ++s) {
    const auto first = static_cast<size_t>(rows[s].cache->next_position());
    const std::span<const int32_t> tokens(run.sequences[s]->tokens);
    run.model->embed(tokens.subspan(first, static_cast<size_t>(rows[s].rows)), next);
    next += rows[s].rows * dim;
  }
  RunLayersOptions options = run.options;
  if (options.last == 0) options.last = run.model->config().n_layers();
  if (!run.model->run_layers(hidden, rows, options, workspace)) return nullptr;
  const bool all_layers = options.first == 0 && options.last == run.model->config().n_layers();
  for (const SequenceRows& sequence : rows) {
    if (all_layers) {
      sequence.cache->advance(sequence.rows);
    } else {
      sequence.cache->advance_inexact(sequence.rows);
    }
  }
  return hidden;
}

std::vector<TokenPass> token_passes(CacheMember cache, std::span<Sequence* const> sequences,
                                    std::span<const int64_t> ends, int64_t most_rows) {
  std::vector<TokenPass> passes;
  TokenPass group;
  int64_t group_rows = 0;
  for (size_t s = 0; s < sequences.size(); ++s) {
    Sequence* const sequence = sequences[s];
    const int64_t begin = (sequence->*cache).next_position(), rows = ends[s] - begin;
    const int64_t parts = (rows + most_rows - 1) / most_rows;
    for (int64_t part = 1; part < parts; ++part) {
      passes.push_back({{sequence}, {begin + rows * part / parts}});
    }
    const int64_t last_rows = rows - rows * (parts - 1) / parts;
    if (group_rows + last_rows > most_rows) {
      passes.push_back(std::exchange(group, {}));
      group_rows = 0;
    }
    group.sequences.push_back(sequence);
    group.ends.push_back(ends[s]);
    group_rows += last_rows;
  }
  if (!group.sequences.empty()) passes.push_back(std::move(group));
  return passes;
}

bool run_for_logits(const TokenRun& run, int64_t first_row, int64_t block_rows,
                    Workspace& workspace, AlignedBuffer<float>& logits,
                    const LogitsBlockSink& sink) {
  int64_t total = 0;
  for (size_t s = 0; s < run.sequences.size(); ++s) {
    total += run.ends[s] - (run.sequences[s]->*run.cache).next_position();
  }
  const float* rows = run_tokens(run, workspace);
  if (rows == nullptr) return false;
  const ModelConfig& config = run.model->config();
  float* block =
      logits.ensure(static_cast<size_t>(std::min(total, block_rows) * config.vocab_size));
  for (int64_t first = first_row; first < total; first += block_rows) {
    const int64_t count = std::min(block_rows, total - first);
    run.model->logits(rows + first * config.model_dim, count, block, workspace);
    sink(first, count, block);
  }
  return true;
}

bool run_without_output(const Transformer& model, CacheMember cache,
                        std::span<Sequence* const> sequences, std::span<const int64_t> ends,
                        RunLayersOptions options, Workspace& workspace) {
  options.output = LastLayerOutput::kNothing;
  for (const TokenPass& pass :
       token_passes(cache, sequences, ends, rows_together(model.threads()))) {
    if (!run_tokens({&model, cache, pass.sequences, pass.ends, options}, workspace)) return false;
  }
  return true;
}

bool run_to_ends(const Transformer& model, CacheMember cache, std::span<Sequence* const> sequences,
                 float* logits, Workspace& workspace, const std::stop_token& stop) {
  std::vector<int64_t> ends;
  for (Sequence* sequence : sequences) {
    ends.push_back(static_cast<int64_t>(sequence->tokens.size()));
    (sequence->*cache).reserve(ends.back());
  }
  for (const TokenPass& pass :
       token_passes(cache, sequences, ends, rows_together(model.threads()))) {
    const bool to_the_end =
        pass.ends.front() == static_cast<int64_t>(pass.sequences.front()->tokens.size());
    RunLayersOptions options;
    options.output = to_the_end ? LastLayerOutput::kLastRows : LastLayerOutput::kNothing;
    options.stop = stop;
    const float* rows = run_tokens({&model, cache, pass.sequences, pass.ends, options}, workspace);
    if (!rows) return false;
    if (!to_the_end) continue;
    const auto n = static_cast<int64_t>(pass.sequences.size());
    model.logits(rows, n, logits, workspace);
    logits += n * model.config().vocab_size;
  }
  return true;
}

bool decode_step(const Models& models, std::span<Sequence* const> sequences, float* logits,
                 PrefillWorkspace& workspace, const std::stop_token& stop) {
  const Sequence::Answerer answerer = sequences.front()->answerer;
  return run_to_ends(sequences.front()->answering_model(models), cache_of(answerer), sequences,
                     logits, workspace.of(answerer), stop);
}

}  // namespace kvcast
