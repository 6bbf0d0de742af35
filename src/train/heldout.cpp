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
  /// Stays on the device: the next batch need not wait for this one.
  void add(const Tensor& window_means) { means_.push_back(window_means); }
  [[nodiscard]] Json report() const {
    const Tensor all = at::cat(means_).cpu();
    const double n = static_cast<double>(all.size(0));
    const double error = n > 1 ? all.std().item<double>() / std::sqrt(n) : 0.0;
    return {{"value", all.mean().item<double>()}, {"standard_error", error}};
  }
  [[nodiscard]] double mean() const { return at::cat(means_).mean().item<double>(); }

 private:
  std::vector<Tensor> means_;
};

/// One model or bundle, and its scores so far.
class Candidate {
 public:
  Candidate(const std::filesystem::path& path, const HeldoutOptions& options)
      : path_(path), options_(options), predicted_suffix_(options.tails.size()) {
    if (is_bundle(path)) {
      const LoadedBundle bundle = load_bundle(path);
      base_ = bind(bundle.base);
      auxiliary_ = bind(bundle.auxiliary);
      predictor_ = bind_predictor(bundle.manifest.plan.layer_map(),
                                  frozen(bundle.predictor, options.compute, options.device), "");
    } else {
      base_ = bind(load_model(path));
    }
  }

  [[nodiscard]] const ModelConfig& config() const { return base_.config; }

  /// windows [n, prefix + suffix]
  void add(const Tensor& windows) {
    const int64_t inputs = windows.size(1) - 1;
    const Tensor tokens = windows.narrow(1, 0, inputs), targets = windows.narrow(1, 1, inputs);
    add_plain(base_, tokens, targets, exact_suffix_, base_window_);
    if (!auxiliary_) return;
    const Cache cache =
        add_plain(*auxiliary_, tokens, targets, auxiliary_suffix_, auxiliary_window_);
    for (size_t i = 0; i < options_.tails.size(); ++i) {
      const int64_t predicted = options_.prefix_tokens - options_.tails[i];
      const Tensor rest = tokens.narrow(1, predicted, inputs - predicted);
      const Tensor hidden = forward_after_prefix(
          base_, rest, predict_cache(predictor_, base_, prefix_of(cache, predicted)));
      predicted_suffix_[i].add(
          suffix(nll(base_, hidden, targets.narrow(1, predicted, rest.size(1)))));
    }
  }

  /// Of the answering model read exactly.
  [[nodiscard]] double exact_mean() const { return exact_suffix_.mean(); }

  /// `alone`: the loss that closes nothing of the gap; none: that of the bundle's auxiliary.
  [[nodiscard]] Json report(std::optional<double> alone) const {
    Json json = {{"model", path_.string()}};
    json["suffix_nll"]["exact"] = exact_suffix_.report();
    json["window_nll"]["base"] = base_window_.report();
    if (!auxiliary_) return json;
    json["suffix_nll"]["auxiliary"] = auxiliary_suffix_.report();
    json["window_nll"]["auxiliary"] = auxiliary_window_.report();
    const double nothing = alone.value_or(auxiliary_suffix_.mean());
    const double gap = nothing - exact_suffix_.mean();
    for (size_t i = 0; i < options_.tails.size(); ++i) {
      const std::string spec = fmt::format("kv-prediction:tail={}", options_.tails[i]);
      json["suffix_nll"][spec] = predicted_suffix_[i].report();
      json["share_of_gap_closed"][spec] = (nothing - predicted_suffix_[i].mean()) / gap;
    }
    return json;
  }

 private:
  [[nodiscard]] Model bind(const LoadedModel& model) const {
    const RopeTable rope =
        rope_table(model.config, options_.prefix_tokens + options_.suffix_tokens, options_.device);
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

  std::filesystem::path path_;
  const HeldoutOptions& options_;
  Model base_;
  std::optional<Model> auxiliary_;
  Predictor predictor_;
  Score exact_suffix_, auxiliary_suffix_, base_window_, auxiliary_window_;
  std::vector<Score> predicted_suffix_;  // by tail
};

void check(const HeldoutOptions& options) {
  const auto fits = [&](int64_t tail) { return tail >= 1 && tail < options.prefix_tokens; };
  if (options.prefix_tokens < 2 || options.suffix_tokens < 1 || options.models.empty() ||
      !std::all_of(options.tails.begin(), options.tails.end(), fits)) {
    throw TrainError(
        "heldout: expected a model, prefix >= 2, suffix >= 1 and every tail in 1..prefix - 1");
  }
}

}  // namespace

Json heldout(const HeldoutOptions& options) {
  check(options);
  const at::NoGradGuard no_grad;
  const ShardIndex index = read_shard_index(options.shards);
  const Tensor windows = held_out_windows(options, index);
  Json report = {{"windows", windows.size(0)},
                 {"prefix_tokens", options.prefix_tokens},
                 {"suffix_tokens", options.suffix_tokens},
                 {"results", Json::array()}};
  const auto scored = [&](const std::filesystem::path& path) {
    Candidate candidate(path, options);
    check_fits(candidate.config(),
               {.shards = options.shards,
                .sequence_tokens = options.prefix_tokens + options.suffix_tokens},
               index);
    for (int64_t first = 0; first < windows.size(0); first += options.batch_windows) {
      const int64_t n = std::min(options.batch_windows, windows.size(0) - first);
      candidate.add(windows.narrow(0, first, n).to(options.device));
    }
    return candidate;
  };
  std::optional<double> alone;
  if (!options.alone.empty()) {
    alone = scored(options.alone).exact_mean();
    report["alone"] = {{"model", options.alone.string()}, {"suffix_nll", *alone}};
  }
  for (const auto& path : options.models) report["results"].push_back(scored(path).report(alone));
  return report;
}

}  // namespace kvcast::train
