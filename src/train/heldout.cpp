#include "train/heldout.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "train/cross_entropy.h"
#include "train/data/error.h"
#include "train/model_files.h"
#include "train/predictor.h"

namespace kvcast::train {
namespace {

/// Windows [n, width] of every document of the split that is long enough: BOS, then the document's
/// next width - 1 tokens.
std::vector<std::vector<int64_t>> windows_of(const TokenStream& stream, const ShardIndex& index,
                                             int64_t width) {
  std::vector<int64_t> tokens(static_cast<size_t>(stream.size()));
  stream.copy(0, stream.size(), tokens.data());
  std::vector<std::vector<int64_t>> windows;
  std::vector<int64_t> window;
  for (const int64_t token : tokens) {
    if (token == index.bos_token) {
      window = {token};
    } else if (!window.empty()) {
      window.push_back(token);
    }
    if (static_cast<int64_t>(window.size()) == width) {
      windows.push_back(std::move(window));
      window = {index.bos_token};
    }
  }
  return windows;
}

Tensor held_out_windows(const HeldoutOptions& options, const ShardIndex& index) {
  const int64_t width = options.prefix_tokens + options.suffix_tokens;
  std::vector<std::vector<int64_t>> windows;
  for (const auto& source : index.sources) {
    const TokenStream stream(options.shards, source.held_out, index.bytes_per_token(),
                             index.vocab_size);
    for (auto& window : windows_of(stream, index, width)) windows.push_back(std::move(window));
  }
  if (windows.empty()) {
    throw TrainError(
        fmt::format("{}: no held-out document has {} tokens", options.shards.string(), width));
  }
  const auto found = static_cast<int64_t>(windows.size());
  const int64_t n = options.max_windows > 0 ? std::min(options.max_windows, found) : found;
  Tensor result = at::empty({n, width}, at::kLong);
  for (int64_t i = 0; i < n; ++i) {
    const auto& window = windows[static_cast<size_t>(i * found / n)];
    std::copy(window.begin(), window.end(), result.data_ptr<int64_t>() + i * width);
  }
  return result;
}

/// Per-window means of one way of reading, collected over batches.
class Score {
 public:
  void add(const Tensor& window_means) { means_.push_back(window_means.to(at::kCPU)); }
  [[nodiscard]] Json report() const {
    const Tensor all = at::cat(means_);
    const double n = static_cast<double>(all.size(0));
    const double error = n > 1 ? all.std().item<double>() / std::sqrt(n) : 0.0;
    return {{"value", all.mean().item<double>()}, {"standard_error", error}};
  }
  [[nodiscard]] double mean() const { return at::cat(means_).mean().item<double>(); }

 private:
  std::vector<Tensor> means_;
};

class Heldout {
 public:
  explicit Heldout(const HeldoutOptions& options) : options_(options) {
    if (is_bundle(options.model)) {
      const LoadedBundle bundle = load_bundle(options.model);
      base_ = bind(bundle.base);
      auxiliary_ = bind(bundle.auxiliary);
      predictor_ = bind_predictor(bundle.manifest.layer_map,
                                  frozen(bundle.predictor, options.compute, options.device), "");
    } else {
      base_ = bind(load_model(options.model));
    }
  }

  [[nodiscard]] const ModelConfig& config() const { return base_.config; }

  /// windows [n, prefix + suffix]
  void add(const Tensor& windows) {
    const int64_t inputs = windows.size(1) - 1;
    const Tensor tokens = windows.narrow(1, 0, inputs), targets = windows.narrow(1, 1, inputs);
    add_plain(base_, tokens, targets, exact_suffix_, base_window_);
    if (!auxiliary_) return;
    Cache cache = add_plain(*auxiliary_, tokens, targets, auxiliary_suffix_, auxiliary_window_);
    const int64_t predicted = options_.prefix_tokens - options_.tail_tokens;
    for (auto& layer : cache) {
      layer.key_prenorm = layer.key_prenorm.narrow(1, 0, predicted);
      layer.value = layer.value.narrow(1, 0, predicted);
    }
    const Tensor rest = tokens.narrow(1, predicted, inputs - predicted);
    const Tensor hidden =
        forward_after_prefix(base_, rest, predict_cache(predictor_, base_, cache));
    predicted_suffix_.add(suffix(nll(base_, hidden, targets.narrow(1, predicted, rest.size(1)))));
  }

