#include "train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>

#include "train/batch_loader.h"
#include "train/checkpoint.h"
#include "train/data/error.h"
#include "train/model_files.h"
#include "train/progress.h"

namespace kvcast::train {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class Loop {
 public:
  Loop(Objective& objective, FlatParameters& parameters, const TrainingRun& setup)
      : objective_(objective),
        parameters_(parameters),
        setup_(setup),
        run_(setup.run),
        optimizer_(parameters, setup.optimizer) {
    state_.seed = run_.seed;
    state_.step_sequences = run_.micro_batch_sequences * run_.accumulation;
    state_.sequence_tokens = setup.sampler.sequence_tokens();
    if (setup.control.resume && std::filesystem::exists(setup.output.checkpoint)) {
      state_ =
          read_checkpoint(setup.output.checkpoint, objective_, parameters_, optimizer_, state_);
    }
    elapsed_before_ = state_.elapsed_seconds;
  }

  TrainOutcome run() {
    ProgressLog log(setup_.output.log, run_.steps, setup_.control.quiet);
    BatchLoader batches(setup_.sampler, run_.micro_batch_sequences, state_.step * run_.accumulation,
                        setup_.control.device);
    mark_interval();
    Clock::time_point last_checkpoint = Clock::now();
    while (progress() < 1.0) {
      step(batches);
      if (state_.step % run_.log_every == 0 || progress() >= 1.0) write_log(log);
      const bool stop = stop_asked();
      const bool due = run_.checkpoint_minutes > 0 &&
                       seconds_since(last_checkpoint) > 60.0 * run_.checkpoint_minutes;
      if (stop || due) {
        if (interval_steps_ > 0) write_log(log);  // throws before weights that are not finite
        checkpoint();
        last_checkpoint = Clock::now();
        mark_interval();
      }
      if (stop) return TrainOutcome::kInterrupted;
    }
    finish();
    return TrainOutcome::kFinished;
  }

 private:
  /// One update: gradients of `accumulation` micro-batches, then AdamW.
  void step(BatchLoader& batches) {
    const double learning_rate =
        learning_rate_at(setup_.optimizer, state_.step, progress(), warmup_share());
    const double share = 1.0 / static_cast<double>(run_.accumulation);
    for (int64_t i = 0; i < run_.accumulation; ++i) {
      const Batch batch = batches.next();
      // Views of the current weights; their graph is used up by backward().
      const TensorMap views =
          parameters_.views(run_.precision == Precision::kBF16 ? at::kBFloat16 : at::kFloat);
      const ObjectiveLoss loss = objective_.loss(views, batch.input_ids, batch.targets);
      (loss.total * share).backward();
      accumulate_terms(loss, share);
    }
    gradient_norm_ = optimizer_.step(learning_rate);
    learning_rate_ = learning_rate;
    ++state_.step;
    ++interval_steps_;
    state_.elapsed_seconds = elapsed_before_ + seconds_since(start_);
  }

  /// Sums stay on the device; only write_log waits for them.
  void accumulate_terms(const ObjectiveLoss& loss, double share) {
    std::vector<Tensor> values;
    term_names_.clear();
    for (const auto& [name, value] : loss.terms) {
      term_names_.push_back(name);
      values.push_back(value.detach());
    }
    const Tensor terms = at::stack(values) * share;
    interval_terms_ = interval_terms_.defined() ? interval_terms_ + terms : terms;
  }

  void write_log(ProgressLog& log) {
    const Tensor means = (interval_terms_ / static_cast<double>(interval_steps_)).to(at::kCPU);
    state_.elapsed_seconds = elapsed_before_ + seconds_since(start_);
    LogEntry entry;
    entry.step = state_.step;
    entry.tokens = state_.step * tokens_per_step();
    entry.learning_rate = learning_rate_;
    entry.gradient_norm = gradient_norm_.item<double>();
    entry.tokens_per_second = static_cast<double>(interval_steps_ * tokens_per_step()) /
                              std::max(1e-9, seconds_since(interval_start_));
    entry.teraflops = entry.tokens_per_second * objective_.flops_per_token() / 1e12;
    entry.elapsed_seconds = state_.elapsed_seconds;
    entry.remaining_seconds = remaining_seconds(entry.tokens_per_second);
    bool finite = std::isfinite(entry.gradient_norm);
    for (size_t i = 0; i < term_names_.size(); ++i) {
      const double value = means[static_cast<int64_t>(i)].item<double>();
      entry.losses.emplace_back(term_names_[i], value);
      finite = finite && std::isfinite(value);
    }
    if (!finite) {
      throw TrainError(
          fmt::format("step {}: a loss or gradient is not finite; the last checkpoint "
                      "is kept: resume with a lower optimizer.learning_rate",
                      state_.step));
    }
    log.write(entry);
    last_losses_ = entry.losses;
    mark_interval();
  }

