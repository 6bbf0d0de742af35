#include "train/probe.h"

#include <fmt/format.h>

#include "train/data/error.h"
#include "train/gradients.h"
#include "train/model_files.h"

namespace kvcast::train {
namespace {

struct ProbeBatch {
  Tensor input_ids, targets;  // [B, T]
};

ProbeBatch read_batch(const std::filesystem::path& path, const ModelConfig& config) {
  const auto file = unwrap(Safetensors::open(path));
  const auto read = [&](const char* name) {
    const TensorView view = unwrap(file->find(name));
    if (view.dtype != DType::kI64 || view.shape.size() != 2 || view.element_count() == 0) {
      throw TrainError(fmt::format("{}: tensor {}: expected I64 [B, T]", path.string(), name));
    }
    return to_tensor(view);
  };
  ProbeBatch batch{read("input_ids"), read("targets")};
  if (batch.input_ids.sizes() != batch.targets.sizes()) {
    throw TrainError(fmt::format("{}: input_ids and targets differ in shape", path.string()));
  }
  if (batch.input_ids.min().item<int64_t>() < 0 ||
      batch.input_ids.max().item<int64_t>() >= config.vocab_size) {
    throw TrainError(fmt::format("{}: tensor input_ids: expected tokens in 0..{}", path.string(),
                                 config.vocab_size - 1));
  }
  if (batch.input_ids.size(1) > config.max_context_tokens) {
    throw TrainError(fmt::format("{}: {} tokens, the model's context is {}", path.string(),
                                 batch.input_ids.size(1), config.max_context_tokens));
  }
  return batch;
}

void check_targets(const ProbeBatch& batch, int64_t vocab, int64_t ignore_index,
                   const std::filesystem::path& path) {
  const Tensor counted = batch.targets.masked_select(batch.targets.ne(ignore_index));
  if (counted.numel() == 0) throw TrainError(path.string() + ": every target is ignored");
  if (counted.min().item<int64_t>() < 0 || counted.max().item<int64_t>() >= vocab) {
    throw TrainError(fmt::format("{}: tensor targets: expected tokens in 0..{} or the ignored {}",
                                 path.string(), vocab - 1, ignore_index));
  }
}

Json loss_report(const KvpLosses& losses) {
  Json report;
  report["base_loss"] = losses.base.cross_entropy.item<float>();
  report["auxiliary_loss"] = losses.auxiliary.cross_entropy.item<float>();
  report["z_loss_base"] = losses.base.z_loss.item<float>();
  report["z_loss_auxiliary"] = losses.auxiliary.z_loss.item<float>();
  const auto per_layer = [&](const char* kind, const Tensor& values) {
    for (int64_t i = 0; i < values.size(0); ++i) {
      report[fmt::format("{}/{}", kind, i)] = values[i].item<float>();
    }
    report[fmt::format("{}/total", kind)] = values.sum().item<float>();
    report[fmt::format("{}/average", kind)] = values.mean().item<float>();
  };
  per_layer("k_loss", losses.key_consistency);
  per_layer("v_loss", losses.value_consistency);
  report["total_loss"] = losses.total.item<float>();
  return report;
}

/// [B, T, heads, head_dim] -> [B, heads, T, head_dim], as the runtime keeps caches.
Tensor heads_first(const Tensor& x) { return x.transpose(1, 2).contiguous(); }

void add_trace(TensorMap& tensors, const KvpTrace& trace, const Model& base,
               const Model& auxiliary) {
  tensors["train/base_logits"] = logits(base, trace.base_hidden);
  tensors["train/auxiliary_logits"] = logits(auxiliary, trace.auxiliary_hidden);
  for (size_t i = 0; i < trace.predicted.size(); ++i) {
    const std::string n = std::to_string(i);
    tensors["train/predicted_key_normed." + n] = heads_first(trace.predicted[i].key);
    tensors["train/predicted_value." + n] = heads_first(trace.predicted[i].value);
    tensors["train/target_key_normed." + n] = heads_first(trace.target[i].key);
    tensors["train/target_value." + n] = heads_first(trace.target[i].value);
  }
}

}  // namespace

ProbeResult probe(const ProbeOptions& options) {
  const LoadedBundle bundle = load_bundle(options.bundle);
  const ModelConfig& base_config = bundle.base.config;
  const ModelConfig& auxiliary_config = bundle.auxiliary.config;
  const ProbeBatch batch = read_batch(options.batch, base_config);
  KvpLossOptions loss = options.loss;
  loss.lambda_consistency =
      options.lambda_consistency.value_or(1.0 / static_cast<double>(base_config.n_layers()));
  check_targets(batch, base_config.vocab_size, loss.cross_entropy.ignore_index, options.batch);

  std::vector<ParameterSpec> specs =
      with_prefix("auxiliary.", model_parameter_specs(auxiliary_config));
  const auto predictor_specs = with_prefix(
      "predictor.",
      predictor_parameter_specs(base_config, auxiliary_config, bundle.manifest.plan.layer_map()));
  specs.insert(specs.end(), predictor_specs.begin(), predictor_specs.end());
  TensorMap values;
  add_with_prefix(values, "auxiliary.", bundle.auxiliary.values);
  add_with_prefix(values, "predictor.", bundle.predictor);
  FlatParameters parameters(specs, values, options.device, {.compute = options.compute});
  Gradients gradients(parameters);

  const TensorMap views = gradients.views(/*last=*/true);
  const int64_t tokens = batch.input_ids.size(1);
  const auto rope = [&](const ModelConfig& config) {
    return rope_table(config, tokens, options.device);
  };
  const Model base = bind_model(base_config, rope(base_config),
                                frozen(bundle.base.values, options.compute, options.device), "");
  const Model auxiliary = bind_model(auxiliary_config, rope(auxiliary_config), views, "auxiliary.");
  const Predictor predictor = bind_predictor(bundle.manifest.plan.layer_map(), views, "predictor.");

  KvpTrace trace;
  const Tensor ids = batch.input_ids.to(options.device);
  const KvpLosses losses =
      kvp_loss(base, auxiliary, predictor, ids, batch.targets.to(options.device), loss, {}, &trace);
  losses.total.backward();
  gradients.finish();

  ProbeResult result;
  result.report["losses"] = loss_report(losses);
  for (const auto& [name, gradient] : gradients.by_name()) {
    result.report["grad_norms"][name] = gradient.norm().item<float>();
    result.tensors["grad/" + name] = gradient;
  }
  const at::NoGradGuard no_grad;
  add_trace(result.tensors, trace, base, auxiliary);
  result.tensors["exact/logits"] = logits(base, forward(base, ids));
  result.tensors["auxiliary/logits"] = result.tensors["train/auxiliary_logits"];
  if (!options.out.empty()) write_tensors(options.out, result.tensors, DType::kF32);
  return result;
}

}  // namespace kvcast::train
