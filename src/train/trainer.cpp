#include "train/trainer.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>

#include "base/remove_tree.h"
#include "train/batch_loader.h"
#include "train/checkpoint.h"
#include "train/data/error.h"
#include "train/gpu.h"
#include "train/gradients.h"
#include "train/loss_monitor.h"
#include "train/progress.h"

namespace kvcast::train {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Steps whose losses may still be on their way to the host when the next one is started.
constexpr size_t kStepsInFlight = 2;

class Loop {
 public:
  Loop(Objective& objective, FlatParameters& parameters, const TrainingRun& setup)
      : objective_(objective),
        parameters_(parameters),
        setup_(setup),
        run_(setup.run),
        processes_(parameters.processes()),
        gradients_(parameters),
        optimizer_(parameters, setup.optimizer),
        monitor_(setup.run.max_loss_jump) {
    if (run_.accumulation % processes_.count() != 0) {
      throw TrainError(fmt::format("run.accumulation: expected a multiple of the {} processes",
                                   processes_.count()));
    }
    state_.seed = run_.seed;
    state_.step_sequences = run_.micro_batch_sequences * run_.accumulation;
    state_.sequence_tokens = setup.sampler.sequence_tokens();
    if (setup.control.resume && std::filesystem::exists(setup.output.checkpoint)) {
      state_ =
          read_checkpoint(setup.output.checkpoint, objective_, parameters_, optimizer_, state_);
    }
    restore_interval();
    elapsed_before_ = state_.elapsed_seconds;
  }

  TrainOutcome run() {
    std::optional<ProgressLog> log;
    if (processes_.first()) {
      log.emplace(setup_.output, run_.steps, state_.step, setup_.control.quiet);
    }
    const int64_t share = run_.accumulation / processes_.count();
    BatchLoader batches(setup_.sampler, run_.micro_batch_sequences,
                        state_.step * run_.accumulation + processes_.rank(), processes_.count(),
                        setup_.control.device);
    start_ = interval_start_ = Clock::now();
    double last_checkpoint = state_.elapsed_seconds;
    while (progress() < 1.0) {
      step(batches, share);
      const bool stop = agree_on_time();
      stop_if_bad(kStepsInFlight);
      if (state_.step % run_.log_every == 0 || progress() >= 1.0) write_log(log);
      if (stop || checkpoint_due(last_checkpoint)) {
        checkpoint();
        last_checkpoint = state_.elapsed_seconds;
      }
      if (stop) return TrainOutcome::kInterrupted;
    }
    finish();
    return TrainOutcome::kFinished;
  }

 private:
  /// One update: gradients of this process's micro-batches, their sum over all, then AdamW.
  void step(BatchLoader& batches, int64_t micro_batches) {
    const double learning_rate =
        learning_rate_at(setup_.optimizer, state_.step, progress(), warmup_share());
    const double share = 1.0 / static_cast<double>(run_.accumulation);
    Tensor step_terms;  // means over the step
    for (int64_t i = 0; i < micro_batches; ++i) {
      const Batch batch = batches.next();
      const TensorMap views = gradients_.views(/*last=*/i == micro_batches - 1);
      const ObjectiveLoss loss =
          objective_.loss(views, {batch.input_ids, batch.targets, state_.step});
      (loss.total * share).backward();
      const Tensor terms = stacked(loss) * share;
      step_terms = step_terms.defined() ? step_terms + terms : terms;
    }
    const auto summed_terms = processes_.sum(step_terms);
    gradients_.finish();
    gradient_norm_ = optimizer_.step(gradients_, learning_rate);
    gradients_.clear();
    summed_terms->wait();
    monitor_.add(state_.step, step_terms[0], gradient_norm_);
    interval_terms_ = interval_terms_.defined() ? interval_terms_ + step_terms : step_terms;
    learning_rate_ = learning_rate;
    ++state_.step;
    ++state_.interval_steps;
  }

