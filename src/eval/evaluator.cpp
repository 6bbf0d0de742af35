#include "eval/evaluator.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/macros.h"
#include "base/team.h"
#include "prefill/forecast_run.h"
#include "prefill/mixing.h"
#include "runtime/answer_step.h"

namespace kvcast {
namespace {

/// Rows whose logits are held at once.
constexpr int64_t kLogitsRows = 256;

std::vector<Sequence*> pointers(std::vector<Sequence>& sequences) {
  std::vector<Sequence*> out;
  for (Sequence& sequence : sequences) out.push_back(&sequence);
  return out;
}

/// What the base and the auxiliary read under the control `wrong-cache`: another prompt, repeated
/// or cut to this one's length, and this one's tail.
Tokens with_wrong_prefix(const EvalPrompt& prompt, int64_t tail) {
  Tokens tokens = *prompt.tokens;
  const int64_t predicted = std::max<int64_t>(std::ssize(tokens) - tail, 0);
  for (int64_t i = 0; i < predicted; ++i) {
    tokens[static_cast<size_t>(i)] = (*prompt.other)[static_cast<size_t>(i) % prompt.other->size()];
  }
  return tokens;
}

}  // namespace

Result<EvalStrategy> EvalStrategy::parse(std::string_view spec) {
  constexpr std::string_view kWrong = "wrong-cache", kForecast = "kv-prediction";
  EvalStrategy strategy;
  strategy.wrong_cache = spec == kWrong || spec.starts_with("wrong-cache:");
  if (!strategy.wrong_cache) {
    KVCAST_TRY(strategy.prefill, PrefillStrategy::parse(spec));
    strategy.spec = strategy.prefill->spec();
    return strategy;
  }
  const std::string like = std::string(kForecast) + std::string(spec.substr(kWrong.size()));
  KVCAST_TRY(strategy.prefill, PrefillStrategy::parse(like));
  const std::string canonical = strategy.prefill->spec();
  strategy.spec = std::string(kWrong) + canonical.substr(kForecast.size());
  constexpr std::string_view kTail = "tail=";
  const size_t tail = canonical.find(kTail);
  if (tail != std::string::npos) strategy.tail = std::stoll(canonical.substr(tail + kTail.size()));
  return strategy;
}

Evaluator::Evaluator(const Models& models, const Tokenizer& tokenizer, int64_t max_prefix_bytes,
                     int64_t drafts)
    : models_(models),
      tokenizer_(tokenizer),
      drafts_(drafts),
      prefixes_(models, max_prefix_bytes) {}

PrefilledBatch Evaluator::prefill(const EvalStrategy& strategy, std::span<const EvalPrompt> prompts,
                                  int64_t shared_tokens) {
  PrefilledBatch batch;
  batch.refine_rows = strategy.prefill->refine_rows();
  batch.sequences.reserve(prompts.size());
  const CacheFamily family =
      strategy.wrong_cache ? CacheFamily::kNone : strategy.prefill->cache_use().family;
  for (const EvalPrompt& prompt : prompts) {
    Sequence& sequence = batch.sequences.emplace_back(models_);
    sequence.tokens =
        strategy.wrong_cache ? with_wrong_prefix(prompt, strategy.tail) : *prompt.tokens;
    const int64_t reusable =
        std::min(shared_tokens, strategy.prefill->reusable_rows(std::ssize(sequence.tokens)));
    if (family != CacheFamily::kNone && reusable >= PrefixPool::kFewestRows) {
      prefixes_.take(family, reusable, sequence);
    }
  }
  batch.logits.resize(prompts.size() * static_cast<size_t>(vocab_size()));
  strategy.prefill->prefill(models_, pointers(batch.sequences), batch.logits.data(), workspace_,
                            {});
  const Sequence& first = batch.sequences.front();
  const int64_t reusable =
      std::min(shared_tokens, strategy.prefill->reusable_rows(std::ssize(first.tokens)));
  if (family != CacheFamily::kNone && reusable >= PrefixPool::kFewestRows) {
    prefixes_.put(family, reusable, first.fork(models_, reusable));
  }
  for (size_t s = 0; s < prompts.size(); ++s) batch.sequences[s].tokens = *prompts[s].tokens;
  return batch;
}

void Evaluator::run_scored_rows(std::span<Sequence* const> sequences, std::span<const int64_t> ends,
                                const std::function<void(int64_t, std::span<const float>)>& sink) {
  if (sequences.empty()) return;
  const int threads = models_.base->threads();
  const auto vocab = static_cast<size_t>(vocab_size());
  run_for_mixed_logits(models_, sequences, ends, 0, kLogitsRows, workspace_, logits_,
                       [&](int64_t first, int64_t rows, const float* logits) {
                         parallel_for(rows, threads, [&](int64_t i, int) {
                           sink(first + i,
                                std::span(logits + static_cast<size_t>(i) * vocab, vocab));
                         });
                       });
}

Evaluator::LogProbabilities Evaluator::score(PrefilledBatch& batch,
                                             const Continuations& continuations) {
  const auto vocab = static_cast<size_t>(vocab_size());
  LogProbabilities out(continuations.size());
  size_t rounds = 0;
  for (size_t s = 0; s < continuations.size(); ++s) {
    const std::span<const float> logits = std::span(batch.logits).subspan(s * vocab, vocab);
    for (const Tokens& continuation : continuations[s]) {
      out[s].push_back(log_probability(logits, continuation.front()));
    }
    rounds = std::max(rounds, continuations[s].size());
  }
  // Round k runs the k-th continuation of every sequence, then takes the caches back.
  for (size_t k = 0; k < rounds; ++k) {
    std::vector<Sequence*> sequences;
    std::vector<int64_t> ends;
    std::vector<std::pair<size_t, size_t>> predicts;  // [rows] sequence, token of its continuation
    for (size_t s = 0; s < continuations.size(); ++s) {
      if (k >= continuations[s].size() || continuations[s][k].size() < 2) continue;
      const Tokens& continuation = continuations[s][k];
      Sequence& sequence = batch.sequences[s];
      sequences.push_back(&sequence);
      sequence.tokens.insert(sequence.tokens.end(), continuation.begin(), continuation.end());
      ends.push_back(std::ssize(sequence.tokens) - 1);
      for (size_t t = 1; t < continuation.size(); ++t) predicts.emplace_back(s, t);
    }
    std::vector<double> log_probabilities(predicts.size());
    run_scored_rows(sequences, ends, [&](int64_t row, std::span<const float> logits) {
      const auto [s, t] = predicts[static_cast<size_t>(row)];
      log_probabilities[static_cast<size_t>(row)] = log_probability(logits, continuations[s][k][t]);
    });
    for (size_t row = 0; row < predicts.size(); ++row) {
      out[predicts[row].first][k] += log_probabilities[row];
    }
    for (size_t i = 0; i < sequences.size(); ++i) {
      const auto s = static_cast<size_t>(sequences[i] - batch.sequences.data());
      sequences[i]->tokens.resize(sequences[i]->tokens.size() - continuations[s][k].size());
      sequences[i]->base.truncate(std::ssize(sequences[i]->tokens));
      sequences[i]->auxiliary.truncate(std::ssize(sequences[i]->tokens));
    }
  }
  return out;
}

Evaluator::LogProbabilities Evaluator::score_predicted(std::span<const EvalPrompt> prompts,
                                                       const Continuations& continuations) {
  const Transformer& base = *models_.base;
  const int64_t dim = base.config().model_dim;
  const auto vocab = static_cast<size_t>(vocab_size());
  LogProbabilities out(prompts.size());
  std::vector<Sequence> sequences;
  size_t rounds = 0;
  for (size_t s = 0; s < prompts.size(); ++s) {
    sequences.emplace_back(models_);
    out[s].resize(continuations[s].size());
    rounds = std::max(rounds, continuations[s].size());
  }
  for (size_t k = 0; k < rounds; ++k) {
    std::vector<Sequence*> batch;
    std::vector<int64_t> ends;
    std::vector<std::vector<int64_t>> positions;
    std::vector<std::pair<size_t, int32_t>> predicts;  // [rows] sequence, the token that comes next
    Tokens read;                                       // [rows]
    for (size_t s = 0; s < prompts.size(); ++s) {
      if (k >= continuations[s].size()) continue;
      const Tokens& continuation = continuations[s][k];
      Sequence& sequence = sequences[s];
      sequence.tokens = *prompts[s].tokens;
      sequence.tokens.insert(sequence.tokens.end(), continuation.begin(), continuation.end());
      batch.push_back(&sequence);
      ends.push_back(std::ssize(sequence.tokens) - 1);
      auto& rows = positions.emplace_back(continuation.size());
      std::iota(rows.begin(), rows.end(), std::ssize(*prompts[s].tokens) - 1);
      for (size_t t = 0; t < continuation.size(); ++t) {
        predicts.emplace_back(s, continuation[t]);
        read.push_back(sequence.tokens[static_cast<size_t>(rows[t])]);
      }
    }
    forecast_up_to(models_, batch, ends, workspace_);
    std::vector<SequenceRows> rows;
    for (size_t i = 0; i < batch.size(); ++i) {
      rows.push_back({&batch[i]->base, std::ssize(positions[i]), positions[i].data()});
    }
    float* hidden = workspace_.base.rows.ensure(read.size() * static_cast<size_t>(dim));
    base.embed(read, hidden);
    RunLayersOptions options;
    options.last = base.config().n_layers();
    options.key_values_cached = true;
    base.run_layers(hidden, rows, options, workspace_.base);
    for (size_t row = 0; row < read.size(); row += kLogitsRows) {
      const size_t block = std::min<size_t>(kLogitsRows, read.size() - row);
      const float* logits = logits_.ensure(block * vocab);
      base.logits(hidden + static_cast<int64_t>(row) * dim, static_cast<int64_t>(block),
                  logits_.data(), workspace_.base);
      for (size_t i = 0; i < block; ++i) {
        const auto [s, next] = predicts[row + i];
        out[s][k] += log_probability(std::span(logits + i * vocab, vocab), next);
      }
    }
    for (Sequence* sequence : batch) {  // what the next continuation shares stays
      const auto s = static_cast<size_t>(sequence - sequences.data());
      const int64_t shared = std::ssize(*prompts[s].tokens) - 1;
      sequence->base.truncate(shared);
      sequence->auxiliary.truncate(shared);
    }
  }
  return out;
}

void Evaluator::continuation_logits(PrefilledBatch& batch, std::span<const Tokens> continuations,
                                    const LogitsSink& sink) {
  const auto vocab = static_cast<size_t>(vocab_size());
  std::vector<int64_t> ends;
  std::vector<Sequence*> sequences;
  std::vector<std::pair<size_t, size_t>> predicts;
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    sink(s, 0, std::span(batch.logits).subspan(s * vocab, vocab));
    if (continuations[s].size() < 2) continue;
    Sequence& sequence = batch.sequences[s];
    sequence.tokens.insert(sequence.tokens.end(), continuations[s].begin(), continuations[s].end());
    sequences.push_back(&sequence);
    ends.push_back(std::ssize(sequence.tokens) - 1);
    for (size_t t = 1; t < continuations[s].size(); ++t) predicts.emplace_back(s, t);
  }
  run_scored_rows(sequences, ends, [&](int64_t row, std::span<const float> logits) {
    const auto [s, t] = predicts[static_cast<size_t>(row)];
    sink(s, t, logits);
  });
}

