#include "prefill/refine.h"

#include <algorithm>
#include <cstring>

namespace kvcast {
namespace {

/// Enough for the weights' traffic to be small beside the arithmetic, few enough to be interrupted.
constexpr int64_t kRowsAlone = 64;

int64_t rows_of(const DecodeRows& decoding) {
  return decoding.sequence->pending_tokens() + std::ssize(decoding.drafts);
}

/// The rows of a decode step and of the blocks beside it, through the answering model. Blocks whose
/// first layers are exact already join the others behind these layers.
class StepRows {
 public:
  StepRows(const Transformer& model, std::span<const DecodeRows> decoding,
           std::span<const RefineBlock> blocks)
      : model_(model) {
    for (const DecodeRows& rows : decoding) {
      KVCache& cache = rows.sequence->answering_cache();
      cache.reserve(cache.next_position() + rows_of(rows));
      add(*rows.sequence, {.cache = &cache, .rows = rows_of(rows), .outputs = rows.outputs()}, {},
          rows.drafts);
    }
    for (const RefineBlock& block : blocks) {
      KVCache& cache = block.sequence->base;
      const KVCache::ResidualRows kept = cache.kept_residual();
      add(*block.sequence,
          {.cache = &cache, .rows = block.rows, .overwrites = true, .outputs = block.outputs},
          kept.rows >= block.rows ? kept : KVCache::ResidualRows{}, {});
    }
  }

  /// False: stopped.
  bool run(Workspace& workspace, const std::stop_token& stop) {
    const auto dim = static_cast<size_t>(model_.config().model_dim);
    hidden_ = workspace.rows.ensure(static_cast<size_t>(total_rows_) * dim);
    model_.embed(tokens_, hidden_);
    RunLayersOptions options;
    options.stop = stop;
    options.last = joins_at_;
    if (joins_at_ > 0 && !from_the_first_.empty() &&
        !model_.run_layers(hidden_, from_the_first_, options, workspace)) {
      return false;
    }
    put_kept_rows_between(dim);
    options.first = joins_at_;
    options.last = model_.config().n_layers();
    options.output = outputs_ == 0 ? LastLayerOutput::kNothing : LastLayerOutput::kLastRows;
    return model_.run_layers(hidden_, all_, options, workspace);
  }

  /// [all outputs, vocab_size]
  void logits(float* out, Workspace& workspace) const {
    if (outputs_ > 0) model_.logits(hidden_, outputs_, out, workspace);
  }

 private:
  /// The rows' tokens are the sequence's, the last of them `drafts`.
  void add(const Sequence& sequence, const SequenceRows& rows, KVCache::ResidualRows kept,
           std::span<const int32_t> drafts) {
    all_.push_back(rows);
    kept_.push_back(kept.data);
    total_rows_ += rows.rows;
    outputs_ += rows.outputs;
    if (kept.data != nullptr) {
      joins_at_ = kept.layer;
      return;
    }
    const auto first = sequence.tokens.begin() + rows.first_position();
    tokens_.insert(tokens_.end(), first, first + rows.rows - std::ssize(drafts));
    tokens_.insert(tokens_.end(), drafts.begin(), drafts.end());
    from_the_first_.push_back(rows);
  }

  /// From the last to the first, since rows move towards the end.
  void put_kept_rows_between(size_t dim) {
    float* from = hidden_ + tokens_.size() * dim;
    float* to = hidden_ + static_cast<size_t>(total_rows_) * dim;
    for (size_t i = all_.size(); i-- > 0;) {
      const size_t count = static_cast<size_t>(all_[i].rows) * dim;
      to -= count;
      if (kept_[i] != nullptr) {
        std::copy_n(kept_[i], count, to);
      } else {
        from -= count;
        std::memmove(to, from, count * sizeof(float));
      }
    }
  }

  const Transformer& model_;
  std::vector<SequenceRows> all_, from_the_first_;
  std::vector<const float*> kept_;  // [all]; null: runs from the first layer on
  std::vector<int32_t> tokens_;     // of those
  int64_t total_rows_ = 0, outputs_ = 0;
  int64_t joins_at_ = 0;  // the same layer for all sequences of a bundle
  float* hidden_ = nullptr;
};

}  // namespace

int64_t inexact_rows(const Sequence& sequence) {
  const KVCache& cache = sequence.base;
  const bool whole = cache.rows_in_first(cache.n_layers()) == cache.next_position();
  return whole ? cache.next_position() - cache.exact_rows() : 0;
}

void keep_for_refinement(const Models& models, PromptReader reader,
                         std::span<const SequenceRows> rows, const RawKeyValues& computed) {
  const bool leaves = reader == PromptReader::kBase && computed.layer > 0 &&
                      computed.layer + 1 == models.plan.exact_layers;
  if (!leaves) return;
  const int64_t dim = models.base->config().model_dim;
  const float* residual = computed.residual;
  for (const SequenceRows& of_sequence : rows) {
    of_sequence.cache->keep_residual({computed.layer, of_sequence.rows, residual}, dim);
    residual += of_sequence.rows * dim;
  }
}

int64_t rows_to_refine(const Sequence& sequence, int64_t most) {
  const int64_t kept = sequence.base.kept_residual().rows;
  return std::min({most, inexact_rows(sequence), kept > 0 ? kept : most});
}

bool decode_and_refine(const Models& models, std::span<const DecodeRows> decoding,
                       std::span<const RefineBlock> blocks, float* logits,
                       PrefillWorkspace& prefill_workspace, const std::stop_token& stop) {
  const auto answerer =
      decoding.empty() ? Sequence::Answerer::kBase : decoding.front().sequence->answerer;
  const bool by_base = answerer == Sequence::Answerer::kBase;
  Workspace& workspace = prefill_workspace.of(answerer);
  StepRows step(*(by_base ? models.base : models.auxiliary), decoding, blocks);
  if (!step.run(workspace, stop)) {
    for (const DecodeRows& rows : decoding) {
      KVCache& cache = rows.sequence->answering_cache();
      cache.truncate(cache.next_position());
    }
    return false;
  }
  // Blocks first: a decode row over nothing but exact rows is exact.
  for (const RefineBlock& block : blocks) block.sequence->base.make_exact(block.rows);
  for (const DecodeRows& rows : decoding) rows.sequence->answering_cache().advance(rows_of(rows));
  step.logits(logits, workspace);
  return true;
}

int64_t refine_alone(const Models& models, Sequence& sequence, PrefillWorkspace& workspace,
                     const std::stop_token& stop, const std::function<bool()>& go_on) {
  int64_t refined = 0;
  for (int64_t left = inexact_rows(sequence); left > 0 && go_on(); left = inexact_rows(sequence)) {
    const RefineBlock block[] = {
        {.sequence = &sequence, .rows = rows_to_refine(sequence, std::min(left, kRowsAlone))}};
    if (!decode_and_refine(models, {}, block, nullptr, workspace, stop)) break;
    refined += block[0].rows;
  }
  return refined;
}

}  // namespace kvcast
