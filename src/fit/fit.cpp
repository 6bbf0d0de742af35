#include "fit/fit.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <numeric>

#include "analysis/text_windows.h"
#include "base/macros.h"
#include "base/stopwatch.h"
#include "fit/bundle_writer.h"
#include "fit/choice.h"
#include "fit/statistics.h"
#include "model/flops.h"
#include "runtime/model_impl.h"

namespace kvcast {
namespace {

constexpr int64_t kCostTokens = 512;
constexpr int64_t kHeldOutEvery = 10;  // the last of each ten windows is held out
constexpr double kSaveEveryMs = 60'000;

double reduction_of(const ModelConfig& base, const ModelConfig& auxiliary,
                    const ForecastPlan& plan) {
  return exact_cost(base, kCostTokens).total() /
         kv_prediction_cost(base, auxiliary, plan, kCostTokens).total();
}

/// A plan whose forecast layers all read one input.
ForecastPlan uniform_plan(const ModelConfig& base, int64_t exact_layers, ForecastInput input) {
  ForecastPlan plan;
  plan.exact_layers = exact_layers;
  plan.inputs.assign(static_cast<size_t>(base.n_layers()), input);
  return plan;
}

class Fitter {
 public:
  explicit Fitter(const FitOptions& options)
      : options_(options),
        base_(*options.base->impl().models.base),
        auxiliary_(options.auxiliary ? options.auxiliary->impl().models.base.get() : nullptr),
        auxiliary_config_(auxiliary_ != nullptr ? auxiliary_->config() : ModelConfig{}),
        shape_(FitShape::of(auxiliary_config_, options.kinds, options.sink_tokens,
                            options.exact_layers)) {}

  Result<FitResult> run() {
    KVCAST_CHECK(check());
    KVCAST_TRY(const int64_t auxiliary_layers, layers_within_budget());
    FitResult result;
    Statistics statistics =
        Statistics::empty(shape_, base_.config(), auxiliary_config_, fingerprint());
    if (options_.merge.empty()) {
      KVCAST_TRY(statistics, gather(std::move(statistics), result.unseen));
    } else {
      for (const auto& file : options_.merge) {
        KVCAST_TRY(const Statistics part,
                   Statistics::load(file, Statistics::empty(shape_, base_.config(),
                                                            auxiliary_config_, fingerprint())));
        statistics.merge(part, base_.threads());
      }
    }
    result.fitted_rows = statistics.fitted[0].rows;
    result.held_out_rows = statistics.held_out[0].rows;
    if (options_.shards > 1) return result;
    if (result.fitted_rows == 0 || result.held_out_rows == 0) {
      return fail(fmt::format(
          "{}: {} positions to fit on and {} to choose by, expected some of "
          "each: at least {} windows of text",
          options_.output.string(), result.fitted_rows, result.held_out_rows, kHeldOutEvery));
    }
    const std::vector<LayerMaps> maps =
        choose_maps(shape_, statistics, base_.config(), auxiliary_layers, base_.threads());
    result.plan = uniform_plan(base_.config(), options_.exact_layers, {});
    result.plan.sink_tokens = options_.sink_tokens;
    for (const LayerMaps& layer : maps) {
      result.plan.inputs[layer.chosen.layer] = layer.chosen.input;
      result.layers.push_back(layer.chosen);
    }
    result.reduction = reduction_of(base_.config(), auxiliary_config_, result.plan);
    KVCAST_CHECK(write_fitted_bundle(options_, result, maps));
    std::error_code ignored;
    std::filesystem::remove(statistics_file(), ignored);
    return result;
  }

 private:
  Status check() const {
    const int64_t layers = base_.config().n_layers();
    if (options_.exact_layers < 0 || options_.exact_layers >= layers) {
      return fail(fmt::format("exact layers {}: expected 0 to {}, the base has {} layers",
                              options_.exact_layers, layers - 1, layers));
    }
    if (shape_.blocks.empty()) return fail("nothing to forecast from: expected an auxiliary");
    if (options_.window_tokens <= options_.sink_tokens) {
      return fail(fmt::format("windows of {} tokens: expected more than the {} sink tokens",
                              options_.window_tokens, options_.sink_tokens));
    }
    std::error_code ignored;
    if (options_.shards == 1 && std::filesystem::exists(options_.output, ignored)) {
      return fail(fmt::format("{}: exists already; expected a name that is free",
                              options_.output.string()));
    }
    return auxiliary_ == nullptr ? Status() : check_tokenizers();
  }