  [[nodiscard]] Json report(int64_t windows) const {
    Json json = {{"model", options_.model.string()},
                 {"windows", windows},
                 {"prefix_tokens", options_.prefix_tokens},
                 {"suffix_tokens", options_.suffix_tokens}};
    json["suffix_nll"]["exact"] = exact_suffix_.report();
    json["window_nll"]["base"] = base_window_.report();
    if (!auxiliary_) return json;
    json["tail_tokens"] = options_.tail_tokens;
    json["suffix_nll"]["auxiliary"] = auxiliary_suffix_.report();
    json["suffix_nll"]["kv_prediction"] = predicted_suffix_.report();
    json["window_nll"]["auxiliary"] = auxiliary_window_.report();
    const double gap = auxiliary_suffix_.mean() - exact_suffix_.mean();
    json["share_of_gap_closed"] = (auxiliary_suffix_.mean() - predicted_suffix_.mean()) / gap;
    return json;
  }

 private:
  [[nodiscard]] Model bind(const LoadedModel& model) const {
    const RopeTable rope =
        make_rope_table(options_.prefix_tokens + options_.suffix_tokens, model.config.head_dim,
                        model.config.rope_theta, options_.device);
    return bind_model(model.config, rope, frozen(model.values, options_.compute, options_.device),
                      "");
  }

  /// [n, T] of the targets' negative log-likelihoods.
  static Tensor nll(const Model& model, const Tensor& hidden, const Tensor& targets) {
    return target_nll(hidden.flatten(0, 1), model.lm_head, targets.flatten()).view(targets.sizes());
  }

  /// Means over the last suffix_tokens columns.
  [[nodiscard]] Tensor suffix(const Tensor& nll) const {
    return nll.narrow(1, nll.size(1) - options_.suffix_tokens, options_.suffix_tokens).mean(1);
  }

  Cache add_plain(const Model& model, const Tensor& tokens, const Tensor& targets, Score& suffix_to,
                  Score& window_to) const {
    Cache cache;
    const Tensor rows = nll(model, forward(model, tokens, &cache), targets);
    suffix_to.add(suffix(rows));
    window_to.add(rows.mean(1));
    return cache;
  }

  HeldoutOptions options_;
  Model base_;
  std::optional<Model> auxiliary_;
  Predictor predictor_;
  Score exact_suffix_, auxiliary_suffix_, predicted_suffix_, base_window_, auxiliary_window_;
};

}  // namespace

Json heldout(const HeldoutOptions& options) {
  if (options.prefix_tokens < 2 || options.suffix_tokens < 1 || options.tail_tokens < 1 ||
      options.tail_tokens >= options.prefix_tokens) {
    throw TrainError("heldout: expected prefix >= 2, suffix >= 1 and 1 <= tail < prefix");
  }
  const at::NoGradGuard no_grad;
  const ShardIndex index = read_shard_index(options.shards);
  Heldout scores(options);
  check_fits(
      scores.config(),
      {.shards = options.shards, .sequence_tokens = options.prefix_tokens + options.suffix_tokens},
      index);
  const Tensor windows = held_out_windows(options, index);
  for (int64_t first = 0; first < windows.size(0); first += options.batch_windows) {
    const int64_t n = std::min(options.batch_windows, windows.size(0) - first);
    scores.add(windows.narrow(0, first, n).to(options.device));
  }
  return scores.report(windows.size(0));
}

}  // namespace kvcast::train
