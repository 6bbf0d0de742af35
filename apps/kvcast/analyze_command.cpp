// kvcast analyze: how far a bundle's predicted cache is from the exact one.
#include <fmt/format.h>

#include <algorithm>

#include "analysis/analysis.h"
#include "analysis/text_windows.h"
#include "base/macros.h"
#include "base/mapped_file.h"
#include "command.h"
#include "kvcast/version.h"
#include "models_folder.h"
#include "runtime/model_impl.h"

namespace kvcast {
namespace {

using namespace analysis;

struct AnalyzeOptions {
  ModelOptions model;
  std::string data, label, out;
  int64_t windows = 64;
  int64_t window_tokens = 512;
  int64_t batch = 8;
  std::string format = "md";
};

std::string directory_name(const std::filesystem::path& path) {
  const auto normal = std::filesystem::absolute(path).lexically_normal();
  return (normal.filename().empty() ? normal.parent_path() : normal).filename().string();
}

Status check(const AnalyzeOptions& options, const Model& model) {
  if (!model.is_bundle()) {
    return fail(fmt::format(
        "{}: a plain model has no predicted cache to analyze; name a KV-prediction bundle "
        "(kvcast list shows some, kvcast fit and kvcast-train adapt make one for a model)",
        options.model.directory));
  }
  if (const auto tokenized = model.tokenize(""); !tokenized) {
    return tl::unexpected(tokenized.error());
  }
  if (options.window_tokens > model.context_tokens()) {
    return fail(fmt::format("--tokens {}: the context is {} tokens", options.window_tokens,
                            model.context_tokens()));
  }
  return {};
}

/// nullopt: interrupted.
Result<std::optional<Analysis>> analyze(const AnalyzeOptions& options, const Model& model,
                                        const std::stop_token& stop) {
  KVCAST_TRY(TextWindows text, TextWindows::open(options.data, model, options.window_tokens));
  CacheAnalyzer analyzer(model.impl().models,
                         AnalyzerOptions{.window_tokens = options.window_tokens});
  int64_t done = 0;
  while (done < options.windows) {
    std::vector<std::vector<int32_t>> batch;
    while (static_cast<int64_t>(batch.size()) < std::min(options.batch, options.windows - done)) {
      KVCAST_TRY(auto window, text.next());
      if (window.empty()) break;
      batch.push_back(std::move(window));
    }
    if (batch.empty()) break;
    if (!analyzer.add(batch, stop)) return std::nullopt;
    done += static_cast<int64_t>(batch.size());
    show_progress(fmt::format("{} of {} windows", done, options.windows));
  }
  show_progress("");
  if (done == 0) {
    return fail(fmt::format("{}: no document of {} tokens in it; see --tokens", options.data,
                            options.window_tokens));
  }
  return analyzer.result();
}

/// The paper's findings, as numbers.
std::string findings(const Analysis& analysis) {
  std::vector<double> keys, values;
  double off_centre = 0;
  for (const LayerAnalysis& layer : analysis.layers) {
    keys.push_back(layer.keys.l1.value);
    values.push_back(layer.values.l1.value);
    for (const CacheErrors* errors : {&layer.keys, &layer.values}) {
      if (errors->standard_deviation > 0) {
        off_centre = std::max(off_centre, std::abs(errors->mean) / errors->standard_deviation);
      }
    }
  }
  return fmt::format(
      "\n{} windows of {} tokens. L1: mean |predicted - exact|; relative: over mean |exact|; mean "
      "/ σ: "
      "of predicted - exact.\n"
      "Last quarter of the layers over the first: keys {:.2f}, values {:.2f}. Largest |mean| / σ: "
      "{:.3f}.\n",
      analysis.windows, analysis.window_tokens, depth_trend(keys), depth_trend(values), off_centre);
}

Result<int> run_analyze(const AnalyzeOptions& options) {
  InterruptScope interrupt;
  std::shared_ptr<const Model> model;
  {
    const InterruptScope::ImmediateExit loading(interrupt);
    KVCAST_TRY(model, options.model.load());
  }
  KVCAST_CHECK(check(options, *model));
  KVCAST_TRY(std::optional<Analysis> result, analyze(options, *model, interrupt.token()));
  if (!result) return kExitInterrupted;

  Analysis& analysis = *result;
  KVCAST_TRY(const std::filesystem::path directory, find_model(options.model.directory));
  analysis.label = options.label.empty() ? directory_name(directory) : options.label;
  analysis.model = options.model.directory.empty() ? analysis.label : options.model.directory;
  analysis.dtype = dtype_text(model->dtype());
  analysis.data = std::filesystem::path(options.data).filename().string();
  analysis.commit = commit();

  if (!options.out.empty()) {
    std::error_code unmade;  // then the next line says why
    std::filesystem::create_directories(options.out, unmade);
    KVCAST_CHECK(write_file_atomically(std::filesystem::path(options.out) / "analysis.json",
                                       to_json(analysis)));
  }
  if (options.format == "json") {
    fmt::print("{}", to_json(analysis));
  } else if (options.format == "csv") {
    fmt::print("{}", to_table(analysis).to_csv());
  } else {
    fmt::print("{}{}", to_table(analysis).to_markdown(), findings(analysis));
  }
  return kExitOk;
}

}  // namespace

void register_analyze(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<AnalyzeOptions>();
  CLI::App& command = *app.add_subcommand(
      "analyze", "error of a bundle's predicted keys and values by layer and position");
  options->model.add_to(command);
  command.add_option("--data", options->data, "plain text, best one that no model was trained on")
      ->required();
  command.add_option("--limit", options->windows, "windows of text at most")
      ->check(is_whole_number(1))
      ->capture_default_str();
  command.add_option("--tokens", options->window_tokens, "length of a window")
      ->check(is_whole_number(2))
      ->capture_default_str();
  command.add_option("-b,--batch", options->batch, "windows at once")
      ->check(is_whole_number(1, 4096))
      ->capture_default_str();
  command.add_option("--label", options->label,
                     "what figures call the model (default: the directory's name)");
  command.add_option("--out", options->out,
                     "directory for analysis.json, which kvcast-report draws");
  command.add_option("--format", options->format, "what is printed: md, csv or json")
      ->check(CLI::IsMember({"md", "csv", "json"}))
      ->capture_default_str();
  command.callback([options, &exit_code] {
    const auto result = run_analyze(*options);
    exit_code = result ? *result : report_error(result.error());
  });
}

}  // namespace kvcast