  /// That both models cut a text of many kinds of characters into the same tokens.
  Status check_tokenizers() const {
    constexpr std::string_view kText =
        "The 1,024 quick foxes' caf\xC3\xA9 cost \xE2\x82\xAC"
        "3.50;\n\tint main() { return x->y != 0; }  \xE4\xBD\xA0\xE5\xA5\xBD "
        "\xD0\xBC\xD0\xB8\xD1\x80 \xF0\x9F\x99\x82\n\n";
    KVCAST_TRY(const auto ours, options_.base->tokenize(kText));
    KVCAST_TRY(const auto theirs, options_.auxiliary->tokenize(kText));
    if (ours == theirs) return {};
    return fail(
        fmt::format("{}: another tokenizer than that of {}; expected a model that reads the "
                    "same tokens",
                    options_.auxiliary_path.string(), options_.base_path.string()));
  }

  /// How many auxiliary layers may run.
  Result<int64_t> layers_within_budget() const {
    int64_t layers = auxiliary_config_.n_layers();
    if (options_.reduction <= 0 || layers == 0) return layers;
    for (; layers > 0; --layers) {
      const ForecastPlan plan = uniform_plan(base_.config(), options_.exact_layers,
                                             {.layer = layers - 1, .kind = options_.kinds[0]});
      if (reduction_of(base_.config(), auxiliary_config_, plan) >= options_.reduction)
        return layers;
    }
    return fail(fmt::format("a reduction of {}: not even the auxiliary's first layer allows it",
                            options_.reduction));
  }

  [[nodiscard]] std::string fingerprint() const {
    std::string kinds, files;
    for (const InputKind kind : options_.kinds) kinds += fmt::format(" {}", input_kind_name(kind));
    for (const auto& file : options_.data) files += " " + file.string();
    return fmt::format("{} <- {}, {} exact layers, {} sinks,{}, {} tokens in windows of {} of{}",
                       options_.base_path.string(),
                       auxiliary_ != nullptr ? options_.auxiliary_path.string() : "itself",
                       options_.exact_layers, options_.sink_tokens, kinds, options_.tokens,
                       options_.window_tokens, files);
  }

  [[nodiscard]] std::filesystem::path statistics_file() const {
    if (options_.shards > 1) return options_.output;
    return options_.output.string() + ".statistics";
  }

  /// Reads the text, or what an interrupted fit has not read of it yet.
  Result<Statistics> gather(Statistics statistics, std::vector<std::vector<int32_t>>& unseen) {
    std::error_code ignored;
    if (std::filesystem::exists(statistics_file(), ignored)) {
      KVCAST_TRY(statistics, Statistics::load(statistics_file(), std::move(statistics)));
    }
    std::vector<analysis::TextWindows> files;
    for (const auto& file : options_.data) {
      KVCAST_TRY(auto windows,
                 analysis::TextWindows::open(file, *options_.base, options_.window_tokens));
      files.push_back(std::move(windows));
    }
    StatisticsReader reader(base_, auxiliary_, shape_);
    const int64_t wanted = options_.tokens / options_.window_tokens;
    const int64_t known = statistics.windows;
    Stopwatch since_saved;
    for (int64_t window = 0, own = 0;
         window < wanted + options_.unseen_windows && !files.empty();) {
      const size_t from = static_cast<size_t>(window) % files.size();  // in turns
      KVCAST_TRY(const auto tokens, files[from].next());
      if (tokens.empty()) {
        files.erase(files.begin() + static_cast<std::ptrdiff_t>(from));
        continue;
      }
      const int64_t number = window++;
      if (number >= wanted) {
        unseen.push_back(tokens);
        continue;
      }
      if (number % options_.shards != options_.shard - 1 || own++ < known) continue;
      const bool held_out = number / options_.shards % kHeldOutEvery == kHeldOutEvery - 1;
      if (!reader.read(tokens, held_out ? statistics.held_out : statistics.fitted, options_.stop)) {
        KVCAST_CHECK(statistics.save(statistics_file()));
        return fail("interrupted; the same command goes on from here");
      }
      ++statistics.windows;
      if (options_.on_progress) options_.on_progress(window, wanted);
      if (since_saved.elapsed_ms() > kSaveEveryMs) {
        KVCAST_CHECK(statistics.save(statistics_file()));
        since_saved = Stopwatch();
      }
    }
    KVCAST_CHECK(statistics.save(statistics_file()));
    return statistics;
  }

  const FitOptions& options_;
  const Transformer& base_;
  const Transformer* auxiliary_;
  ModelConfig auxiliary_config_;
  FitShape shape_;
};

}  // namespace

Result<int64_t> exact_layers_for(const ModelConfig& base, double reduction) {
  for (int64_t layers = base.n_layers() - 1; layers > 0; --layers) {
    const ForecastPlan plan = uniform_plan(
        base, layers,
        {.reader = PromptReader::kBase, .layer = layers - 1, .kind = InputKind::kResidual});
    if (reduction_of(base, {}, plan) >= reduction) return layers;
  }
  return fail(
      fmt::format("a reduction of {}: not even one layer of the base allows it", reduction));
}

Result<FitResult> fit(const FitOptions& options) { return Fitter(options).run(); }

}  // namespace kvcast
