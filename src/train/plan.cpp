#include "train/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "train/flops.h"
#include "train/kvp_pass.h"
#include "train/plan_widths.h"

namespace kvcast::train {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
constexpr double kBf16 = 2.0, kF32 = 4.0;
/// Logits at once: cross_entropy.cpp's chunk.
constexpr double kChunkLogits = 268435456.0;
/// Of a GPU's memory that is not for tensors: context, libraries, gaps between blocks.
constexpr double kReservedBytes = 3e9;
/// What an H200 reaches (results/training-speed-paper.json): of its peak in matrix products and
/// attention, of its bandwidth in the operations between them.
constexpr double kProductShare = 0.565, kBandwidthShare = 0.75;
/// What is left of the speed of one GPU when several of a host share a step.
constexpr double kSharedStep = 0.97;

double shared_by(const MemoryPlan& memory, int64_t processes) {
  return memory.parameters / kBf16 / static_cast<double>(processes);
}

/// Parts that depend on the number of trained parameters alone (parameters.h).
void add_parameters(MemoryPlan& memory, double trained, int64_t processes) {
  const double share = trained / static_cast<double>(processes);
  memory.parameters = kBf16 * trained;
  memory.gradients = kF32 * (trained + (processes > 1 ? share : 0.0));
  memory.optimizer = 3.0 * kF32 * share;  // master, exp_avg, exp_avg_sq
}

/// One micro-batch's loss of one model: hidden states and their gradients, the LM head's.
double loss_bytes(const ModelConfig& model, double tokens, bool trained) {
  const auto dim = static_cast<double>(model.model_dim);
  const double head = trained ? kF32 * dim * static_cast<double>(model.vocab_size) : 0.0;
  return 4.0 * kBf16 * tokens * dim + head;
}

double logits_bytes(const ModelConfig& model, double tokens) {
  return kBf16 * std::min(kChunkLogits, tokens * static_cast<double>(model.vocab_size));
}

/// The layers of one pass.
struct PassNumbers {
  double kept = 0, transient = 0, moved = 0;  // elements of one token

  void add(const LayerNumbers& layer, bool recomputed) {
    kept += recomputed ? layer.inputs : layer.kept;
    const double again = recomputed ? layer.kept : 0.0;
    transient = std::max(transient, layer.transient + again);
    moved += layer.moved;
  }
};

PassNumbers trained_pass(const ModelConfig& model, bool hands_out, int64_t recomputed) {
  PassNumbers pass;
  for (int64_t i = 0; i < model.n_layers(); ++i) {
    pass.add(LayerWidths(model, i).trained(hands_out), i < recomputed);
  }
  return pass;
}

/// The base's pass over predicted keys and values, with the predictor's and the exact pass's.
PassNumbers base_pass(const ModelConfig& base, const KvpRecipe& recipe, int64_t recomputed) {
  const bool exact = recipe.lambda_kl > 0 || recipe.consistency != Consistency::kNone;
  PassNumbers pass;
  for (int64_t i = 0; i < base.n_layers(); ++i) {
    const LayerWidths widths(base, i);
    pass.add(widths.replaced(), i < recomputed);
    pass.kept += 3 * widths.kv;                            // predicted
    if (exact) pass.kept += widths.query + 3 * widths.kv;  // qkv_proj's output, keys
    pass.kept += 2 * widths.kv;                            // their gradients, until used
    pass.moved += exact ? widths.moved_forward() + 24 * widths.kv : 0.0;
  }
  return pass;
}

double seconds_per_token(const TrainingPlan& plan, double moved_bytes, double update_bytes) {
  const Gpu& gpu = *plan.device.gpu;
  const double products = plan.flops_per_token / (kProductShare * gpu.peak_teraflops * 1e12);
  const double between = moved_bytes / (kBandwidthShare * gpu.bandwidth_gb_per_s * 1e9);
  const double per_gpu =
      static_cast<double>(plan.tokens_per_step) / static_cast<double>(plan.device.processes);
  const double update = update_bytes / (kBandwidthShare * gpu.bandwidth_gb_per_s * 1e9);
  return products + between + update / per_gpu;
}

void set_speed(TrainingPlan& plan, double moved_elements) {
  if (!plan.device.gpu) return;
  // A step's update reads and writes master values and moments and clears gradients.
  const double update =
      8.0 * kF32 * shared_by(plan.memory, plan.device.processes) + 2.0 * plan.memory.gradients;
  const double one = 1.0 / seconds_per_token(plan, kBf16 * moved_elements, update);
  const double shared = plan.device.processes > 1 ? kSharedStep : 1.0;
  plan.tokens_per_second = one * static_cast<double>(plan.device.processes) * shared;
}

void set_run(TrainingPlan& plan, const RunRecipe& run, const DataRecipe& data) {
  plan.steps = run.steps;
  plan.tokens_per_step = run.micro_batch_sequences * run.accumulation * data.sequence_tokens;
}

/// Fills in what depends on which layers are recomputed, and chooses them: the auxiliary's first,
/// which give back more memory for an operation than the base's frozen ones.
template <typename Fill>
void choose_recomputed(TrainingPlan& plan, Recompute wish, int64_t auxiliary_layers,
                       int64_t base_layers, const Fill& fill) {
  const int64_t all = auxiliary_layers + base_layers;
  int64_t n = wish == Recompute::kAll ? all : 0;
  while (true) {
    plan.recomputed = {std::min(n, auxiliary_layers), std::max<int64_t>(0, n - auxiliary_layers)};
    fill();
    if (wish != Recompute::kAuto || plan.fits() || n == all) return;
    ++n;
  }
}

}  // namespace

