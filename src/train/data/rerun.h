// What a command does where an earlier run of it has left something: nothing is begun again, and
// nothing replaced, unless that was asked for.
#pragma once

#include <filesystem>

#include "train/data/recipe.h"

namespace kvcast::train {

struct RerunOptions {
  bool resume = false;     ///< go on from a checkpoint, if there is one
  bool overwrite = false;  ///< start anew whatever is there
};

enum class RunStart { kFresh, kFromCheckpoint, kFinished };

/// How a training run starts. A checkpoint is a run under way: an error unless `resume` or
/// `overwrite` says what to do with it; overwriting removes it. A result without one is a finished
/// run: an error, with `resume` kFinished, with `overwrite` begun again (the result stays until it
/// is replaced). Throws TrainError.
RunStart start_run(const OutputRecipe& output, const RerunOptions& options);

/// For commands without checkpoints: throws TrainError if `result` is there and `overwrite` is not
/// given.
void refuse_to_overwrite(const std::filesystem::path& result, bool overwrite);

/// A checkpoint's record of where its run is, and its copy of the log so far.
inline constexpr const char* kTrainingStateName = "training_state.json";
inline constexpr const char* kCheckpointLogName = "log.jsonl";

}  // namespace kvcast::train
