// The base's run over the last tokens of each sequence, begun while the auxiliary still computes.
#pragma once

#include <atomic>
#include <exception>
#include <span>
#include <stop_token>
#include <vector>

#include "base/team.h"
#include "prefill/sequence.h"

namespace kvcast {

/// A base layer can run as soon as the auxiliary layers that it and those before it read have been
/// through their last rows. Few rows of the base wait for its weights to come from memory, the
/// auxiliary's many rows for arithmetic: one thread does the former beside the others.
class TailRun {
 public:
  /// The tokens [begins, end of the sequence) of each; at least one each. Base caches must have
  /// room. Embeds them.
  TailRun(const Models& models, std::span<Sequence* const> sequences,
          std::span<const int64_t> begins, Workspace& workspace, std::stop_token stop);

  /// The base caches hold the forecast of all base layers that read auxiliary layers up to this.
  void forecast_reached(int64_t auxiliary_layer);
  /// Nothing runs on another thread from here on. Rethrows what was thrown there.
  void pause();
  /// The rest of the layers, with all threads; the caches advance; logits [sequences, vocab_size].
  /// False: stopped.
  bool finish(float* logits);

 private:
  void run_ready_layers();
  bool run_to(int64_t last);

  const Models& models_;
  std::vector<SequenceRows> rows_;
  std::vector<int64_t> positions_;  // [rows], of all sequences
  Workspace& workspace_;
  std::stop_token stop_;
  int64_t next_layer_ = 0;  ///< belongs to the job while that is offered or running
  std::exception_ptr error_;
  std::atomic<int64_t> ready_layers_{0};
  std::atomic<bool> pausing_{false};
  SideJob job_;
};

}  // namespace kvcast