double TrainingPlan::utilisation() const {
  const double peak = device.gpu->peak_teraflops * 1e12 * static_cast<double>(device.processes);
  return tokens_per_second * flops_per_token / peak;
}

double TrainingPlan::usable_memory() const { return device.gpu->memory_gb * 1e9 - kReservedBytes; }

TrainingPlan plan_next_tokens(const ModelConfig& model, const RunRecipe& run,
                              const DataRecipe& data, const PlanDevice& device) {
  TrainingPlan plan{.device = device, .memory = {}, .recomputed = {}};
  set_run(plan, run, data);
  plan.trained_parameters = static_cast<double>(model.parameter_count());
  plan.flops_per_token = next_token_flops(model, data.sequence_tokens);
  add_parameters(plan.memory, plan.trained_parameters, device.processes);
  const auto tokens = static_cast<double>(run.micro_batch_sequences * data.sequence_tokens);
  PassNumbers pass;
  choose_recomputed(plan, run.recompute, model.n_layers(), 0, [&] {
    pass = trained_pass(model, false, plan.recomputed.auxiliary);
    plan.memory.activations = kBf16 * tokens * pass.kept + loss_bytes(model, tokens, true);
    plan.memory.transient = std::max(kBf16 * tokens * pass.transient, logits_bytes(model, tokens));
  });
  set_speed(plan, pass.moved + 3.0 * static_cast<double>(model.vocab_size));
  return plan;
}

TrainingPlan plan_kvp(const ModelConfig& base, const ModelConfig& auxiliary,
                      const std::vector<int64_t>& layer_map, const KvpRecipe& recipe,
                      const PlanDevice& device) {
  TrainingPlan plan{.device = device, .memory = {}, .recomputed = {}};
  set_run(plan, recipe.run, recipe.data);
  double predictor = 0;
  for (int64_t i = 0; i < base.n_layers(); ++i) {
    predictor += 2.0 * static_cast<double>(base.kv_width(i)) *
                 (static_cast<double>(auxiliary.kv_width(layer_map[static_cast<size_t>(i)])) + 1.0);
  }
  plan.trained_parameters = static_cast<double>(auxiliary.parameter_count()) + predictor;
  plan.frozen_parameters = static_cast<double>(base.parameter_count());
  plan.flops_per_token = kvp_flops(base, auxiliary, layer_map, recipe);
  plan.memory.base = kBf16 * plan.frozen_parameters;
  add_parameters(plan.memory, plan.trained_parameters, device.processes);

  const auto tokens =
      static_cast<double>(recipe.run.micro_batch_sequences * recipe.data.sequence_tokens);
  const bool writes = !recipe.auxiliary_kv_only_last;
  const double teachers = recipe.lambda_kl > 0 ? 2.0 : 1.0;  // whose logits are there at once
  double moved = 0;
  choose_recomputed(plan, recipe.run.recompute, auxiliary.n_layers(), base.n_layers(), [&] {
    const PassNumbers reader = trained_pass(auxiliary, true, plan.recomputed.auxiliary);
    const PassNumbers answerer = base_pass(base, recipe, plan.recomputed.base);
    plan.memory.activations = kBf16 * tokens * (reader.kept + answerer.kept) +
                              loss_bytes(base, tokens, false) +
                              (writes ? loss_bytes(auxiliary, tokens, true) : 0.0);
    plan.memory.transient =
        std::max(kBf16 * tokens * std::max(reader.transient, answerer.transient),
                 teachers * logits_bytes(base, tokens));
    moved = reader.moved + answerer.moved;
  });
  const double losses = (writes ? 2.0 : 1.0) + teachers - 1.0;
  set_speed(plan, moved + 3.0 * losses * static_cast<double>(base.vocab_size));
  return plan;
}