  /// What is watched, then the terms: [1 + terms]. Stays on the device; only write_log waits.
  Tensor stacked(const ObjectiveLoss& loss) {
    std::vector<Tensor> values = {loss.watched.detach()};
    term_names_.clear();
    for (const auto& [name, value] : loss.terms) {
      term_names_.push_back(name);
      values.push_back(value.detach());
    }
    return at::stack(values);
  }

  /// The first process's clock, which schedule and checkpoints go by, and whether it was told to
  /// stop.
  bool agree_on_time() {
    const double elapsed = elapsed_before_ + seconds_since(start_);
    const bool asked = setup_.control.stop != nullptr && setup_.control.stop->load();
    const std::string agreed =
        processes_.agree(fmt::format("{:a} {}", elapsed, asked ? "stop" : "go on"));
    state_.elapsed_seconds = std::strtod(agreed.c_str(), nullptr);
    return agreed.ends_with("stop");
  }

  [[nodiscard]] bool checkpoint_due(double last_checkpoint) const {
    const bool by_steps = run_.checkpoint_steps > 0 && state_.step % run_.checkpoint_steps == 0;
    return by_steps || (run_.checkpoint_minutes > 0 &&
                        state_.elapsed_seconds - last_checkpoint > 60.0 * run_.checkpoint_minutes);
  }

  void stop_if_bad(size_t steps_in_flight) {
    const auto bad = monitor_.check(steps_in_flight);
    if (!bad) return;
    const auto file = failed_batch_path(setup_.output);
    if (processes_.first()) {
      const Tensor ids =
          read_samples(setup_.sampler, bad->step * state_.step_sequences, state_.step_sequences);
      const int64_t tokens = state_.sequence_tokens;
      write_tensors(
          file, {{"input_ids", ids.narrow(1, 0, tokens)}, {"targets", ids.narrow(1, 1, tokens)}},
          DType::kF32);
    }
    const std::string what =
        bad->mean_loss ? fmt::format("the loss jumped from {:.3f} to {:.3f} (run.max_loss_jump)",
                                     *bad->mean_loss, bad->loss)
                       : fmt::format("loss {} and gradient norm {}: not finite", bad->loss,
                                     bad->gradient_norm);
    throw TrainError(fmt::format(
        "step {}: {}; its batch is in {}, the last checkpoint is untouched: resume with a lower "
        "optimizer.learning_rate",
        bad->step + 1, what, file.string()));
  }

  void write_log(std::optional<ProgressLog>& log) {
    const Tensor means =
        (interval_terms_ / static_cast<double>(state_.interval_steps)).to(at::kCPU);
    LogEntry entry;
    entry.step = state_.step;
    entry.tokens = state_.step * tokens_per_step();
    entry.learning_rate = learning_rate_;
    entry.gradient_norm = gradient_norm_.item<double>();
    const int64_t steps_timed = state_.interval_steps - steps_before_resume_;
    entry.tokens_per_second = static_cast<double>(steps_timed * tokens_per_step()) /
                              std::max(1e-9, seconds_since(interval_start_));
    entry.teraflops = entry.tokens_per_second * objective_.flops_per_token() / 1e12;
    entry.utilisation = peak_teraflops_ > 0 ? entry.teraflops / peak_teraflops_ : 0.0;
    entry.peak_memory_bytes = peak_memory_bytes(setup_.control.device);
    entry.elapsed_seconds = state_.elapsed_seconds;
    entry.remaining_seconds = remaining_seconds(entry.tokens_per_second);
    for (size_t i = 0; i < term_names_.size(); ++i) {
      entry.losses.emplace_back(term_names_[i], means[static_cast<int64_t>(i) + 1].item<double>());
    }
    if (log) log->write(entry);
    last_losses_ = entry.losses;
    interval_start_ = Clock::now();
    interval_terms_ = Tensor();
    state_.interval_steps = steps_before_resume_ = 0;
  }

  void restore_interval() {
    steps_before_resume_ = state_.interval_steps;
    if (state_.interval_terms.empty()) return;
    interval_terms_ =
        at::tensor(state_.interval_terms, at::kDouble).to(setup_.control.device, at::kFloat);
  }

