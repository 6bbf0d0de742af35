// kvcast run: stream an answer, then say where the time to the first token went.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/macros.h"
#include "base/mapped_file.h"
#include "command.h"
#include "kvcast/kvcast.h"

namespace kvcast {
namespace {

struct RunOptions {
  ModelOptions model;
  std::string prompt, file;
  GenerateOptions generate;
  std::string compare;
  bool json = false;
};

/// One strategy's answer.
struct Answer {
  std::string prefill;
  Completion completion;
};

Result<std::string> read_prompt(const RunOptions& options) {
  if (options.file.empty()) return options.prompt;
  if (options.file == "-") {
    return std::string(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
  }
  return read_text_file(options.file);
}

nlohmann::ordered_json to_json(const Answer& answer) {
  const Timings& t = answer.completion.timings;
  nlohmann::ordered_json json = {
      {"prefill", answer.prefill},
      {"text", answer.completion.text},
      {"tokens", answer.completion.tokens},
      {"finish_reason", finish_reason_text(answer.completion.finish_reason)},
      {"prompt_tokens", t.prompt_tokens},
      {"predicted_tokens", t.predicted_tokens},
      {"ttft_ms", t.ttft_ms},
      {"stages_ms",
       {{"tokenize", t.tokenize_ms},
        {"auxiliary", t.auxiliary_ms},
        {"predictor", t.predictor_ms},
        {"base", t.base_ms}}},
      {"decode_tokens_per_s", t.decode_tokens_per_s()}};
  if (t.estimated_ttft_ms) {
    json["chosen"] = t.prefill;
    json["estimated_ttft_ms"] = *t.estimated_ttft_ms;
  }
  if (t.refinement) {
    const Refinement& r = *t.refinement;
    const auto agreement = r.agreement();
    json["refined_rows"] = r.refined_rows;
    json["exact_after_tokens"] = r.exact_after_tokens < 0
                                     ? nlohmann::ordered_json()
                                     : nlohmann::ordered_json(r.exact_after_tokens);
    json["agreement"] = agreement ? nlohmann::ordered_json(*agreement) : nlohmann::ordered_json();
    json["revised_tokens"] = r.revised_tokens;
  }
  return json;
}

std::string refinement_text(const Timings& t) {
  if (!t.refinement) return "-";
  const Refinement& r = *t.refinement;
  const auto agreement = r.agreement();
  std::string text = r.exact_after_tokens < 0
                         ? fmt::format("{} rows", r.refined_rows)
                         : fmt::format("after {} tokens", r.exact_after_tokens);
  if (agreement) text += fmt::format(", {:.0f}% agree", 100 * *agreement);
  if (r.revised_tokens > 0) text += fmt::format(", {} revised", r.revised_tokens);
  return text;
}

/// Rows are what is measured, columns the strategies, so that two stand side by side.
void print_timings(const std::vector<Answer>& answers) {
  const auto row = [&](std::string_view label, auto value) {
    std::string line = fmt::format("{:<26}", label);
    for (const Answer& answer : answers) {
      line += fmt::format(" {:>24}", value(answer));
    }
    fmt::print("{}\n", line);
  };
  const auto ms = [](double Timings::*field) {
    return
        [field](const Answer& a) { return fmt::format("{:.2f} ms", a.completion.timings.*field); };
  };
  fmt::print("\n");
  row("prefill", [](const Answer& a) { return a.prefill; });
  row("time to first token", ms(&Timings::ttft_ms));
  row("  tokenize", ms(&Timings::tokenize_ms));
  row("  auxiliary", ms(&Timings::auxiliary_ms));
  row("  predictor", ms(&Timings::predictor_ms));
  row("  base", ms(&Timings::base_ms));
  row("prompt tokens (predicted)", [](const Answer& a) {
    const Timings& t = a.completion.timings;
    return fmt::format("{} ({})", t.prompt_tokens, t.predicted_tokens);
  });
  row("decode", [](const Answer& a) {
    return fmt::format("{:.1f} tokens/s", a.completion.timings.decode_tokens_per_s());
  });
  const auto refined = [](const Answer& a) { return a.completion.timings.refinement.has_value(); };
  if (std::ranges::any_of(answers, refined)) {
    row("exact", [](const Answer& a) { return refinement_text(a.completion.timings); });
  }
  if (answers.size() == 2) {
    const double ratio =
        answers[0].completion.timings.ttft_ms / answers[1].completion.timings.ttft_ms;
    fmt::print("\nThe first token comes {:.2f} times {} with {} than with {}.\n",
               ratio >= 1 ? ratio : 1 / ratio, ratio >= 1 ? "sooner" : "later", answers[1].prefill,
               answers[0].prefill);
  }
}

/// `heading`: what to print before the answer when streaming.
Result<Answer> answer(const std::shared_ptr<const Model>& model, const std::string& prompt,
                      const GenerateOptions& options, bool stream, const std::string& heading) {
  Session session(model);
  TextSink sink;
  std::string written;
  bool begun = false;  // the heading comes with the first piece: a run that fails prints nothing
  const auto begin = [&] {
    if (!std::exchange(begun, true)) fmt::print("{}", heading);
  };
  if (stream) {
    sink = [&](std::string_view piece) {
      begin();
      written += piece;
      std::fwrite(piece.data(), 1, piece.size(), stdout);
      return std::fflush(stdout) == 0;
    };
  }
  GenerateOptions generate = options;
  if (stream && options.revise && isatty(STDOUT_FILENO) == 1) {
    // What was written stays on the screen; what replaces it begins on a line of its own.
    generate.on_revision = [&](const KeptAnswer& kept) {
      written.resize(static_cast<size_t>(kept.bytes));
      fmt::print("\n--- revised\n{}", written);
    };
  }
  KVCAST_TRY(Completion completion, session.generate(prompt, generate, sink));
  if (stream) {
    begin();
    fmt::print("\n");
  }
  return Answer{options.prefill, std::move(completion)};
}

/// CLI11 would wrap negative numbers around.
Result<uint64_t> parse_seed(const std::string& text) {
  uint64_t seed = 0;
  const char* const end = text.data() + text.size();
  const auto [after, error] = std::from_chars(text.data(), end, seed);
  if (error == std::errc{} && after == end) return seed;
  return fail(fmt::format("expected a whole number from 0 to 2^64 - 1, found \"{}\"", text));
}

struct Loaded {
  std::string prompt;
  std::shared_ptr<const Model> model;
};

Result<Loaded> load(const RunOptions& options, InterruptScope& interrupt) {
  const InterruptScope::ImmediateExit loading(interrupt);
  Loaded loaded;
  KVCAST_TRY(loaded.prompt, read_prompt(options));
  KVCAST_TRY(loaded.model, options.model.load());
  return loaded;
}

Result<int> run(RunOptions options) {
  InterruptScope interrupt;
  KVCAST_TRY(const Loaded loaded, load(options, interrupt));
  const auto& [prompt, model] = loaded;
  GenerateOptions& generate = options.generate;
  generate.cancel = interrupt.token();
  if (generate.prefill.empty()) generate.prefill = model->default_prefill();
  std::vector<std::string> specs = {generate.prefill};
  if (!options.compare.empty()) specs.push_back(options.compare);

  std::vector<Answer> answers;
  if (specs.size() == 2) {  // threads started and memory touched before either is measured
    for (const std::string& spec : specs) {
      GenerateOptions warm_up = generate;
      warm_up.prefill = spec;
      warm_up.max_tokens = 1;
      KVCAST_CHECK(answer(model, prompt, warm_up, false, {}));
    }
  }
  for (const std::string& spec : specs) {
    generate.prefill = spec;
    std::string heading = specs.size() == 2 ? fmt::format("--- {}\n", spec) : "";
    if (options.file.empty()) heading += prompt;  // the answer goes on
    KVCAST_TRY(Answer next, answer(model, prompt, generate, !options.json, heading));
    const bool interrupted = interrupt.token().stop_requested();
    answers.push_back(std::move(next));
    if (interrupted) return kExitInterrupted;
  }
  if (options.json) {
    nlohmann::ordered_json out = {{"prompt", prompt}, {"answers", nlohmann::json::array()}};
    for (const Answer& a : answers) out["answers"].push_back(to_json(a));
    fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    print_timings(answers);
  }
  return kExitOk;
}

}  // namespace

void register_run(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<RunOptions>();
  CLI::App& command =
      *app.add_subcommand("run", "answer a prompt and show the time to first token");
  options->model.add_to(command);
  auto* prompt = command.add_option("-p,--prompt", options->prompt, "the prompt");
  auto* file = command.add_option("-f,--file", options->file, "a file with the prompt; - is stdin");
  prompt->excludes(file);
  GenerateOptions& generate = options->generate;
  command.add_option("-n,--max-tokens", generate.max_tokens, "longest answer, in tokens")
      ->check(is_whole_number(1))
      ->capture_default_str();
  command
      .add_option(
          "--prefill", generate.prefill,
          "exact, kv-prediction, kv-prediction:tail=N,refine=auto|N|off, auto:ttft=MS, auxiliary, "
          "random:R, static:R, lazy:A-B "
          "or zero-cache (default: the model's)")
      ->check(is_prefill_spec());
  command.add_option("--compare", options->compare, "a second strategy to show beside the first")
      ->check(is_prefill_spec());
  SamplingOptions& sampling = generate.sampling;
  command.add_option("--temperature", sampling.temperature, "0: greedy")->capture_default_str();
  command.add_option("--top-k", sampling.top_k, "0: off")
      ->check(is_whole_number(0))
      ->capture_default_str();
  command.add_option("--top-p", sampling.top_p, "1: off")->capture_default_str();
  command.add_option("--min-p", sampling.min_p, "0: off")->capture_default_str();
  command.add_option("--repetition-penalty", sampling.repetition_penalty, "1: off")
      ->capture_default_str();
  command.add_option("--seed", sampling.seed, "of the sampling")
      ->check(checked_by(parse_seed))
      ->capture_default_str();
  command.add_option("--stop", generate.stop, "end the answer before this text; may be repeated")
      ->take_all();
  command.add_flag("--ignore-end-of-text", generate.ignore_end_of_text,
                   "go on after the end-of-text token");
  command.add_flag("--revise", generate.revise,
                   "take back what exact would not have chosen, once refinement knows");
  command.add_flag("--json", options->json, "one JSON object instead of streamed text");
  command.callback([options, prompt, file, &exit_code] {
    if (prompt->empty() && file->empty()) {
      throw CLI::RequiredError("a prompt: -p TEXT or -f FILE");
    }
    if (const Status valid = validate(options->generate.sampling); !valid) {
      throw CLI::ValidationError(valid.error().message);
    }
    auto result = run(*options);
    exit_code = result ? *result : report_error(result.error());
  });
}

}  // namespace kvcast
