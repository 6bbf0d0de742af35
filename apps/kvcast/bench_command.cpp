#include <fmt/format.h>

#include <algorithm>

#include "base/macros.h"
#include "base/processors.h"
#include "base/stopwatch.h"
#include "bench.h"
#include "command.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kvcast/version.h"
#include "model/architectures.h"
#include "model/bundle.h"
#include "model/model_text.h"
#include "models_folder.h"
#include "runtime/model_impl.h"

namespace kvcast {
namespace {

struct BenchOptions {
  ModelOptions model;
  std::string arch, auxiliary;
  std::vector<int64_t> prompt_tokens = {128, 512};
  std::vector<int64_t> batches = {1};
  std::vector<std::string> prefills, dtypes;
  int repetitions = 7;
  int decode_steps = 16;
  std::string format = "md";
  std::string compare;
};

/// What is measured: named shapes with random weights, or a loaded model.
struct Subject {
  std::string name;
  Models models;
  std::unique_ptr<Tokenizer> tokenizer;
};

Result<Subject> make_random_subject(const BenchOptions& options, std::optional<WeightType> asked,
                                    int threads) {
  const WeightType type = asked.value_or(WeightType::kBf16);
  KVCAST_TRY(const ModelConfig base, named_architecture(options.arch));
  Subject subject;
  subject.name = options.arch;
  if (options.auxiliary.empty()) {
    subject.models = random_models(base, nullptr, {}, type, threads);
    return subject;
  }
  KVCAST_TRY(const ModelPair pair, named_pair(options.arch, options.auxiliary));
  subject.name += "<-" + options.auxiliary;
  subject.models = random_models(pair.base, &pair.auxiliary, pair.plan, type, threads);
  return subject;
}

Result<Subject> make_subject(const BenchOptions& options, const std::string& dtype, int threads,
                             InterruptScope& interrupt) {
  const InterruptScope::ImmediateExit loading(interrupt);
  KVCAST_TRY(const Dtype parsed, parse_dtype(dtype));
  const std::optional<WeightType> type = weight_type(parsed);
  if (!options.arch.empty()) return make_random_subject(options, type, threads);
  Subject subject;
  KVCAST_TRY(const std::filesystem::path directory, find_model(options.model.directory));
  subject.name = directory.filename().empty() ? directory.parent_path().filename().string()
                                              : directory.filename().string();
  KVCAST_TRY(subject.models, load_models(directory, type, threads));
  std::filesystem::path base = directory;
  if (is_bundle(directory)) {
    KVCAST_TRY(const BundleManifest manifest, read_bundle_manifest(directory));
    base = manifest.base;
  }
  KVCAST_TRY(subject.tokenizer, open_tokenizer(base, options.model.tokenizer));
  if (subject.tokenizer) {
    KVCAST_CHECK(check_tokenizer(*subject.tokenizer, subject.tokenizer->source(),
                                 subject.models.base->config()));
  }
  return subject;
}

Result<std::vector<std::unique_ptr<PrefillStrategy>>> make_strategies(const BenchOptions& options,
                                                                      const Models& models) {
  std::vector<std::string> specs = options.prefills;
  if (specs.empty()) {
    specs = {"exact"};
    if (models.is_bundle()) specs.emplace_back("kv-prediction");
    if (models.auxiliary) specs.emplace_back("auxiliary");
  }
  std::vector<std::unique_ptr<PrefillStrategy>> strategies;
  for (const std::string& spec : specs) {
    KVCAST_TRY(auto strategy, PrefillStrategy::parse(spec));
    if (strategy->needs_bundle() && !models.is_bundle()) {
      return fail(
          fmt::format("--prefill {}: needs a KV-prediction bundle, or --aux beside --arch", spec));
    }
    KVCAST_CHECK(check_strategy(*strategy, models));
    strategies.push_back(std::move(strategy));
  }
  return strategies;
}

Status check_lengths(const BenchOptions& options, const Models& models) {
  int64_t context = models.base->config().max_context_tokens;
  if (models.auxiliary) {
    context = std::min(context, models.auxiliary->config().max_context_tokens);
  }
  for (const int64_t tokens : options.prompt_tokens) {
    if (tokens < 1 || tokens > context - options.decode_steps) {
      return fail(fmt::format("-p {}: with {} decode steps it is not within 1..{}, the context",
                              tokens, options.decode_steps, context));
    }
  }
  return {};
}

/// All cases of one dtype; false: interrupted.
Result<bool> measure_dtype(const BenchOptions& options, const std::string& dtype,
                           InterruptScope& interrupt, BenchRun& run) {
  const Stopwatch loading;
  KVCAST_TRY(Subject subject, make_subject(options, dtype, run.threads, interrupt));
  const WeightType type = subject.models.base->weights().main_type();
  const std::string loaded_dtype(dtype_text(dtype_of(type)));  // what `auto` came to
  BenchRun::Loaded loaded{.dtype = loaded_dtype, .load_ms = loading.elapsed_ms(), .peak = {}};
  KVCAST_TRY(const auto strategies, make_strategies(options, subject.models));
  KVCAST_CHECK(check_lengths(options, subject.models));
  KVCAST_TRY(const Dtype asked, parse_kv_dtype(options.model.kv_dtype));
  subject.models.kv_type = kv_type_of(asked, dtype_of(type));
  std::vector<BenchCase> cases;
  for (const int64_t batch : options.batches) {
    for (const int64_t tokens : options.prompt_tokens) {
      cases.push_back({.arch = subject.name,
                       .dtype = loaded_dtype,
                       .type = type,
                       .models = &subject.models,
                       .tokenizer = subject.tokenizer.get(),
                       .prompt_tokens = tokens,
                       .batch = batch,
                       .strategies = {},
                       .repetitions = options.repetitions,
                       .decode_steps = options.decode_steps});
      for (const auto& strategy : strategies) cases.back().strategies.push_back(strategy.get());
    }
  }
  for (BenchResult& result : measure(cases, interrupt.token())) {
    loaded.peak.ops_per_s = std::max(loaded.peak.ops_per_s, result.peak.ops_per_s);
    loaded.peak.read_bytes_per_s =
        std::max(loaded.peak.read_bytes_per_s, result.peak.read_bytes_per_s);
    run.results.push_back(std::move(result));
  }
  if (interrupt.token().stop_requested()) return false;
  run.loaded.push_back(std::move(loaded));
  return true;
}

Result<int> bench(const BenchOptions& options) {
  InterruptScope interrupt;
  KVCAST_TRY(const Isa isa, isa_from_environment());
  BenchRun run;
  run.machine = machine_name();
  run.isa = isa_name(isa);
  run.commit = commit();
  run.threads = options.model.threads > 0 ? options.model.threads : available_processors();
  if (!options.compare.empty()) {
    KVCAST_TRY(run.earlier, read_earlier_run(options.compare));
  }
  for (const std::string& dtype : options.dtypes) {
    KVCAST_TRY(const bool whole, measure_dtype(options, dtype, interrupt, run));
    if (!whole) return kExitInterrupted;
  }
  fmt::print("{}", to_text(run, options.format));
  return kExitOk;
}

}  // namespace

void register_bench(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App& command = *app.add_subcommand(
      "bench",
      "time to first token and decode speed of a model, or of a shape with random weights");
  command.add_option("MODEL", options->model.directory, kModelHelp);
  auto* arch = command.add_option("--arch", options->arch, "a known shape, e.g. openelm-1.1b");
  command.add_option("--aux", options->auxiliary, "the auxiliary's shape, e.g. openelm-270m")
      ->needs(arch);
  command.add_option("--threads", options->model.threads, "0: one for each core it may use")
      ->check(is_thread_count())
      ->capture_default_str();
  command.add_option("--tokenizer", options->model.tokenizer, "SentencePiece tokenizer.model");
  command.add_option("-p,--prompt-tokens", options->prompt_tokens, "prompt lengths")
      ->delimiter(',')
      ->check(is_whole_number(1))
      ->capture_default_str();
  command.add_option("-b,--batch", options->batches, "sequences at once")
      ->delimiter(',')
      ->check(is_whole_number(1, 4096))
      ->capture_default_str();
  add_prefill_list(command, options->prefills, "strategies, measured in turns",
                   PrefillStrategy::parse);
  command
      .add_option(
          "--dtype", options->dtypes,
          "auto (as the model is stored; bf16 with --arch), f32, bf16, int8, int4, int8-blocks")
      ->delimiter(',')
      ->check(checked_by(parse_dtype))
      ->default_val(std::vector<std::string>{"auto"});
  options->model.add_kv_dtype_to(command);
  command.add_option("-r,--repetitions", options->repetitions, "of each case")
      ->check(is_whole_number(1, 1000))
      ->capture_default_str();
  command.add_option("--decode", options->decode_steps, "decode steps after each prompt; 0: none")
      ->check(is_whole_number(0, 1000))
      ->capture_default_str();
  command.add_option("--format", options->format, "md, csv or json")
      ->check(CLI::IsMember({"md", "csv", "json"}))
      ->capture_default_str();
  command.add_option("--compare", options->compare,
                     "what --format json printed earlier: adds how many times faster this run is");
  command.callback([options, &exit_code] {
    auto result = bench(*options);
    exit_code = result ? *result : report_error(result.error());
  });
}

}  // namespace kvcast