std::vector<Evaluator::Answer> Evaluator::answer(PrefilledBatch batch,
                                                 const AnswerOptions& options) {
  std::vector<Answer> answers(batch.sequences.size());
  std::vector<AnswerWriter> writers;
  std::vector<Answering> answering;
  std::vector<AnswerRefiner> refiners;
  std::vector<Drafter> drafters(answers.size(), Drafter(drafts_));
  writers.reserve(answers.size());
  refiners.reserve(answers.size());
  for (size_t s = 0; s < answers.size(); ++s) {
    AnswerRules rules{.max_tokens = options.max_tokens,
                      .sampling = options.sampling,
                      .stop = options.stop,
                      .ignore_end_of_text = options.ignore_end_of_text};
    if (!options.seeds.empty()) rules.sampling.seed = options.seeds[s];
    writers.emplace_back(std::move(rules), &tokenizer_);
    answering.push_back({&batch.sequences[s], &writers.back()});
    if (drafts_ != 0) answering.back().drafter = &drafters[s];
    if (batch.refine_rows == 0) continue;
    refiners.emplace_back(batch.sequences[s], RefineOptions{.rows = batch.refine_rows});
    answering.back().refiner = &refiners.back();
  }
  // Logits without a number end the answers where they are.
  (void)write_answers(models_, answering, std::move(batch.logits), workspace_,
                      [&](size_t s, const AnswerStep& step) { answers[s].text += step.text; });
  for (size_t s = 0; s < answers.size(); ++s) {
    answers[s].text += writers[s].flush();
    answers[s].tokens = writers[s].tokens();
  }
  return answers;
}

