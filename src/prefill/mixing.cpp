#include "prefill/mixing.h"

#include <algorithm>
#include <vector>

#include "prefill/refine.h"
#include "prefill/unread_tokens.h"

namespace kvcast {

bool mixes(const Models& models, const Sequence& sequence) {
  return sequence.mix > 0 && sequence.answerer == Sequence::Answerer::kBase &&
         std::ssize(sequence.tokens) <= models.auxiliary->config().max_context_tokens &&
         inexact_rows(sequence) > 0;
}

void mix_into(std::span<float> logits, const float* auxiliary, double mix) {
  const auto share = static_cast<float>(mix);
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] = (1.0F - share) * logits[i] + share * auxiliary[i];
  }
}

void cut_auxiliary(Sequence& sequence, int64_t position) {
  drop_incomplete_rows(sequence.auxiliary);
  sequence.auxiliary.truncate(position);
}

bool mix_logits(const Models& models, std::span<Sequence* const> sequences,
                std::span<const std::span<float>> logits, PrefillWorkspace& workspace,
                const std::stop_token& stop) {
  std::vector<Sequence*> mixing;
  std::vector<std::span<float>> into;
  for (size_t s = 0; s < sequences.size(); ++s) {
    if (!mixes(models, *sequences[s])) continue;
    cut_auxiliary(*sequences[s], std::ssize(sequences[s]->tokens) - 1);
    mixing.push_back(sequences[s]);
    into.push_back(logits[s]);
  }
  if (mixing.empty()) return true;
  const size_t vocab = into.front().size();
  const float* own = workspace.auxiliary_logits.ensure(mixing.size() * vocab);
  if (!run_to_ends(*models.auxiliary, &Sequence::auxiliary, mixing,
                   workspace.auxiliary_logits.data(), workspace.auxiliary, stop)) {
    return false;
  }
  for (size_t i = 0; i < mixing.size(); ++i, own += vocab) {
    mix_into(into[i], own, mixing[i]->mix);
  }
  return true;
}

bool next_logits(const Models& models, std::span<Sequence* const> sequences, float* logits,
                 PrefillWorkspace& workspace, const std::stop_token& stop) {
  if (!decode_step(models, sequences, logits, workspace, stop)) return false;
  const auto vocab = static_cast<size_t>(models.base->config().vocab_size);
  std::vector<std::span<float>> rows;
  for (size_t s = 0; s < sequences.size(); ++s) rows.emplace_back(logits + s * vocab, vocab);
  return mix_logits(models, sequences, rows, workspace, stop);
}

bool run_for_mixed_logits(const Models& models, std::span<Sequence* const> sequences,
                          std::span<const int64_t> ends, int64_t first_row, int64_t block_rows,
                          PrefillWorkspace& workspace, AlignedBuffer<float>& logits,
                          const LogitsBlockSink& sink, const std::stop_token& stop) {
  RunLayersOptions options;
  options.stop = stop;
  const Sequence::Answerer answerer = sequences.front()->answerer;
  const Transformer& model = sequences.front()->answering_model(models);
  const TokenRun run{&model, cache_of(answerer), sequences, ends, options};
  std::vector<Sequence*> mixing;
  TokenPass behind;
  std::vector<int64_t> mixing_ends;
  std::vector<double> mix_of_row;
  for (size_t s = 0; s < sequences.size(); ++s) {
    Sequence& sequence = *sequences[s];
    const int64_t position = sequence.answering_cache().next_position();
    const double mix = mixes(models, sequence) ? sequence.mix : 0;
    mix_of_row.insert(mix_of_row.end(), static_cast<size_t>(ends[s] - position), mix);
    if (mix == 0) continue;
    mixing.push_back(&sequence);
    mixing_ends.push_back(ends[s]);
    cut_auxiliary(sequence, position);
    if (sequence.auxiliary.next_position() == position) continue;
    behind.sequences.push_back(&sequence);
    behind.ends.push_back(position);
  }
  if (mixing.empty()) {
    return run_for_logits(run, first_row, block_rows, workspace.of(answerer), logits, sink);
  }
  const Transformer& auxiliary = *models.auxiliary;
  if (!run_without_output(auxiliary, &Sequence::auxiliary, behind.sequences, behind.ends, options,
                          workspace.auxiliary)) {
    return false;
  }
  const float* own = run_tokens({&auxiliary, &Sequence::auxiliary, mixing, mixing_ends, options},
                                workspace.auxiliary);
  if (own == nullptr) return false;
  const auto mixed_rows = [&](int64_t first, int64_t last) {
    return std::count_if(mix_of_row.begin() + first, mix_of_row.begin() + last,
                         [](double mix) { return mix > 0; });
  };
  const auto vocab = static_cast<size_t>(model.config().vocab_size);
  const auto mix_block = [&](int64_t first, int64_t rows, float* block) {
    const int64_t before = mixed_rows(0, first), count = mixed_rows(first, first + rows);
    float* of_own = workspace.auxiliary_logits.ensure(static_cast<size_t>(count) * vocab);
    auxiliary.logits(own + before * auxiliary.config().model_dim, count, of_own,
                     workspace.auxiliary);
    for (int64_t row = 0; row < rows; ++row) {
      const double mix = mix_of_row[static_cast<size_t>(first + row)];
      if (mix == 0) continue;
      mix_into({block + static_cast<size_t>(row) * vocab, vocab}, of_own, mix);
      of_own += vocab;
    }
    sink(first, rows, block);
  };
  return run_for_logits(run, first_row, block_rows, workspace.base, logits, mix_block);
}

}  // namespace kvcast
