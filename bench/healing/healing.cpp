// A forecast that heals, position by position: how long each token of an answer took, and how far
// the distribution that it came from is from exact's. For docs/EVALUATION.md, "Refinement".
//
// Every strategy is given the same answer, exact's own greedy one or the text's continuation, so
// that positions can be compared. Prints JSON, which kvcast-report draws.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "base/macros.h"
#include "base/stopwatch.h"
#include "eval/data_file.h"
#include "eval/evaluator.h"
#include "eval/task.h"
#include "kernels/isa.h"
#include "kvcast/version.h"
#include "runtime/answer_step.h"
#include "runtime/model_impl.h"
#include "runtime/token_score.h"

namespace kvcast {
namespace {

constexpr int64_t kMostRows = 512;  // as write_answers

struct Options {
  std::string model, data, label, dtype = "auto";
  std::vector<std::string> prefills = {"exact", "kv-prediction", "kv-prediction:refine=auto"};
  int64_t prompt_tokens = 512, answer_tokens = 128, windows = 4;
  int threads = 0;
  bool given = false;
};

/// A prompt and the answer that every strategy is given.
struct Window {
  Tokens prompt, answer;
  std::vector<float> exact_logits;  // [answer, vocab]
};

/// What one strategy made of one window, by answer position; the first token's time is the
/// prefill's.
struct Trace {
  double ttft_ms = 0;
  std::vector<double> step_ms, kl, nll, same;
  double exact_after = -1;  // answer tokens; -1: not
};

/// Runs a strategy over a window. With an empty answer it is written greedily, of `length` tokens.
/// `on_logits` gets each position's distribution.
Trace run(const Models& models, const PrefillStrategy& strategy, Window& window, int64_t length,
          PrefillWorkspace& workspace,
          const std::function<void(size_t, std::span<const float>)>& on_logits) {
  Sequence sequence(models);
  sequence.tokens = window.prompt;
  reserve_answer(strategy, models, sequence, std::ssize(window.prompt), length);
  Sequence* const batch[] = {&sequence};
  std::vector<float> logits(static_cast<size_t>(models.base->config().vocab_size));
  Trace trace;
  const Stopwatch prefilling;
  strategy.prefill(models, batch, logits.data(), workspace, {});
  trace.ttft_ms = prefilling.elapsed_ms();
  AnswerWriter writer(AnswerRules{}, nullptr);
  AnswerRefiner refiner(sequence, {.rows = strategy.refine_rows()});
  const Answering answering{&sequence, &writer, strategy.refine_rows() == 0 ? nullptr : &refiner};
  AlignedBuffer<float> rows;
  const auto take = [&](size_t position, std::span<const float> row) {
    on_logits(position, row);
    if (position == window.answer.size()) {
      window.answer.push_back(static_cast<int32_t>(std::ranges::max_element(row) - row.begin()));
    }
    sequence.tokens.push_back(window.answer[position]);
    if (answering.refiner != nullptr) refiner.chosen(row, writer);
  };
  take(0, logits);
  for (size_t position = 1; position < static_cast<size_t>(length); ++position) {
    const Stopwatch watch;
    std::span<const float> next;
    (void)step_answers(
        models, {&answering, 1}, kMostRows, rows, workspace,
        {.on_logits = [&](size_t, std::span<const float> row) { next = row; }, .on_revised = {}});
    trace.step_ms.push_back(watch.elapsed_ms());
    take(position, next);
  }
  if (answering.refiner != nullptr) {
    trace.exact_after = static_cast<double>(refiner.report().exact_after_tokens);
  }
  return trace;
}

/// Of each position over windows: the middle one for times, which other work disturbs, else the
/// mean.
std::vector<double> over_windows(std::span<const Trace> traces, std::vector<double> Trace::*what,
                                 bool middle) {
  std::vector<double> result;
  for (size_t position = 0; position < (traces[0].*what).size(); ++position) {
    std::vector<double> values;
    for (const Trace& trace : traces) values.push_back((trace.*what)[position]);
    std::ranges::sort(values);
    const double mean =
        std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
    result.push_back(middle ? values[values.size() / 2] : mean);
  }
  return result;
}

double middle(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

Json summary(const std::string& spec, std::span<const Trace> traces) {
  std::vector<double> ttft, answer, exact_after;
  for (const Trace& trace : traces) {
    ttft.push_back(trace.ttft_ms);
    answer.push_back(std::accumulate(trace.step_ms.begin(), trace.step_ms.end(), trace.ttft_ms));
    if (trace.exact_after >= 0) exact_after.push_back(trace.exact_after);
  }
  Json json = {{"prefill", spec},
               {"ttft_ms", middle(ttft)},
               {"answer_ms", middle(answer)},
               {"step_ms", over_windows(traces, &Trace::step_ms, true)},
               {"kl", over_windows(traces, &Trace::kl, false)},
               {"nll", over_windows(traces, &Trace::nll, false)},
               {"top1", over_windows(traces, &Trace::same, false)},
               {"exact_in_windows", exact_after.size()}};
  if (!exact_after.empty()) json["exact_after_tokens"] = middle(exact_after);
  return json;
}

Result<std::vector<Window>> make_windows(const Options& options, const Model& model) {
  const int64_t answer = options.given ? options.answer_tokens : 0;
  std::vector<Window> windows;
  if (options.data.empty()) {  // random weights understand no text either
    for (int64_t w = 0; w < options.windows; ++w) {
      for (int64_t i = 0; i < options.prompt_tokens; ++i) {
        if (i == 0) windows.emplace_back();
        windows.back().prompt.push_back(
            static_cast<int32_t>((i * 7919 + w * 104729 + 13) % model.vocab_size()));
      }
    }
    return windows;
  }
  KVCAST_TRY(const auto documents, read_documents(options.data));
  const Tokenizer* const tokenizer = model.impl().tokenizer.get();
  if (tokenizer == nullptr) return fail("--data: the model has no tokenizer");
  for (const Tokens& text :
       text_windows(documents, *tokenizer, options.prompt_tokens + answer, options.windows)) {
    const auto split = text.begin() + options.prompt_tokens;
    windows.push_back({{text.begin(), split}, {split, text.end()}, {}});
  }
  if (windows.empty()) return fail(fmt::format("{}: no text is so long", options.data));
  return windows;
}

Result<Json> measure(const Options& options) {
  KVCAST_TRY(const Dtype dtype, parse_dtype(options.dtype));
  KVCAST_TRY(const auto model,
             Model::load(options.model, {.dtype = dtype, .threads = options.threads}));
  const Models& models = model->impl().models;
  std::vector<std::unique_ptr<PrefillStrategy>> strategies;
  for (const std::string& spec : options.prefills) {
    KVCAST_TRY(auto strategy, PrefillStrategy::parse(spec));
    KVCAST_CHECK(check_strategy(*strategy, models));
    strategies.push_back(std::move(strategy));
  }
  KVCAST_TRY(auto windows, make_windows(options, *model));
  const auto vocab = static_cast<size_t>(model->vocab_size());
  PrefillWorkspace workspace;
  std::vector<std::vector<Trace>> traces(strategies.size());
  // The first window is run once before it counts: memory is touched, and `auto` has learned.
  for (size_t w = 0; w <= windows.size(); ++w) {
    Window& window = windows[w == 0 ? 0 : w - 1];
    window.exact_logits.resize(static_cast<size_t>(options.answer_tokens) * vocab);
    run(models, *make_exact_strategy(), window, options.answer_tokens, workspace,
        [&](size_t position, std::span<const float> row) {
          std::ranges::copy(
              row, window.exact_logits.begin() + static_cast<std::ptrdiff_t>(position * vocab));
        });
    for (size_t s = 0; s < strategies.size(); ++s) {
      std::vector<double> kl, nll, same;
      Trace trace =
          run(models, *strategies[s], window, options.answer_tokens, workspace,
              [&](size_t position, std::span<const float> row) {
                const auto exact =
                    std::span<const float>(window.exact_logits).subspan(position * vocab, vocab);
                kl.push_back(kl_divergence(exact, row));
                nll.push_back(-log_probability(row, window.answer[position]));
                same.push_back(std::ranges::max_element(exact) - exact.begin() ==
                                       std::ranges::max_element(row) - row.begin()
                                   ? 1
                                   : 0);
              });
      trace.kl = std::move(kl), trace.nll = std::move(nll), trace.same = std::move(same);
      if (w > 0) traces[s].push_back(std::move(trace));
    }
    std::vector<float>().swap(window.exact_logits);
    fmt::print(stderr, "\r{} of {} windows", w, windows.size());
  }
  fmt::print(stderr, "\n");
  Json results = Json::array();
  for (size_t s = 0; s < strategies.size(); ++s) {
    results.push_back(summary(strategies[s]->spec(), traces[s]));
  }
  const std::string name = std::filesystem::path(options.model).filename().string();
  return Json{{"kind", "kvcast-healing"},
              {"model", options.label.empty() ? name : options.label},
              {"dtype", dtype_text(model->dtype())},
              {"isa", isa_name(active_isa())},
              {"commit", commit()},
              {"threads", model->threads()},
              {"prompt_tokens", options.prompt_tokens},
              {"answer_tokens", options.answer_tokens},
              {"windows", windows.size()},
              {"answer", options.given ? "the text's" : "exact's, greedy"},
              {"strategies", std::move(results)}};
}

}  // namespace
}  // namespace kvcast

int main(int argc, char** argv) {
  kvcast::Options options;
  CLI::App app("a forecast that heals: times and distributions by position of the answer");
  app.add_option("model", options.model, "bundle")->required();
  app.add_option("--data", options.data, "text of the prompts; without it ids without meaning");
  app.add_option("--label", options.label, "what the model is called in figures");
  app.add_option("--dtype", options.dtype, "weights in memory")->capture_default_str();
  app.add_option("--prefill", options.prefills, "strategies, one word each")->capture_default_str();
  app.add_option("-p,--prompt-tokens", options.prompt_tokens)->capture_default_str();
  app.add_option("-n,--answer-tokens", options.answer_tokens)->capture_default_str();
  app.add_option("--windows", options.windows, "prompts")->capture_default_str();
  app.add_option("--threads", options.threads, "0: all cores")->capture_default_str();
  app.add_flag("--given", options.given,
               "the answer is how the text goes on, not what exact makes of it");
  CLI11_PARSE(app, argc, argv);
  const auto json = kvcast::measure(options);
  if (!json) {
    fmt::print(stderr, "kvcast_healing: {}\n", json.error().message);
    return 1;
  }
  fmt::print("{}\n", json->dump(1));
  return 0;
}
