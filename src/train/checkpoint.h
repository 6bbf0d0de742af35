// A checkpoint directory: the model directory or bundle itself (f32), and beside its files
// optimizer.safetensors, or shards of it, (AdamW's moments by parameter name), training_state.json
// and the log so far.
#pragma once

#include <filesystem>

#include "train/optimizer.h"
#include "train/trainer.h"

namespace kvcast::train {

/// Where a run is. Randomness needs no state: data and initial weights are functions of the seed.
struct TrainingState {
  int64_t step = 0;  ///< updates done
  double elapsed_seconds = 0.0;
  uint64_t seed = 0;
  int64_t step_sequences = 0;   ///< sequences of one update; a resumed run must have the same
  int64_t sequence_tokens = 0;  ///< likewise
  /// Since the last log entry: updates, and the sums of the loss terms, so that the log goes on as
  /// if nothing had happened.
  int64_t interval_steps = 0;
  std::vector<double> interval_terms;
};

/// Replaces output.checkpoint atomically. In every process; the first one writes.
void write_checkpoint(const OutputRecipe& output, const Objective& objective,
                      const FlatParameters& parameters, const AdamW& optimizer,
                      const TrainingState& state, const Json& about);

/// Restores parameters and optimizer and returns the state; throws TrainError if it belongs to
/// another seed or batch size than `expected`.
TrainingState read_checkpoint(const std::filesystem::path& directory, const Objective& objective,
                              FlatParameters& parameters, AdamW& optimizer,
                              const TrainingState& expected);

}  // namespace kvcast::train