std::string describe(const TrainingPlan& plan) {
  const MemoryPlan& m = plan.memory;
  std::string text = fmt::format(
      "plan    {:.1f}M parameters trained, {:.1f}M frozen; {} steps of {} tokens: {:.3g} tokens\n",
      plan.trained_parameters / 1e6, plan.frozen_parameters / 1e6, plan.steps, plan.tokens_per_step,
      plan.tokens());
  text += fmt::format(
      "memory  of one process, GiB: base {:.2f}  parameters {:.2f}  gradients {:.2f}  optimizer "
      "{:.2f}  activations {:.2f}  largest operation {:.2f}  together {:.2f}{}\n",
      m.base / kGiB, m.parameters / kGiB, m.gradients / kGiB, m.optimizer / kGiB,
      m.activations / kGiB, m.transient / kGiB, m.total() / kGiB,
      plan.device.gpu ? fmt::format(" of {:.1f}", plan.usable_memory() / kGiB) : "");
  if (plan.recomputed.auxiliary + plan.recomputed.base > 0) {
    text += fmt::format("        layers computed again: auxiliary {}, base {}\n",
                        plan.recomputed.auxiliary, plan.recomputed.base);
  }
  text += fmt::format("work    {:.3g} FLOP a token, {:.3g} a step\n", plan.flops_per_token,
                      plan.flops_per_token * static_cast<double>(plan.tokens_per_step));
  if (!plan.device.gpu) return text;
  text += fmt::format(
      "time    {} x {}: {:.0f} tokens/s expected ({:.0f}% of the peak), {:.1f} hours, {:.0f} "
      "GPU-hours\n",
      plan.device.processes, plan.device.gpu->name, plan.tokens_per_second,
      100.0 * plan.utilisation(), plan.hours(),
      plan.hours() * static_cast<double>(plan.device.processes));
  if (!plan.fits()) {
    text += "        does not fit: lower run.micro_batch_sequences, or take more GPUs\n";
  }
  return text;
}

Json to_json(const TrainingPlan& plan) {
  const MemoryPlan& m = plan.memory;
  Json json = {{"trained_parameters", plan.trained_parameters},
               {"frozen_parameters", plan.frozen_parameters},
               {"steps", plan.steps},
               {"tokens_per_step", plan.tokens_per_step},
               {"tokens", plan.tokens()},
               {"flops_per_token", plan.flops_per_token},
               {"processes", plan.device.processes},
               {"memory_bytes",
                {{"base", m.base},
                 {"parameters", m.parameters},
                 {"gradients", m.gradients},
                 {"optimizer", m.optimizer},
                 {"activations", m.activations},
                 {"largest_operation", m.transient},
                 {"total", m.total()}}},
               {"recomputed_layers",
                {{"auxiliary", plan.recomputed.auxiliary}, {"base", plan.recomputed.base}}}};
  if (!plan.device.gpu) return json;
  json["gpu"] = plan.device.gpu->name;
  json["fits"] = plan.fits();
  json["tokens_per_second"] = plan.tokens_per_second;
  json["utilisation"] = plan.utilisation();
  json["hours"] = plan.hours();
  json["gpu_hours"] = plan.hours() * static_cast<double>(plan.device.processes);
  return json;
}

}  // namespace kvcast::train
