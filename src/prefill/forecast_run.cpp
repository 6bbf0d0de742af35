#include "prefill/forecast_run.h"

#include <vector>

#include "base/stopwatch.h"
#include "prefill/refine.h"
#include "prefill/unread_tokens.h"

namespace kvcast {
namespace {

/// One pass of forecast(): the auxiliary caches end where the base caches do, or with the tokens.
bool forecast_together(const ForecastRun& run, const TokenPass& pass, bool is_last) {
  const Models& models = run.models;
  TailRun* const tail = is_last ? run.tail : nullptr;
  const Stopwatch watch;
  double predictor_ms = 0;
  std::vector<SequenceRows> base_rows;
  for (size_t s = 0; s < pass.sequences.size(); ++s) {
    KVCache& base = pass.sequences[s]->base;
    base_rows.push_back({&base, pass.ends[s] - base.next_position()});
  }
  Forecast forecast(*models.predictor, *models.base, base_rows, run.workspace.predictor);
  const auto read = [&](PromptReader reader, const Transformer& model, CacheMember cache,
                        std::span<const int64_t> ends, RunLayersOptions options) {
    options.on_raw_key_values = [&](const RawKeyValues& raw) {
      const Stopwatch predictor_watch;
      forecast.add(reader, raw);
      predictor_ms += predictor_watch.elapsed_ms();
      if (run.keeps_residual) keep_for_refinement(models, reader, base_rows, raw);
      if (tail != nullptr) tail->forecast_reached(models.plan.stage(reader, raw.layer));
    };
    return run_tokens({&model, cache, pass.sequences, ends, options},
                      run.workspace.auxiliary);  // the tail has workspace.base
  };
  if (models.auxiliary) {
    const bool to_the_end = is_last && run.reads_to_the_end;
    std::vector<int64_t> ends = pass.ends;
    RunLayersOptions options = keys_and_values(run.reader_layers, run.stop);
    if (to_the_end) {
      ends.front() = std::ssize(pass.sequences.front()->tokens);
      options.output = LastLayerOutput::kLastRows;
    }
    const Transformer& auxiliary = *models.auxiliary;
    const float* const rows =
        read(PromptReader::kAuxiliary, auxiliary, &Sequence::auxiliary, ends, options);
    if (rows == nullptr) return false;
    if (to_the_end) {
      AlignedBuffer<float>& logits = run.workspace.auxiliary_logits;
      run.report.auxiliary_logits =
          logits.ensure(static_cast<size_t>(auxiliary.config().vocab_size));
      auxiliary.logits(rows, 1, logits.data(), run.workspace.auxiliary);
    }
  }
  const bool exact_layers = models.plan.exact_layers > 0;
  if (exact_layers && read(PromptReader::kBase, *models.base, &Sequence::base, pass.ends,
                           keys_and_values(models.plan.exact_layers, run.stop)) == nullptr) {
    return false;
  }
  for (const SequenceRows& rows : base_rows) {
    if (!exact_layers) rows.cache->advance_inexact(rows.rows);
    run.report.predicted_tokens += rows.rows;
  }
  run.report.predictor_ms += predictor_ms;
  run.report.auxiliary_ms += watch.elapsed_ms() - predictor_ms;
  return true;
}

}  // namespace

bool forecast(const ForecastRun& run, std::span<Sequence* const> sequences,
              std::span<const int64_t> ends) {
  for (size_t s = 0; s < sequences.size(); ++s) {
    sequences[s]->auxiliary.truncate(sequences[s]->base.next_position());  // it may be ahead
    sequences[s]->base.reserve(static_cast<int64_t>(sequences[s]->tokens.size()));
    sequences[s]->auxiliary.reserve(ends[s]);
  }
  const std::vector<TokenPass> passes =
      token_passes(&Sequence::base, sequences, ends, rows_together(run.models.base->threads()));
  for (const TokenPass& pass : passes) {
    if (!forecast_together(run, pass, &pass == &passes.back())) return false;
  }
  return true;
}

void forecast_up_to(const Models& models, std::span<Sequence* const> sequences,
                    std::span<const int64_t> ends, PrefillWorkspace& workspace) {
  const TokenPass first = sinks(models, sequences, ends);
  run_sinks(models, first, workspace, {});
  // What the base has read itself so far may be all there is.
  std::vector<Sequence*> short_of;
  std::vector<int64_t> forecast_ends;
  for (size_t s = 0; s < sequences.size(); ++s) {
    if (sequences[s]->base.next_position() >= ends[s]) continue;
    short_of.push_back(sequences[s]);
    forecast_ends.push_back(ends[s]);
  }
  const int64_t layers = models.plan.auxiliary_layers();
  const TokenPass behind = unread(models, short_of, layers, PrefillStep::kAllRows);
  read_unread(models, behind, layers, workspace, {});
  PrefillReport report;
  forecast({.models = models,
            .workspace = workspace,
            .stop = {},
            .report = report,
            .reader_layers = layers},
           short_of, forecast_ends);
}

}  // namespace kvcast