  void mark_interval() {
    interval_start_ = Clock::now();
    interval_steps_ = 0;
    interval_terms_ = Tensor();
  }

  void checkpoint() {
    write_checkpoint(setup_.output.checkpoint, objective_, parameters_, optimizer_, state_,
                     about());
  }

  void finish() {
    const auto& output = setup_.output;
    AtomicDirectory target(output.directory);
    objective_.write(target.staging(), output.directory, parameters_.master_values(),
                     output.dtype == Precision::kBF16 ? DType::kBF16 : DType::kF32,
                     /*checkpoint=*/false, about());
    target.commit();
    std::filesystem::remove_all(output.checkpoint);
  }

  [[nodiscard]] Json about() const {
    Json losses = Json::object();
    for (const auto& [name, value] : last_losses_) losses[name] = value;
    return {{"steps", state_.step},
            {"tokens", state_.step * tokens_per_step()},
            {"sequence_tokens", state_.sequence_tokens},
            {"tokens_per_step", tokens_per_step()},
            {"data_passes", static_cast<double>(state_.step * state_.step_sequences) /
                                static_cast<double>(setup_.sampler.samples_per_pass())},
            {"seed", run_.seed},
            {"peak_learning_rate", setup_.optimizer.learning_rate},
            {"precision", run_.precision == Precision::kBF16 ? "bf16" : "f32"},
            {"seconds", state_.elapsed_seconds},
            {"final_training_losses", losses}};
  }

  /// Share of the run that is done: by steps or, if that is further, by time.
  [[nodiscard]] double progress() const {
    const double by_steps = static_cast<double>(state_.step) / static_cast<double>(run_.steps);
    if (run_.max_minutes <= 0.0) return by_steps;
    return std::max(by_steps, state_.elapsed_seconds / (60.0 * run_.max_minutes));
  }
  [[nodiscard]] double warmup_share() const {
    return static_cast<double>(setup_.optimizer.warmup_steps) / static_cast<double>(run_.steps);
  }
  [[nodiscard]] double remaining_seconds(double tokens_per_second) const {
    const double by_steps =
        static_cast<double>((run_.steps - state_.step) * tokens_per_step()) / tokens_per_second;
    if (run_.max_minutes <= 0.0) return by_steps;
    return std::max(0.0, std::min(by_steps, 60.0 * run_.max_minutes - state_.elapsed_seconds));
  }
  [[nodiscard]] int64_t tokens_per_step() const {
    return state_.step_sequences * state_.sequence_tokens;
  }
  [[nodiscard]] bool stop_asked() const {
    return setup_.control.stop != nullptr && setup_.control.stop->load();
  }

  Objective& objective_;
  FlatParameters& parameters_;
  const TrainingRun& setup_;
  const RunRecipe& run_;
  AdamW optimizer_;
  TrainingState state_;
  double elapsed_before_ = 0.0, learning_rate_ = 0.0;
  Clock::time_point start_ = Clock::now(), interval_start_ = Clock::now();
  int64_t interval_steps_ = 0;
  Tensor interval_terms_, gradient_norm_;
  std::vector<std::string> term_names_;
  std::vector<std::pair<std::string, double>> last_losses_;
};

}  // namespace

TrainOutcome train(Objective& objective, FlatParameters& parameters, const TrainingRun& setup) {
  return Loop(objective, parameters, setup).run();
}

at::Device choose_device(const std::string& name) {
  if (name == "cpu") return at::kCPU;
  if (name == "cuda" || (name == "auto" && at::hasCUDA())) {
    if (!at::hasCUDA()) throw TrainError("--device cuda: libtorch finds no CUDA device");
    return {at::kCUDA, 0};
  }
  if (name == "auto") return at::kCPU;
  throw TrainError("--device: expected auto, cpu or cuda, found " + name);
}

}  // namespace kvcast::train
