#include "bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <fstream>
#include <numeric>

#include "base/memory_use.h"
#include "base/stopwatch.h"
#include "kernels/kernels.h"
#include "runtime/answer_step.h"

namespace kvcast {
namespace {

/// Rows that a decode step refines at most.
constexpr int64_t kRefinedRows = 512;
constexpr double kPeakSeconds = 0.06, kReadSeconds = 0.1;  // measuring the machine
constexpr double kNotMeasured = 1;                         // the machine's peak while warming up

/// The samples of one strategy.
struct Samples {
  std::vector<double> ttft, tokenize, auxiliary, predictor, base, step, answer;
  std::vector<double> exact_after;                   // decode steps, of rounds that got there
  std::vector<double> peak, read;                    // of the machine, beside each round
  std::vector<double> share_of_peak, share_of_read;  // of each round
  std::vector<double> ttft_arithmetic, ttft_bytes, ttft_floor_share;  // of each round
  std::vector<double> step_arithmetic, step_bytes, step_floor_share;
  int64_t peak_rss_bytes = 0;
  int64_t cache_bytes = 0;      ///< held by all caches of the batch
  double cache_bytes_read = 0;  ///< by the last decode step
};

/// A prompt of exactly the asked length, and its text if there is a tokenizer.
struct Prompt {
  std::vector<int32_t> tokens;
  std::string text;
};

Prompt make_prompt(const BenchCase& bench) {
  Prompt prompt;
  const auto count = static_cast<size_t>(bench.prompt_tokens);
  if (bench.tokenizer) {
    constexpr std::string_view kSentence =
        "The first steam engines pumped water out of mines, and it took sixty years until one of "
        "them moved a carriage along a road. ";
    std::string text;
    while (prompt.tokens.size() < count) {
      for (size_t i = 0; i <= count / 16; ++i) text += kSentence;
      const size_t before = prompt.tokens.size();
      prompt.tokens = bench.tokenizer->encode(text, true);
      // A tokenizer that does not know these letters makes one unknown token of any text.
      if (prompt.tokens.size() <= before) break;
    }
    if (prompt.tokens.size() >= count) {
      prompt.tokens.resize(count);
      prompt.text = bench.tokenizer->decode(prompt.tokens);
      return prompt;
    }
    prompt.tokens.clear();
  }
  const int64_t vocab = bench.models->base->config().vocab_size;
  for (size_t i = 0; i < count; ++i) {
    prompt.tokens.push_back(static_cast<int32_t>((i * 7919 + 13) % static_cast<size_t>(vocab)));
  }
  return prompt;
}

/// Bytes of the keys and values that a cache holds, room for more left out.
double bytes_in_rows(const KVCache& cache) {
  int64_t rows = 0;
  for (int64_t i = 0; i < cache.n_layers(); ++i) rows += 2 * cache.rows(i) * cache.kv_heads(i);
  return static_cast<double>(rows * kv_row_bytes(cache.type(), cache.head_dim()));
}

double prefill_flops(const BenchCase& bench, const PrefillStrategy& strategy) {
  return strategy.cost(bench.models->shapes(), bench.prompt_tokens).total() *
         static_cast<double>(bench.batch);
}

/// Milliseconds of each decode step, with the refinement that the strategy asks for beside it.
std::vector<double> decode(const BenchCase& bench, const PrefillStrategy& strategy,
                           std::span<Sequence* const> batch, int32_t token,
                           PrefillWorkspace& workspace, const std::stop_token& stop,
                           Samples& samples) {
  std::deque<AnswerWriter> writers;
  std::deque<AnswerRefiner> refiners;
  std::vector<Answering> answers;
  for (Sequence* sequence : batch) {
    writers.emplace_back(AnswerRules{}, nullptr);
    refiners.emplace_back(*sequence, RefineOptions{.rows = strategy.refine_rows()});
    answers.push_back(
        {sequence, &writers.back(), strategy.refine_rows() == 0 ? nullptr : &refiners.back()});
  }
  const auto next = [&](Answering& answer, std::span<const float> logits) {
    if (answer.refiner != nullptr) answer.refiner->chosen(logits, *answer.writer);
  };
  AlignedBuffer<float> rows;
  std::vector<double> steps;
  std::vector<float> logits(static_cast<size_t>(bench.models->base->config().vocab_size));
  for (int step = 0; step < bench.decode_steps && !stop.stop_requested(); ++step) {
    for (Answering& answer : answers) {
      answer.sequence->tokens.push_back(token);
      if (step == 0) next(answer, logits);
    }
    const Stopwatch watch;
    (void)step_answers(
        *bench.models, answers, kRefinedRows, rows, workspace,
        {.on_logits = [&](size_t i, std::span<const float> row) { next(answers[i], row); },
         .on_revised = {}});
    steps.push_back(watch.elapsed_ms());
  }
  double exact_after = 0;
  for (const AnswerRefiner& refiner : refiners) {
    const int64_t tokens = refiner.report().exact_after_tokens;
    if (strategy.refine_rows() == 0 || tokens < 0) return steps;
    exact_after = std::max(exact_after, static_cast<double>(tokens));
  }
  samples.exact_after.push_back(exact_after);
  return steps;
}

MachinePeak measure_machine(const BenchCase& bench, int threads) {
  MachinePeak peak;
  peak.ops_per_s = measure_peak_ops_per_s(bench.type, threads, kPeakSeconds);
  peak.attention_ops_per_s =
      measure_attention_peak_ops_per_s(bench.models->kv_type, threads, kPeakSeconds);
  peak.read_bytes_per_s = measure_read_bytes_per_s(threads, kReadSeconds);
  return peak;
}

/// One prefill of the whole batch on fresh caches, then some decode steps. Cut short by `stop`.
void measure_once(const BenchCase& bench, const PrefillStrategy& strategy, const MachinePeak& peak,
                  const Prompt& prompt, PrefillWorkspace& workspace, const std::stop_token& stop,
                  Samples& samples) {
  const Models& models = *bench.models;
  std::vector<Sequence> sequences;
  std::vector<Sequence*> batch;
  for (int64_t b = 0; b < bench.batch; ++b) sequences.emplace_back(models);
  for (Sequence& sequence : sequences) batch.push_back(&sequence);
  std::vector<float> logits(static_cast<size_t>(bench.batch * models.base->config().vocab_size));

  const Stopwatch arrival;
  if (bench.tokenizer) {
    for (int64_t b = 0; b < bench.batch; ++b) (void)bench.tokenizer->encode(prompt.text, true);
  }
  samples.tokenize.push_back(arrival.elapsed_ms());
  for (Sequence& sequence : sequences) {
    sequence.tokens = prompt.tokens;
    reserve_answer(strategy, models, sequence, bench.prompt_tokens, bench.decode_steps);
  }
  const PrefillReport report = strategy.prefill(models, batch, logits.data(), workspace, stop);
  if (report.stopped) return;
  samples.ttft.push_back(arrival.elapsed_ms());
  samples.auxiliary.push_back(report.auxiliary_ms);
  samples.predictor.push_back(report.predictor_ms);
  samples.base.push_back(report.base_ms);
  samples.peak.push_back(peak.ops_per_s);
  samples.share_of_peak.push_back(prefill_flops(bench, strategy) /
                                  (samples.ttft.back() * 1e-3 * peak.ops_per_s));
  const Floor floor = prefill_floor(bench, strategy, peak);
  samples.ttft_arithmetic.push_back(floor.arithmetic_ms);
  samples.ttft_bytes.push_back(floor.bytes_ms);
  samples.ttft_floor_share.push_back(floor.ms() / samples.ttft.back());

  const std::vector<double> steps =
      decode(bench, strategy, batch, prompt.tokens[0], workspace, stop, samples);
  if (!steps.empty()) {
    samples.answer.push_back(samples.ttft.back() +
                             std::accumulate(steps.begin(), steps.end(), 0.0));
  }
  samples.step.insert(samples.step.end(), steps.begin(), steps.end());
  samples.cache_bytes = 0;
  samples.cache_bytes_read = 0;
  for (Sequence& sequence : sequences) {
    samples.cache_bytes += sequence.base.bytes() + sequence.auxiliary.bytes();
    samples.cache_bytes_read += bytes_in_rows(sequence.answering_cache());
    if (strategy.mix() > 0) samples.cache_bytes_read += bytes_in_rows(sequence.auxiliary);
  }
  if (!steps.empty()) {
    const double bytes = weight_bytes_per_step(bench, strategy) + samples.cache_bytes_read;
    const double read_per_s = bytes / (quantiles(steps).median * 1e-3);
    double most = peak.read_bytes_per_s;
    // Faster than the machine was said to be: something disturbed that measurement, so once more.
    if (most > kNotMeasured && read_per_s > most) {
      most = std::max(most, measure_read_bytes_per_s(models.base->threads(), kReadSeconds));
    }
    samples.read.push_back(most);
    samples.share_of_read.push_back(read_per_s / most);
    MachinePeak beside = peak;
    beside.read_bytes_per_s = most;
    const Floor least = decode_floor(bench, strategy, samples.cache_bytes_read, beside);
    samples.step_arithmetic.push_back(least.arithmetic_ms);
    samples.step_bytes.push_back(least.bytes_ms);
    samples.step_floor_share.push_back(least.ms() / quantiles(steps).median);
  }
}

BenchResult summarise(const BenchCase& bench, const PrefillStrategy& strategy,
                      const Samples& samples) {
  BenchResult result;
  result.arch = bench.arch;
  result.prefill = strategy.spec();
  result.dtype = bench.dtype;
  result.prompt_tokens = bench.prompt_tokens;
  result.batch = bench.batch;
  result.threads = bench.models->base->threads();
  result.ttft_ms = quantiles(samples.ttft);
  result.tokenize_ms = quantiles(samples.tokenize).median;
  result.auxiliary_ms = quantiles(samples.auxiliary).median;
  result.predictor_ms = quantiles(samples.predictor).median;
  result.base_ms = quantiles(samples.base).median;
  const auto batch = static_cast<double>(bench.batch);
  result.share_of_peak = quantiles(samples.share_of_peak).median;
  result.peak.ops_per_s = quantiles(samples.peak).median;
  result.prompt_tokens_per_s =
      batch * static_cast<double>(bench.prompt_tokens) / (result.ttft_ms.median * 1e-3);
  result.ttft_floor = {quantiles(samples.ttft_arithmetic).median,
                       quantiles(samples.ttft_bytes).median};
  result.ttft_share_of_floor = quantiles(samples.ttft_floor_share).median;
  if (!samples.exact_after.empty()) {
    result.exact_after_tokens = quantiles(samples.exact_after).median;
  }
  if (!samples.step.empty()) {
    result.answer_ms = quantiles(samples.answer).median;
    result.decode_tokens_per_s = batch / (quantiles(samples.step).median * 1e-3);
    result.share_of_read_bandwidth = quantiles(samples.share_of_read).median;
    result.peak.read_bytes_per_s = quantiles(samples.read).median;
    result.decode_floor = {quantiles(samples.step_arithmetic).median,
                           quantiles(samples.step_bytes).median};
    result.decode_share_of_floor = quantiles(samples.step_floor_share).median;
  }
  result.peak_rss_bytes = samples.peak_rss_bytes;
  result.weight_bytes = bench.models->weight_bytes();
  result.cache_bytes = samples.cache_bytes;
  return result;
}

}  // namespace

Quantiles quantiles(std::vector<double> values) {
  std::ranges::sort(values);
  const auto at = [&](double share) {
    const double place = share * static_cast<double>(values.size() - 1);
    const auto below = static_cast<size_t>(place);
    const size_t above = std::min(below + 1, values.size() - 1);
    return std::lerp(values[below], values[above], place - std::floor(place));
  };
  return {at(0.5), at(0.1), at(0.9)};
}

std::vector<BenchResult> measure(std::span<const BenchCase> cases, const std::stop_token& stop) {
  PrefillWorkspace workspace;
  std::vector<Prompt> prompts;
  std::vector<std::vector<Samples>> samples;
  for (const BenchCase& bench : cases) {
    prompts.push_back(make_prompt(bench));
    samples.emplace_back(bench.strategies.size());
  }
  // Round 0 warms up: threads, scratch memory, page tables; it also shows the memory that a case
  // needs, before longer ones leave their scratch memory behind. Cases and strategies alternate
  // within a round, so that a change of the machine's speed meets all of them.
  for (int round = 0; round <= cases.front().repetitions; ++round) {
    for (size_t c = 0; c < cases.size(); ++c) {
      const BenchCase& bench = cases[c];
      const int threads = bench.models->base->threads();
      MachinePeak peak{kNotMeasured, kNotMeasured, kNotMeasured};
      if (round > 0) peak = measure_machine(bench, threads);
      for (size_t s = 0; s < bench.strategies.size(); ++s) {
        if (stop.stop_requested()) return {};
        Samples warm_up;
        Samples& into = round == 0 ? warm_up : samples[c][s];
        if (round == 0) reset_peak_rss();
        measure_once(bench, *bench.strategies[s], peak, prompts[c], workspace, stop, into);
        if (round == 0) samples[c][s].peak_rss_bytes = peak_rss_bytes();
      }
    }
  }
  if (stop.stop_requested()) return {};
  std::vector<BenchResult> results;
  for (size_t c = 0; c < cases.size(); ++c) {
    for (size_t s = 0; s < samples[c].size(); ++s) {
      results.push_back(summarise(cases[c], *cases[c].strategies[s], samples[c][s]));
    }
  }
  return results;
}

std::string machine_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

}  // namespace kvcast