PrefilledBatch Evaluator::replicate(const PrefilledBatch& batch, int64_t copies) {
  PrefilledBatch out;
  out.refine_rows = batch.refine_rows;
  const auto vocab = static_cast<size_t>(vocab_size());
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const Sequence& from = batch.sequences[s];
    for (int64_t copy = 0; copy < copies; ++copy) {
      out.sequences.push_back(from.fork(models_, std::ssize(from.tokens)));
      const auto logits = std::span(batch.logits).subspan(s * vocab, vocab);
      out.logits.insert(out.logits.end(), logits.begin(), logits.end());
    }
  }
  return out;
}

double kl_divergence(std::span<const float> p_logits, std::span<const float> q_logits) {
  const double p_largest = *std::ranges::max_element(p_logits);
  const double q_largest = *std::ranges::max_element(q_logits);
  // With P = sum exp(a), Q = sum exp(b): KL = sum exp(a) (a - b) / P - log P + log Q.
  double p_sum = 0, q_sum = 0, weighted = 0;
  for (size_t i = 0; i < p_logits.size(); ++i) {
    const double a = p_logits[i] - p_largest, b = q_logits[i] - q_largest;
    const double p = std::exp(a);
    p_sum += p;
    q_sum += std::exp(b);
    weighted += p * (a - b);
  }
  return weighted / p_sum - std::log(p_sum) + std::log(q_sum);
}

TokenPair encode_pair(const Tokenizer& tokenizer, std::string context, std::string continuation,
                      bool add_bos) {
  const size_t end = context.find_last_not_of(' ') + 1;
  continuation = context.substr(end) + continuation;
  context.resize(end);
  TokenPair pair;
  pair.context = tokenizer.encode(context, add_bos);
  const Tokens whole = tokenizer.encode(context + continuation, add_bos);
  const size_t split = std::min(pair.context.size(), whole.size());
  pair.continuation.assign(whole.begin() + static_cast<std::ptrdiff_t>(split), whole.end());
  if (pair.continuation.empty()) {  // it disappeared in a merge: score the last token of the whole
    pair.continuation.push_back(whole.back());
    pair.context.assign(whole.begin(), whole.end() - 1);
  }
  return pair;
}

}  // namespace kvcast
