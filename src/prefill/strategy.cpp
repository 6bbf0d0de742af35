#include "prefill/strategy.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>

#include "base/macros.h"
#include "base/stopwatch.h"
#include "prefill/mixing.h"
#include "prefill/tail_run.h"
#include "prefill/unread_tokens.h"

namespace kvcast {

namespace {

using Strategy = Result<std::unique_ptr<PrefillStrategy>>;

constexpr std::string_view kTail = "tail=", kRefine = "refine=", kGate = "gate=", kMix = "mix=",
                           kTtft = "ttft=";
constexpr int64_t kMostRefined = 512;  // rows a step: more would keep an answer waiting

/// The whole text as a number.
template <typename Number>
std::optional<Number> parse_number(std::string_view text) {
  Number number = 0;
  const char* const end = text.data() + text.size();
  const auto [after, error] = std::from_chars(text.data(), end, number);
  return error == std::errc{} && after == end ? std::optional(number) : std::nullopt;
}

/// A share of the prompt, in (0, 1].
std::optional<double> parse_fraction(std::string_view text) {
  const auto fraction = parse_number<double>(text);
  return fraction && *fraction > 0 && *fraction <= 1 ? fraction : std::nullopt;
}

/// `tail=N` and, where it `forecasts`, `refine=auto|N|off`, `gate=auto|X|off` and `mix=W|off`, with
/// commas between. None: another option.
Result<std::optional<KvPredictionOptions>> parse_options(std::string_view spec,
                                                         std::string_view text, bool forecasts) {
  KvPredictionOptions options;
  while (!text.empty()) {
    const std::string_view option = text.substr(0, text.find(','));
    text.remove_prefix(std::min(option.size() + 1, text.size()));
    if (option.starts_with(kTail)) {
      const auto tail = parse_number<int64_t>(option.substr(kTail.size()));
      if (!tail || *tail < 1) {
        return fail(fmt::format(
            "prefill strategy \"{}\": tail must be a whole number of at least 1", spec));
      }
      options.tail = *tail;
    } else if (forecasts && option.starts_with(kRefine)) {
      const std::string_view value = option.substr(kRefine.size());
      const auto rows = parse_number<int64_t>(value);
      if (value != "auto" && value != "off" && (!rows || *rows < 1 || *rows > kMostRefined)) {
        return fail(
            fmt::format("prefill strategy \"{}\": refine must be auto, off or a whole number "
                        "from 1 to {}",
                        spec, kMostRefined));
      }
      options.refine = value == "auto" ? kRefineAuto : rows.value_or(0);
    } else if (forecasts && option.starts_with(kGate)) {
      const std::string_view value = option.substr(kGate.size());
      options.gate = value == "auto" ? kGateAuto : parse_number<double>(value);
      if (value != "auto" && value != "off" && !(options.gate && std::isfinite(*options.gate))) {
        return fail(
            fmt::format("prefill strategy \"{}\": gate must be auto, off or a threshold in nats, "
                        "as in gate=-1",
                        spec));
      }
    } else if (forecasts && option.starts_with(kMix)) {
      const std::string_view value = option.substr(kMix.size());
      const auto share = parse_number<double>(value);
      if (value != "off" && !(share && *share > 0 && *share < 1)) {
        return fail(
            fmt::format("prefill strategy \"{}\": mix must be off or the auxiliary's share of the "
                        "logits, above 0 and below 1, as in mix=0.5",
                        spec));
      }
      options.mix = share.value_or(0);
    } else {
      return std::nullopt;
    }
  }
  return options;
}

Strategy parse_keep(std::string_view spec, std::string_view argument,
                    std::unique_ptr<PrefillStrategy> (*make)(double)) {
  if (const auto keep = parse_fraction(argument)) return make(*keep);
  return fail(
      fmt::format("prefill strategy \"{}\": expected the share of the prompt to keep, above 0 and "
                  "at most 1, as in {}:0.5",
                  spec, spec.substr(0, spec.find(':'))));
}

Strategy parse_lazy(std::string_view spec, std::string_view argument) {
  const size_t dash = argument.find('-');
  if (dash != std::string_view::npos) {
    const auto first = parse_fraction(argument.substr(0, dash));
    const auto last = parse_fraction(argument.substr(dash + 1));
    if (first && last && *first >= *last) return make_lazy_strategy(*first, *last);
  }
  return fail(
      fmt::format("prefill strategy \"{}\": expected two falling shares of the prompt, above 0 and "
                  "at most 1, as in lazy:0.75-0.25",
                  spec));
}

}  // namespace

Strategy PrefillStrategy::parse(std::string_view spec) {
  if (spec == "exact") return make_exact_strategy();
  if (spec == "auxiliary") return make_auxiliary_strategy();
  const size_t colon = std::min(spec.find(':'), spec.size());
  const std::string_view name = spec.substr(0, colon);
  const bool bare = colon == spec.size();
  const std::string_view argument = bare ? "" : spec.substr(colon + 1);
  const bool forecasts = name == "kv-prediction";
  if ((forecasts || name == "zero-cache") && (bare || !argument.empty())) {
    KVCAST_TRY(const auto options, parse_options(spec, argument, forecasts));
    if (options && forecasts) return make_kv_prediction_strategy(*options);
    if (options) return make_zero_cache_strategy(options->tail);
  }
  if (name == "auto" && argument.starts_with(kTtft)) {
    const auto ms = parse_number<int64_t>(argument.substr(kTtft.size()));
    if (ms && *ms >= 1) return make_auto_strategy(*ms);
    return fail(fmt::format(
        "prefill strategy \"{}\": ttft must be a whole number of milliseconds of at least 1",
        spec));
  }
  if (name == "random") return parse_keep(spec, argument, make_random_strategy);
  if (name == "static") return parse_keep(spec, argument, make_static_strategy);
  if (name == "lazy") return parse_lazy(spec, argument);
  return fail(
      fmt::format("unknown prefill strategy \"{}\": expected exact, auxiliary, kv-prediction, "
                  "kv-prediction:tail=N,refine=auto,gate=auto,mix=W, auto:ttft=MS, random:R, "
                  "static:R, lazy:A-B or zero-cache",
                  spec));
}

PrefillReport PrefillStrategy::prefill(const Models& models, std::span<Sequence* const> sequences,
                                       float* logits, PrefillWorkspace& workspace,
                                       const std::stop_token& stop) const {
  CacheRollback rollback(sequences);
  for (Sequence* sequence : sequences) {
    sequence->gate.reset();
    sequence->mix = mix();
  }
  const PrefillStep step{.models = models,
                         .sequences = sequences,
                         .logits = logits,
                         .workspace = workspace,
                         .stop = stop};
  PrefillReport report;
  PrefillState state = PrefillState::kMore;
  while (state == PrefillState::kMore && !report.stopped) state = next(step, report);
  if (state == PrefillState::kLastRun && !report.stopped) {
    const Stopwatch watch;
    for (const Sequence* sequence : sequences) report.computed_tokens += sequence->pending_tokens();
    report.stopped = !decode_step(models, sequences, logits, workspace, stop);
    report.answering_ms(cache_use().answerer) += watch.elapsed_ms();
  }
  if (!report.stopped) mix_in(step, report);
  if (!report.stopped) rollback.dismiss();
  return report;
}

PrefillStart prefill_start(const Models& models, const Sequence& sequence) {
  return {sequence.base.next_position(),
          known_rows(models, sequence, models.plan.auxiliary_layers())};
}

void observe_work(const PrefillStrategy& strategy, const Models& models, const PrefillStart& start,
                  const PrefillReport& report) {
  using Kind = PrefillWork::Kind;
  PrefillPace& pace = *models.prefill_pace;
  const double forecast_ms = report.auxiliary_ms + report.predictor_ms;
  if (strategy.cache_use().family == CacheFamily::kExact) {
    pace.observe(models, {.start = start.base, .rows = report.computed_tokens},
                 forecast_ms + report.base_ms);
    return;
  }
  if (report.predicted_tokens == 0 || strategy.gate() || strategy.mix() != 0) return;
  const int64_t sinks = std::max<int64_t>(models.plan.sink_tokens - start.base, 0);
  const int64_t end = start.base + sinks + report.predicted_tokens;
  const int64_t tail = report.computed_tokens - sinks;
  const PrefillWork forecast{
      .kind = Kind::kForecast, .start = start.known, .rows = end - start.known, .tail = tail};
  if (tail > TailRun::kMostRows) {
    pace.observe(models, forecast, forecast_ms);
    pace.observe(models, {.start = end, .rows = tail}, report.base_ms);
  } else if (tail > 0) {
    PrefillWork both = forecast;
    both.kind = Kind::kForecastWithTail;
    pace.observe(models, both, forecast_ms + report.base_ms);
  }
}

void observe_prefill(const PrefillStrategy& strategy, const Models& models,
                     const PrefillStart& start, const PrefillReport& report, double ms,
                     std::optional<double> estimated_ms) {
  PrefillPace& pace = *models.prefill_pace;
  observe_work(strategy, models, start, report);
  pace.observe_overhead(ms - report.auxiliary_ms - report.predictor_ms - report.base_ms);
  if (estimated_ms) pace.observe_error(*estimated_ms, ms);
}

PrefillState PrefillStrategy::advance(const Models& models, Sequence& sequence, int64_t max_rows,
                                      float* logits, PrefillWorkspace& workspace,
                                      const std::stop_token& stop, PrefillReport& report) const {
  sequence.mix = mix();
  report.auxiliary_logits = nullptr;
  Sequence* const one[] = {&sequence};
  const PrefillStep step{.models = models,
                         .sequences = one,
                         .max_rows = max_rows,
                         .logits = logits,
                         .workspace = workspace,
                         .stop = stop};
  const PrefillState state = next(step, report);
  if (state == PrefillState::kDone && !report.stopped) mix_in(step, report);
  return state;
}

void PrefillStrategy::mix_in(const PrefillStep& step, PrefillReport& report) const {
  if (mix() == 0) return;
  const auto vocab = static_cast<size_t>(step.models.base->config().vocab_size);
  std::vector<std::span<float>> logits;
  for (size_t s = 0; s < step.sequences.size(); ++s) {
    logits.emplace_back(step.logits + s * vocab, vocab);
  }
  if (const float* own = std::exchange(report.auxiliary_logits, nullptr)) {
    if (mixes(step.models, *step.sequences.front())) mix_into(logits.front(), own, mix());
    return;
  }
  const Stopwatch watch;
  report.stopped = !mix_logits(step.models, step.sequences, logits, step.workspace, step.stop);
  report.auxiliary_ms += watch.elapsed_ms();
}

PrefillState run_pending(const PrefillStep& step, CacheMember cache, PrefillReport& report) {
  std::vector<Sequence*> unfinished;
  std::vector<int64_t> ends;
  for (Sequence* sequence : step.sequences) {
    const int64_t begin = (sequence->*cache).next_position();
    const auto tokens = static_cast<int64_t>(sequence->tokens.size());
    if (tokens - begin <= step.max_rows) continue;
    unfinished.push_back(sequence);
    ends.push_back(begin + step.max_rows);
    report.computed_tokens += ends.back() - begin;
  }
  if (unfinished.empty()) return PrefillState::kLastRun;
  const Sequence::Answerer answerer = unfinished.front()->answerer;
  const Stopwatch watch;
  RunLayersOptions options;
  options.stop = step.stop;
  report.stopped = !run_without_output(unfinished.front()->answering_model(step.models), cache,
                                       unfinished, ends, options, step.workspace.of(answerer));
  report.answering_ms(answerer) += watch.elapsed_ms();
  return PrefillState::kMore;
}

Status check_strategy(const PrefillStrategy& strategy, const Models& models) {
  if (!strategy.needs_bundle()) return {};
  if (strategy.gate() == kGateAuto && models.is_bundle() && !models.gate) {
    return fail(
        fmt::format("prefill strategy {}: this bundle has no calibrated gate (key \"gate\" of "
                    "kvcast.json): give a threshold, as in gate=-1, or calibrate one "
                    "(bench/gate.py)",
                    strategy.spec()));
  }
  if (models.is_bundle()) {
    const bool answers =
        strategy.mix() > 0 || strategy.cache_use().answerer == Sequence::Answerer::kAuxiliary;
    if (models.auxiliary_answers() || !answers) return {};
    return fail(fmt::format(
        "prefill strategy {} needs a bundle with an auxiliary that is a model; here the "
        "base's own first layers read the prompt",
        strategy.spec()));
  }
  return fail(
      fmt::format("prefill strategy {} needs a KV-prediction bundle (a directory with "
                  "kvcast.json); this is a plain model",
                  strategy.spec()));
}

tl::expected<void, PromptError> check_prompt(const PrefillStrategy& strategy, const Models& models,
                                             std::span<const int32_t> tokens) {
  const auto refuse = [](std::string message, bool too_long = false) {
    return tl::unexpected(PromptError{too_long, std::move(message)});
  };
  if (auto fits = check_strategy(strategy, models); !fits) {
    return refuse(std::move(fits.error().message));
  }
  if (tokens.empty()) return refuse("the prompt is empty: expected at least one token");
  const ModelConfig& base = models.base->config();
  int64_t limit = base.max_context_tokens;
  if (strategy.needs_bundle() && models.auxiliary) {
    limit = std::min(limit, models.auxiliary->config().max_context_tokens);
  }
  if (std::ssize(tokens) > limit) {
    return refuse(
        fmt::format(
            "the prompt is too long: {} tokens, this model's maximum context length is {} tokens",
            tokens.size(), limit),
        true);
  }
  for (const int32_t token : tokens) {
    if (token >= 0 && token < base.vocab_size) continue;
    return refuse(fmt::format("token id {} is out of range: the vocabulary has {} entries", token,
                              base.vocab_size));
  }
  return {};
}

bool auxiliary_may_guess(const PrefillStrategy& strategy, const Models& models) {
  const CacheUse use = strategy.cache_use();
  return models.auxiliary_answers() && use.answerer == Sequence::Answerer::kBase &&
         use.auxiliary_reads &&
         reader_layers(models, strategy.mix()) == models.auxiliary->config().n_layers();
}

void reserve_answer(const PrefillStrategy& strategy, const Models& models, Sequence& sequence,
                    int64_t prompt_tokens, int64_t answer_tokens, bool drafts) {
  const CacheUse use = strategy.cache_use();
  const auto reserve = [&](KVCache& cache, const ModelConfig& config) {
    const int64_t most = config.max_context_tokens + 1;
    cache.reserve(std::min(prompt_tokens + std::min(answer_tokens, most), most));
  };
  if (use.answerer == Sequence::Answerer::kBase) reserve(sequence.base, models.base->config());
  if (use.auxiliary_reads_answer || (drafts && auxiliary_may_guess(strategy, models))) {
    reserve(sequence.auxiliary, models.auxiliary->config());
  } else if (use.auxiliary_reads && models.auxiliary) {
    sequence.auxiliary.reserve(
        std::min(prompt_tokens, models.auxiliary->config().max_context_tokens + 1));
  }
}

}  // namespace kvcast
