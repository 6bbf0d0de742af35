#include <fmt/format.h>
#include <unistd.h>

#include <charconv>

#include "base/macros.h"
#include "base/memory_use.h"
#include "base/stopwatch.h"
#include "command.h"
#include "eval/run.h"
#include "fit/fit.h"
#include "models_folder.h"
#include "runtime/model_impl.h"

namespace kvcast {
namespace {

constexpr std::string_view kSelf = "self";
constexpr int64_t kUnseenWindows = 24;

struct FitCommand {
  ModelOptions base;
  std::string auxiliary, output;
  std::vector<std::string> data, merge;
  std::vector<std::string> inputs = {"residual"};
  std::string shard = "1/1";
  int64_t tokens = 20'000, window_tokens = 512, sink_tokens = 4, exact_layers = 0;
  double reduction = 0;
};

Result<InputKind> parse_input_kind(std::string_view name) {
  for (const InputKind kind : {InputKind::kKeyValue, InputKind::kJoint, InputKind::kResidual}) {
    if (name == input_kind_name(kind)) return kind;
  }
  return fail(fmt::format("unknown input \"{}\": expected key-value, joint or residual", name));
}

/// "K/N".
Status parse_shard(const std::string& text, int64_t& shard, int64_t& shards) {
  const char* const end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, shard);
  if (first.ec == std::errc{} && first.ptr != end && *first.ptr == '/') {
    const auto second = std::from_chars(first.ptr + 1, end, shards);
    if (second.ec == std::errc{} && second.ptr == end && shard >= 1 && shard <= shards) return {};
  }
  return fail(fmt::format("shard \"{}\": expected K/N, as in 2/8", text));
}

/// AUXILIARY: "self", "self:N" or a model.
Status read_auxiliary(const FitCommand& command, FitOptions& options) {
  const std::string& text = command.auxiliary;
  if (!text.starts_with(kSelf) || (text.size() > kSelf.size() && text[kSelf.size()] != ':')) {
    ModelOptions auxiliary = command.base;
    auxiliary.directory = text;
    KVCAST_TRY(options.auxiliary, auxiliary.load());
    KVCAST_TRY(options.auxiliary_path, find_model(text));
    return {};
  }
  const ModelConfig& base = options.base->impl().models.base->config();
  if (text == kSelf) {
    if (command.reduction <= 0) return fail("self: expected self:N, or --reduction to choose N");
    KVCAST_TRY(options.exact_layers, exact_layers_for(base, command.reduction));
    return {};
  }
  int64_t layers = 0;
  const char* const end = text.data() + text.size();
  const auto [after, error] = std::from_chars(text.data() + kSelf.size() + 1, end, layers);
  if (error != std::errc{} || after != end || layers < 1 || layers > base.n_layers() - 2) {
    return fail(fmt::format("{}: expected self:N, N from 1 to {}", text, base.n_layers() - 2));
  }
  options.exact_layers = layers + 1;  // of the layer after them keys and values only
  return {};
}

void print(const FitCommand& command, const FitResult& result, double seconds) {
  if (result.layers.empty()) {
    fmt::print("{}: sums of {} positions\n", command.output,
               result.fitted_rows + result.held_out_rows);
    return;
  }
  fmt::print(
      "| layer | from | keys not explained | ridge | values not explained | ridge |\n"
      "|---:|---|---:|---:|---:|---:|\n");
  for (const FittedLayer& layer : result.layers) {
    fmt::print("| {} | {} {} {} | {:.3f} | {:g} | {:.3f} | {:g} |\n", layer.layer,
               prompt_reader_name(layer.input.reader), layer.input.layer,
               input_kind_name(layer.input.kind), layer.key_error, layer.key_ridge,
               layer.value_error, layer.value_ridge);
  }
  fmt::print(
      "\n{}: {} exact layers and {} sink tokens; {:.2f} times fewer operations at 512 tokens; "
      "fitted "
      "on {} positions, chosen by {}; {:.0f} s, {:.1f} GiB at most\n",
      command.output, result.plan.exact_layers, result.plan.sink_tokens, result.reduction,
      result.fitted_rows, result.held_out_rows, seconds,
      static_cast<double>(peak_rss_bytes()) / (1 << 30));
}

/// What the bundle keeps on text that the fit has not read: the last quarter of each window.
Status print_kept(const FitCommand& command, std::vector<Tokens> windows) {
  if (windows.empty()) {
    fmt::print("no text is left to try it on: kvcast eval {} --task nll says what it keeps\n",
               command.output);
    return {};
  }
  ModelOptions bundle = command.base;
  bundle.directory = command.output;
  KVCAST_TRY(const auto model, bundle.load());
  const int64_t prefix = command.window_tokens - command.window_tokens / 4;
  const auto count = windows.size();
  const auto task = nll_task(std::move(windows), prefix);
  Evaluator evaluator(model->impl().models, *model->impl().tokenizer, 0);
  std::vector<EvalStrategy> strategies;
  for (const char* spec : {"exact", "kv-prediction", "kv-prediction:tail=16"}) {
    KVCAST_TRY(strategies.emplace_back(), EvalStrategy::parse(spec));
  }
  PartialFile nothing;
  KVCAST_TRY(const auto scores, run_task(*task, evaluator, strategies, {}, nothing));
  fmt::print(
      "\n{} windows that the fit has not read, {} tokens after {}:\n\n"
      "| prefill | loss | KL from exact | same likeliest token |\n|---|---:|---:|---:|\n",
      count, command.window_tokens - prefix, prefix);
  for (size_t s = 0; s < strategies.size(); ++s) {
    double mean[3] = {};
    for (const ExampleScore& score : scores[s]) {
      for (size_t m = 0; m < 3; ++m) mean[m] += score.metrics[m] / static_cast<double>(count);
    }
    fmt::print("| {} | {:.3f} | {:.3f} | {:.1f}% |\n", strategies[s].spec, mean[0], mean[1],
               100 * mean[2]);
  }
  return {};
}

Result<int> run_fit(const FitCommand& command) {
  InterruptScope interrupt;
  const Stopwatch watch;
  FitOptions options;
  KVCAST_TRY(options.base, command.base.load());
  KVCAST_TRY(options.base_path, find_model(command.base.directory));
  options.exact_layers = command.exact_layers;
  KVCAST_CHECK(read_auxiliary(command, options));
  KVCAST_CHECK(parse_shard(command.shard, options.shard, options.shards));
  options.kinds.clear();
  for (const std::string& name : command.inputs) {
    KVCAST_TRY(const InputKind kind, parse_input_kind(name));
    options.kinds.push_back(kind);
  }
  options.data.assign(command.data.begin(), command.data.end());
  options.merge.assign(command.merge.begin(), command.merge.end());
  options.output = command.output;
  options.sink_tokens = command.sink_tokens;
  options.tokens = command.tokens;
  options.window_tokens = command.window_tokens;
  options.reduction = command.reduction;
  options.unseen_windows = options.shards == 1 ? kUnseenWindows : 0;
  options.stop = interrupt.token();
  if (isatty(STDERR_FILENO) != 0) {
    options.on_progress = [](int64_t window, int64_t wanted) {
      print_note("\rwindow {} of {}{}", window, wanted, window == wanted ? "\n" : "");
    };
  }
  const auto result = fit(options);
  if (!result && interrupt.token().stop_requested()) return kExitInterrupted;
  if (!result) return tl::unexpected(result.error());
  print(command, *result, watch.elapsed_ms() / 1000);
  if (!result->layers.empty()) KVCAST_CHECK(print_kept(command, result->unseen));
  return kExitOk;
}

void add_options(CLI::App& command, FitCommand& options) {
  options.base.add_to(command);
  command
      .add_option("AUXILIARY", options.auxiliary,
                  "a model with the same tokenizer, or self:N, the base's own first N layers; self "
                  "with --reduction chooses N")
      ->required();
  command.add_option("--data", options.data, "text files to fit on, read in turns")->required();
  command.add_option("--out", options.output, "bundle to write; must not exist")->required();
  command.add_option("--tokens", options.tokens, "tokens to read, a tenth of them held out")
      ->check(is_whole_number(1))
      ->capture_default_str();
  command.add_option("--window", options.window_tokens, "tokens of a window")
      ->check(is_whole_number(2, 1 << 20))
      ->capture_default_str();
  command.add_option("--sink-tokens", options.sink_tokens, "first positions that stay exact")
      ->check(is_whole_number(0, 1024))
      ->capture_default_str();
  command
      .add_option("--exact-layers", options.exact_layers,
                  "with an auxiliary: first layers of the base that run too")
      ->check(is_whole_number(0))
      ->capture_default_str();
  command.add_option("--inputs", options.inputs, "what maps may read: key-value, joint, residual")
      ->delimiter(',')
      ->check(checked_by(parse_input_kind))
      ->capture_default_str();
  command.add_option("--reduction", options.reduction,
                     "least reduction of operations at 512 tokens: bounds how deep is read");
  command
      .add_option("--shard", options.shard,
                  "K/N: read each N-th window only, write the sums to OUT")
      ->capture_default_str();
  command.add_option("--merge", options.merge, "sums of all shards, instead of reading");
}

}  // namespace

void register_fit(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<FitCommand>();
  CLI::App* command = app.add_subcommand(
      "fit", "make a KV-prediction bundle for a model, in closed form, on this machine");
  add_options(*command, *options);
  command->callback([options, &exit_code] {
    const auto result = run_fit(*options);
    exit_code = result ? *result : report_error(result.error());
  });
}

}  // namespace kvcast