  void checkpoint() {
    stop_if_bad(0);  // never over the last good one
    const Clock::time_point began = Clock::now();
    if (processes_.first()) {
      state_.interval_terms.clear();
      if (interval_terms_.defined()) {
        const Tensor sums = interval_terms_.to(at::kCPU, at::kDouble);
        state_.interval_terms.assign(sums.data_ptr<double>(),
                                     sums.data_ptr<double>() + sums.numel());
      }
    }
    write_checkpoint(setup_.output, objective_, parameters_, optimizer_, state_, about());
    interval_start_ += Clock::now() - began;  // writing is no training
  }

  void finish() {
    stop_if_bad(0);
    const TensorMap values = parameters_.gathered(parameters_.master());
    if (!processes_.first()) return;
    const auto& output = setup_.output;
    AtomicDirectory target(output.directory);
    objective_.write(target.staging(), output.directory, values, stored_as(output),
                     /*checkpoint=*/false, about());
    target.commit();
    (void)remove_tree(output.checkpoint);
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
            {"processes", processes_.count()},
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
  [[nodiscard]] double peak_of_all() const {
    const auto gpu = gpu_of(setup_.control.device);
    const double one = run_.peak_teraflops > 0 ? run_.peak_teraflops
                       : gpu                   ? gpu->peak_teraflops
                                               : 0.0;
    return one * static_cast<double>(processes_.count());
  }
  [[nodiscard]] int64_t tokens_per_step() const {
    return state_.step_sequences * state_.sequence_tokens;
  }

  Objective& objective_;
  FlatParameters& parameters_;
  const TrainingRun& setup_;
  const RunRecipe& run_;
  Processes& processes_;
  Gradients gradients_;
  AdamW optimizer_;
  LossMonitor monitor_;
  TrainingState state_;
  double elapsed_before_ = 0.0, learning_rate_ = 0.0;
  double peak_teraflops_ = peak_of_all();  // 0: not known
  Clock::time_point start_, interval_start_;
  int64_t steps_before_resume_ = 0;  // of the interval: not timed by this run
  Tensor interval_terms_;            // sums since the last log entry
  Tensor gradient_norm_;
  std::vector<std::string> term_names_;
  std::vector<std::pair<std::string, double>> last_losses_;
};

}  // namespace

TrainOutcome train(Objective& objective, FlatParameters& parameters, const TrainingRun& setup) {
  return Loop(objective, parameters, setup).run();
}

#if KVCAST_TORCH_AT_LEAST(2, 7)
namespace {
/// cuDNN's attention before libtorch's own: on an H200, 64 x 1,024 tokens, 12 heads of 64, forward
/// and backward reached 239 against 174 TFLOP/s.
void prefer_cudnn_attention() {
  using at::SDPBackend;
  std::vector<int64_t> order;
  for (const auto backend :
       {SDPBackend::cudnn_attention, SDPBackend::flash_attention, SDPBackend::efficient_attention,
        SDPBackend::math, SDPBackend::overrideable}) {
    order.push_back(static_cast<int64_t>(backend));
  }
  at::globalContext().setSDPPriorityOrder(order);
}
}  // namespace
#endif

std::filesystem::path failed_batch_path(const OutputRecipe& output) {
  return output.directory.string() + ".failed-batch.safetensors";
}

at::Device choose_device(const std::string& name) {
  if (name != "auto" && name != "cpu" && name != "cuda") {
    throw TrainError("--device: expected auto, cpu or cuda, found " + name);
  }
  if (name == "cpu" || (name == "auto" && !at::hasCUDA())) return at::kCPU;
  if (!at::hasCUDA()) throw TrainError("--device cuda: libtorch finds no CUDA device");
#if KVCAST_TORCH_AT_LEAST(2, 7)
  prefer_cudnn_attention();
#endif
  const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(local_rank()));
  c10::impl::VirtualGuardImpl(at::kCUDA).setDevice(device);  // the current one from here on
  return device;
}

}  // namespace kvcast::train
