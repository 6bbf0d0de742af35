// The training loop: batches, gradient accumulation, schedule, log, checkpoints. What is optimised
// is an Objective: pretrain.cpp, kvp.cpp.
#pragma once

#include <atomic>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "io/json.h"
#include "train/data/recipe.h"
#include "train/data/window_sampler.h"
#include "train/model_files.h"
#include "train/parameters.h"
#include "train/plan.h"
#include "train/processes.h"

namespace kvcast::train {

struct MicroBatch {
  Tensor input_ids, targets;  ///< [B, T] int64
  int64_t step = 0;           ///< updates done before
};

struct ObjectiveLoss {
  Tensor total;    ///< scalar, differentiable
  Tensor watched;  ///< scalar: the cross-entropy that must not jump
  std::vector<std::pair<std::string, Tensor>> terms;  ///< scalars for the log, the same every call
};

class Objective {
 public:
  virtual ~Objective() = default;
  /// The loss of one micro-batch with the trained parameters `views`.
  virtual ObjectiveLoss loss(const TensorMap& views, const MicroBatch& batch) = 0;
  /// Writes the model directory or bundle with these (f32) trained parameters into the existing
  /// `directory`, which will be renamed to `final_directory`. `about` says how it was trained.
  virtual void write(const std::filesystem::path& directory,
                     const std::filesystem::path& final_directory, const TensorMap& values,
                     const StoreOptions& store, bool checkpoint, const Json& about) const = 0;
  /// The trained parameters back from what write() wrote.
  [[nodiscard]] virtual TensorMap read(const std::filesystem::path& directory) const = 0;
  /// Floating-point operations of one token's forward and backward pass, matrix products only.
  [[nodiscard]] virtual double flops_per_token() const = 0;
};

struct TrainControl {
  at::Device device = at::kCPU;
  bool resume = false;                      ///< from output.checkpoint, if there is one
  bool quiet = false;                       ///< no progress on stderr
  const std::atomic<bool>* stop = nullptr;  ///< set: write a checkpoint and return
  Processes* processes = nullptr;           ///< those that train together; none: this one alone

  /// What a plan is for.
  [[nodiscard]] PlanDevice plan_device() const {
    return {gpu_of(device), processes != nullptr ? processes->count() : 1};
  }
  /// How the trained parameters of a run are kept.
  [[nodiscard]] ParameterOptions parameters(const RunRecipe& run) const {
    return {.compute = run.precision == Precision::kBF16 ? at::kBFloat16 : at::kFloat,
            .processes = processes};
  }
};

enum class TrainOutcome { kFinished, kInterrupted };

/// Everything but the objective and its parameters. All references must outlive the call.
struct TrainingRun {
  const RunRecipe& run;
  const OptimizerRecipe& optimizer;
  const OutputRecipe& output;
  const WindowSampler& sampler;
  TrainControl control;
};

/// Trains `parameters` in place and writes output.directory at the end. With max_minutes the
/// schedule's progress is the larger of the share of steps and the share of time, so a run that
/// would take too long still ends its cosine on time. A resumed run without max_minutes does
/// exactly what an uninterrupted one does, its log included. Several processes split every step's
/// micro-batches among them; the first one logs and writes. A loss that is not finite, or jumps,
/// stops the run with a TrainError; the batch is then in failed_batch_path().
TrainOutcome train(Objective& objective, FlatParameters& parameters, const TrainingRun& setup);

/// output.directory + ".failed-batch.safetensors", as `kvcast-train probe` reads it.
std::filesystem::path failed_batch_path(const OutputRecipe& output);

/// "auto", "cpu" or "cuda"; the GPU that torchrun's LOCAL_RANK says.
at::Device choose_device(const std::string& name);

}  // namespace kvcast::train
