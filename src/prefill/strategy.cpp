#include "prefill/strategy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <charconv>
#include <optional>
#include <utility>

namespace kvcast {

namespace {

using Strategy = Result<std::unique_ptr<PrefillStrategy>>;

constexpr std::string_view kTail = "tail=";

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

Strategy parse_tail(std::string_view spec, std::string_view argument,
                    std::unique_ptr<PrefillStrategy> (*make)(int64_t)) {
  if (argument.empty()) return make(1);
  const auto tail = parse_number<int64_t>(argument.substr(kTail.size()));
  if (tail && *tail >= 1) return make(*tail);
  return fail(
      fmt::format("prefill strategy \"{}\": tail must be a whole number of at least 1", spec));
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
  if (bare || argument.starts_with(kTail)) {
    if (name == "kv-prediction") return parse_tail(spec, argument, make_kv_prediction_strategy);
    if (name == "zero-cache") return parse_tail(spec, argument, make_zero_cache_strategy);
  }
  if (name == "random") return parse_keep(spec, argument, make_random_strategy);
  if (name == "static") return parse_keep(spec, argument, make_static_strategy);
  if (name == "lazy") return parse_lazy(spec, argument);
  return fail(
      fmt::format("unknown prefill strategy \"{}\": expected exact, auxiliary, kv-prediction, "
                  "kv-prediction:tail=N, random:R, static:R, lazy:A-B or zero-cache",
                  spec));
}

PrefillState PrefillStrategy::advance(const Models& models, Sequence& sequence,
                                      int64_t /*max_rows*/, float* logits,
                                      PrefillWorkspace& workspace, const std::stop_token& stop,
                                      PrefillReport& report) const {
  Sequence* const one[] = {&sequence};
  const PrefillReport whole = prefill(models, one, logits, workspace, stop);
  report.auxiliary_ms += whole.auxiliary_ms;
  report.predictor_ms += whole.predictor_ms;
  report.base_ms += whole.base_ms;
  report.predicted_tokens += whole.predicted_tokens;
  report.computed_tokens += whole.computed_tokens;
  report.stopped = whole.stopped;
  return PrefillState::kDone;
}

Status check_prefill(const PrefillStrategy& strategy, const Models& models,
                     const Sequence& sequence) {
  if (strategy.needs_bundle() && !models.is_bundle()) {
    return fail(
        fmt::format("prefill strategy {} needs a KV-prediction bundle (a directory with "
                    "kvcast.json); this is a plain model",
                    strategy.spec()));
  }
  const auto tokens = static_cast<int64_t>(sequence.tokens.size());
  if (tokens == 0) return fail("the prompt is empty: expected at least one token");
  const ModelConfig& base = models.base->config();
  int64_t limit = base.max_context_tokens;
  if (strategy.needs_bundle()) {
    limit = std::min(limit, models.auxiliary->config().max_context_tokens);
  }
  if (tokens > limit) {
    return fail(
        fmt::format("the prompt is too long: {} tokens, the model's context is {}", tokens, limit));
  }
  for (const int32_t token : sequence.tokens) {
    if (token < 0 || token >= base.vocab_size) {
      return fail(fmt::format("token id {} is out of range: the vocabulary has {} entries", token,
                              base.vocab_size));
    }
  }
  return {};
}

float* run_tokens(const TokenRun& run, Workspace& workspace) {
  std::vector<SequenceRows> rows;
  int64_t total = 0;
  for (size_t s = 0; s < run.sequences.size(); ++s) {
    KVCache& cache = run.sequences[s]->*run.cache;
    const int64_t count = run.ends[s] - cache.next_position();
    assert(count > 0);
    cache.reserve(run.ends[s]);
    rows.push_back({&cache, count});
    total += count;
  }
  const int64_t dim = run.model->config().model_dim;
  float* hidden = workspace.rows.ensure(static_cast<size_t>(total * dim));
  float* next = hidden;
  for (size_t s = 0; s < run.sequences.size(); ++s) {
    const auto first = static_cast<size_t>(rows[s].cache->next_position());
    const std::span<const int32_t> tokens(run.sequences[s]->tokens);
    run.model->embed(tokens.subspan(first, static_cast<size_t>(rows[s].rows)), next);
    next += rows[s].rows * dim;
  }
  RunLayersOptions options = run.options;
  if (options.last == 0) options.last = run.model->config().n_layers();
  if (!run.model->run_layers(hidden, rows, options, workspace)) return nullptr;
  for (const SequenceRows& sequence : rows) sequence.cache->advance(sequence.rows);
  return hidden;
}

std::vector<TokenPass> token_passes(CacheMember cache, std::span<Sequence* const> sequences,
                                    std::span<const int64_t> ends, int64_t most_rows) {
  std::vector<TokenPass> passes;
  TokenPass group;
  int64_t group_rows = 0;
  for (size_t s = 0; s < sequences.size(); ++s) {
    Sequence* const sequence = sequences[s];
    const int64_t begin = (sequence->*cache).next_position(), rows = ends[s] - begin;
    const int64_t parts = (rows + most_rows - 1) / most_rows;
    for (int64_t part = 1; part < parts; ++part) {
      passes.push_back({{sequence}, {begin + rows * part / parts}});
    }
    const int64_t last_rows = rows - rows * (parts - 1) / parts;
    if (group_rows + last_rows > most_rows) {
      passes.push_back(std::exchange(group, {}));
      group_rows = 0;
    }
    group.sequences.push_back(sequence);
    group.ends.push_back(ends[s]);
    group_rows += last_rows;
  }
  if (!group.sequences.empty()) passes.push_back(std::move(group));
  return passes;
}

bool run_pending(const Transformer& model, CacheMember cache, std::span<Sequence* const> sequences,
                 float* logits, Workspace& workspace, const std::stop_token& stop) {
  std::vector<int64_t> ends;
  for (Sequence* sequence : sequences) {
    ends.push_back(static_cast<int64_t>(sequence->tokens.size()));
    (sequence->*cache).reserve(ends.back());
  }
  for (const TokenPass& pass :
       token_passes(cache, sequences, ends, rows_together(model.threads()))) {
    const bool to_the_end =
        pass.ends.front() == static_cast<int64_t>(pass.sequences.front()->tokens.size());
    RunLayersOptions options;
    options.output =
        to_the_end ? LastLayerOutput::kLastRowOfEachSequence : LastLayerOutput::kNothing;
    options.stop = stop;
    const float* rows = run_tokens({&model, cache, pass.sequences, pass.ends, options}, workspace);
    if (!rows) return false;
    if (!to_the_end) continue;
    const auto n = static_cast<int64_t>(pass.sequences.size());
    model.logits(rows, n, logits, workspace);
    logits += n * model.config().vocab_size;
  }
  return true;
}

bool run_without_output(const Transformer& model, CacheMember cache, Sequence& sequence,
                        int64_t end, int64_t max_rows, Workspace& workspace,
                        const std::stop_token& stop) {
  Sequence* const one[] = {&sequence};
  const int64_t chunk_end[] = {std::min(end, (sequence.*cache).next_position() + max_rows)};
  RunLayersOptions options;
  options.output = LastLayerOutput::kNothing;
  options.stop = stop;
  return run_tokens({&model, cache, one, chunk_end, options}, workspace) != nullptr;
}

PrefillState advance_pending(const Transformer& model, CacheMember cache, Sequence& sequence,
                             int64_t max_rows, Workspace& workspace, const std::stop_token& stop,
                             PrefillReport& report) {
  const auto tokens = static_cast<int64_t>(sequence.tokens.size());
  const int64_t before = (sequence.*cache).next_position();
  if (tokens - before <= max_rows) return PrefillState::kLastRun;
  report.stopped =
      !run_without_output(model, cache, sequence, tokens - 1, max_rows, workspace, stop);
  report.computed_tokens += (sequence.*cache).next_position() - before;
  return PrefillState::kMore;
}

void reserve_answer(const PrefillStrategy& strategy, const Models& models, Sequence& sequence,
                    int64_t prompt_tokens, int64_t answer_tokens) {
  const bool by_auxiliary = strategy.cache_family() == "auxiliary";
  const ModelConfig& config = (by_auxiliary ? models.auxiliary : models.base)->config();
  const int64_t most = config.max_context_tokens + 1;
  (by_auxiliary ? sequence.auxiliary : sequence.base)
      .reserve(std::min(prompt_tokens + std::min(answer_tokens, most), most));
}

void decode_step(const Models& models, std::span<Sequence* const> sequences, float* logits,
                 PrefillWorkspace& workspace) {
  const bool base_answers = sequences.front()->answerer == Sequence::Answerer::kBase;
  run_pending(sequences.front()->answering_model(models),
              base_answers ? &Sequence::base : &Sequence::auxiliary, sequences, logits,
              base_answers ? workspace.base : workspace.auxiliary, {});
}

CacheRollback::CacheRollback(std::span<Sequence* const> sequences) {
  for (Sequence* sequence : sequences) {
    positions_.push_back(
        {sequence, sequence->base.next_position(), sequence->auxiliary.next_position()});
  }
}

CacheRollback::~CacheRollback() {
  for (const Position& position : positions_) {
    position.sequence->base.truncate(position.base);
    position.sequence->auxiliary.truncate(position.auxiliary);
  }
}

}  // namespace kvcast
