#include "train/data/rerun.h"

#include <fmt/format.h>

#include "base/remove_tree.h"
#include "io/json.h"
#include "train/data/error.h"

namespace kvcast::train {

namespace fs = std::filesystem;

RunStart start_run(const OutputRecipe& output, const RerunOptions& options) {
  if (options.overwrite) {
    if (const auto error = remove_tree(output.checkpoint)) {
      throw TrainError(
          fmt::format("{}: cannot remove: {}", output.checkpoint.string(), error.message()));
    }
    return RunStart::kFresh;
  }
  if (fs::exists(output.checkpoint)) {
    if (options.resume) return RunStart::kFromCheckpoint;
    const Json state = unwrap(read_json_object(output.checkpoint / kTrainingStateName));
    throw TrainError(fmt::format(
        "{}: a checkpoint after step {} is there; --resume goes on from it, --overwrite begins "
        "again",
        output.checkpoint.string(), state.value("step", Json()).dump()));
  }
  if (!fs::exists(output.directory)) return RunStart::kFresh;
  if (options.resume) return RunStart::kFinished;
  refuse_to_overwrite(output.directory, false);
  return RunStart::kFresh;
}

void refuse_to_overwrite(const fs::path& result, bool overwrite) {
  if (overwrite || !fs::exists(result)) return;
  throw TrainError(result.string() + ": is there already; --overwrite replaces it");
}

}  // namespace kvcast::train
