#include "train/checkpoint.h"

#include <fmt/format.h>

#include "base/mapped_file.h"
#include "train/data/error.h"
#include "train/data/rerun.h"
#include "train/model_files.h"

namespace kvcast::train {
namespace {

constexpr const char* kOptimizerStem = "optimizer";

void check_same(const std::filesystem::path& file, const char* key, uint64_t found,
                uint64_t expected) {
  if (found == expected) return;
  throw TrainError(
      fmt::format("{}: key \"{}\": expected {} as in the recipe, found {}; a run can "
                  "only be resumed with the same seed and batches",
                  file.string(), key, expected, found));
}

}  // namespace

void write_checkpoint(const OutputRecipe& output, const Objective& objective,
                      const FlatParameters& parameters, const AdamW& optimizer,
                      const TrainingState& state, const Json& about) {
  const TensorMap values = parameters.gathered(parameters.master());
  const TensorMap moments = optimizer.state();
  if (!parameters.processes().first()) return;
  AtomicDirectory target(output.checkpoint);
  objective.write(target.staging(), output.checkpoint, values, {DType::kF32, output.shard_bytes},
                  /*checkpoint=*/true, about);
  write_sharded_tensors(target.staging(), kOptimizerStem, moments, DType::kF32, output.shard_bytes);
  unwrap(write_file_atomically(target.staging() / kCheckpointLogName,
                               unwrap(read_text_file(output.log))));
  const Json json = {{"format", 1},
                     {"step", state.step},
                     {"elapsed_seconds", state.elapsed_seconds},
                     {"seed", state.seed},
                     {"step_sequences", state.step_sequences},
                     {"sequence_tokens", state.sequence_tokens},
                     {"interval_steps", state.interval_steps},
                     {"interval_terms", state.interval_terms}};
  unwrap(write_file_atomically(target.staging() / kTrainingStateName, json.dump(1) + "\n"));
  target.commit();
}

TrainingState read_checkpoint(const std::filesystem::path& directory, const Objective& objective,
                              FlatParameters& parameters, AdamW& optimizer,
                              const TrainingState& expected) {
  const auto file = directory / kTrainingStateName;
  const Json json = unwrap(read_json_object(file));
  TrainingState state;
  try {
    state.step = json.at("step").get<int64_t>();
    state.elapsed_seconds = json.at("elapsed_seconds").get<double>();
    state.seed = json.at("seed").get<uint64_t>();
    state.step_sequences = json.at("step_sequences").get<int64_t>();
    state.sequence_tokens = json.at("sequence_tokens").get<int64_t>();
    state.interval_steps = json.value("interval_steps", int64_t{0});
    state.interval_terms = json.value("interval_terms", std::vector<double>());
  } catch (const Json::exception& error) {
    throw TrainError(fmt::format("{}: not a training state: {}", file.string(), error.what()));
  }
  check_same(file, "seed", state.seed, expected.seed);
  check_same(file, "step_sequences", state.step_sequences, expected.step_sequences);
  check_same(file, "sequence_tokens", state.sequence_tokens, expected.sequence_tokens);

  parameters.assign(objective.read(directory));
  optimizer.restore(read_sharded_tensors(directory, kOptimizerStem), state.step);
  return state;
}

}  // namespace kvcast::train
