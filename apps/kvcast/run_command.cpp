// kvcast run: stream an answer, then say where the time to the first token went.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/macros.h"
#include "base/paired_ratio.h"
#include "base/text_input.h"
#include "command.h"
#include "kvcast/kvcast.h"
#include "models_folder.h"

namespace kvcast {
namespace {

struct RunOptions {
  ModelOptions model;
  std::string prompt, file, suffix;
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
  return options.file.empty() ? check_text_input(options.prompt, "the prompt")
                              : read_text_input(options.file);
}

/// --suffix: a text, or the file that is named behind an @.
Result<std::string> read_suffix(const std::string& suffix) {
  if (!suffix.starts_with('@')) return check_text_input(suffix, "--suffix");
  return read_text_input(suffix.substr(1));
}

/// `run "some text"` means the text as the prompt, although the first word is MODEL.
void take_text_for_the_prompt(RunOptions& options) {
  std::string& model = options.model.directory;
  if (model.empty() || is_model(model)) {
    throw CLI::RequiredError("a prompt (PROMPT, -p TEXT or -f FILE)");
  }
  if (model.find_first_of(" \t\n") == std::string::npos) {
    throw CLI::ValidationError(
        fmt::format("\"{0}\" is no model (kvcast list shows them) and a single word; if it is the "
                    "prompt, write -p \"{0}\"",
                    model));
  }
  options.prompt = std::exchange(model, {});
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
      {"decode_tokens_per_s", t.decode_tokens_per_s()},
      {"drafted_tokens", t.drafted_tokens},
      {"accepted_tokens", t.accepted_tokens}};
  if (t.estimated_ttft_ms) {
    json["chosen"] = t.prefill;
    json["estimated_ttft_ms"] = *t.estimated_ttft_ms;
  }
  if (t.gate) {
    json["gate"] = {{"trusted", t.gate->trusted()},
                    {"score", t.gate->score},
                    {"threshold", t.gate->threshold},
                    {"ms", t.gate->ms}};
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

/// Rows are what is measured, columns the strategies, so that two stand side by side. On stderr:
/// stdout has the answer alone.
void print_timings(const std::vector<Answer>& answers) {
  const auto row = [&](std::string_view label, auto value) {
    std::string line = fmt::format("{:<26}", label);
    for (const Answer& answer : answers) {
      line += fmt::format(" {:>24}", value(answer));
    }
    print_note("{}\n", line);
  };
  const auto ms = [](double Timings::*field) {
    return
        [field](const Answer& a) { return fmt::format("{:.2f} ms", a.completion.timings.*field); };
  };
  print_note("\n");
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
  const auto drafted = [](const Answer& a) { return a.completion.timings.drafted_tokens > 0; };
  if (std::ranges::any_of(answers, drafted)) {
    row("drafts", [](const Answer& a) {
      return drafts_text(a.completion.timings.drafted_tokens, a.completion.timings.accepted_tokens);
    });
  }
  const auto judged = [](const Answer& a) { return a.completion.timings.gate.has_value(); };
  if (std::ranges::any_of(answers, judged)) {
    row("gate", [](const Answer& a) {
      const auto& gate = a.completion.timings.gate;
      if (!gate) return std::string("-");
      return fmt::format("{} ({:.2f}, {:.1f} ms)", gate->trusted() ? "trusted" : "read exactly",
                         gate->score, gate->ms);
    });
  }
  const auto refined = [](const Answer& a) { return a.completion.timings.refinement.has_value(); };
  if (std::ranges::any_of(answers, refined)) {
    row("exact", [](const Answer& a) {
      const auto& refinement = a.completion.timings.refinement;
      return refinement ? refinement_text(*refinement) : "-";
    });
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

/// Two strategies' times to the first token, taken in turns.
struct Comparison {
  int rounds = 0;
  PairedRatio ratio;  ///< first strategy's over the second's
};

/// Replaces the answers' times by medians of rounds in which the strategies take turns, each going
/// first as often as the other. Nothing if interrupted.
Result<std::optional<Comparison>> compare(const std::shared_ptr<const Model>& model,
                                          const std::string& prompt, GenerateOptions options,
                                          std::vector<Answer>& answers) {
  constexpr std::array kStages = {&Timings::ttft_ms, &Timings::tokenize_ms, &Timings::auxiliary_ms,
                                  &Timings::predictor_ms, &Timings::base_ms};
  std::array<std::array<std::vector<double>, kStages.size()>, 2> samples;  // [strategy][stage]
  options.max_tokens = 1;
  for (int round = 0; round < kCertainRounds; ++round) {
    for (size_t turn = 0; turn < 2; ++turn) {
      const size_t which = round % 2 == 0 ? turn : 1 - turn;
      options.prefill = answers[which].prefill;
      KVCAST_TRY(const Answer measured, answer(model, prompt, options, false, {}));
      if (options.cancel.stop_requested()) return std::nullopt;
      for (size_t stage = 0; stage < kStages.size(); ++stage) {
        samples[which][stage].push_back(measured.completion.timings.*kStages[stage]);
      }
    }
  }
  Comparison result{kCertainRounds, paired_ratio(samples[0][0], samples[1][0])};
  for (size_t which = 0; which < 2; ++which) {
    for (size_t stage = 0; stage < kStages.size(); ++stage) {
      std::vector<double>& values = samples[which][stage];
      std::ranges::nth_element(values, values.begin() + kCertainRounds / 2);
      answers[which].completion.timings.*kStages[stage] = values[kCertainRounds / 2];
    }
  }
  return result;
}

std::string to_json(const std::string& prompt, const std::vector<Answer>& answers,
                    const std::optional<Comparison>& comparison) {
  nlohmann::ordered_json out = {{"prompt", prompt}, {"answers", nlohmann::json::array()}};
  for (const Answer& a : answers) out["answers"].push_back(to_json(a));
  if (comparison) {
    const PairedRatio& ratio = comparison->ratio;
    out["comparison"] = {
        {"rounds", comparison->rounds},
        {"ttft_ratio", {{"median", ratio.median}, {"low", ratio.low}, {"high", ratio.high}}},
        {"beyond_noise", ratio.is_certain}};
  }
  return out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
}

void print_comparison(const std::vector<Answer>& answers, const Comparison& comparison) {
  const PairedRatio& ratio = comparison.ratio;
  if (!ratio.is_certain) {
    print_note(
        "\nNo difference in the time to first token beyond noise: {:.2f} to {:.2f} in {} "
        "rounds.\n",
        ratio.low, ratio.high, comparison.rounds);
    return;
  }
  const bool sooner = ratio.median > 1;
  const auto times = [&](double of) { return sooner ? of : 1 / of; };
  print_note(
      "\nThe first token comes {:.2f} times {} with {} than with {} ({:.2f} to {:.2f} in {} "
      "rounds).\n",
      times(ratio.median), sooner ? "sooner" : "later", answers[1].prefill, answers[0].prefill,
      std::min(times(ratio.low), times(ratio.high)), std::max(times(ratio.low), times(ratio.high)),
      comparison.rounds);
}

struct Loaded {
  std::string prompt, suffix;
  std::shared_ptr<const Model> model;
};

Result<Loaded> load(const RunOptions& options, InterruptScope& interrupt) {
  const InterruptScope::ImmediateExit loading(interrupt);
  Loaded loaded;
  KVCAST_TRY(loaded.prompt, read_prompt(options));
  KVCAST_TRY(loaded.suffix, read_suffix(options.suffix));
  for (const std::string& spec : {options.generate.prefill, options.compare}) {
    KVCAST_CHECK(options.model.check_prefill(spec));
  }
  KVCAST_TRY(loaded.model, options.model.load());
  return loaded;
}

Result<int> run(RunOptions options) {
  InterruptScope interrupt;
  KVCAST_TRY(const Loaded loaded, load(options, interrupt));
  const auto& [prompt, suffix, model] = loaded;
  GenerateOptions& generate = options.generate;
  generate.suffix = suffix;
  generate.cancel = interrupt.token();
  if (generate.prefill.empty()) generate.prefill = model->default_prefill();
  std::vector<std::string> specs = {generate.prefill};
  if (!options.compare.empty()) specs.push_back(options.compare);

  // On a terminal the answer goes on where the prompt ends; elsewhere it stands alone.
  if (!options.json && specs.size() == 1 && options.file.empty() && isatty(STDOUT_FILENO) != 0 &&
      isatty(STDERR_FILENO) != 0) {
    print_note("{}", prompt);
  }
  std::vector<Answer> answers;
  for (const std::string& spec : specs) {
    generate.prefill = spec;
    const std::string heading = specs.size() == 2 ? fmt::format("--- {}\n", spec) : "";
    KVCAST_TRY(Answer next, answer(model, prompt, generate, !options.json, heading));
    answers.push_back(std::move(next));
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
      return fail("cannot write the output");
    if (interrupt.token().stop_requested()) return kExitInterrupted;
  }
  std::optional<Comparison> comparison;
  if (specs.size() == 2) {
    KVCAST_TRY(comparison, compare(model, prompt, generate, answers));
    if (!comparison) return kExitInterrupted;
  }
  if (options.json) {
    fmt::print("{}\n", to_json(prompt, answers, comparison));
  } else {
    print_timings(answers);
    if (comparison) print_comparison(answers, *comparison);
  }
  return kExitOk;
}

}  // namespace

void register_run(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<RunOptions>();
  CLI::App& command =
      *app.add_subcommand("run", "answer a prompt and show the time to first token");
  options->model.add_to(command);
  auto* prompt = command.add_option("PROMPT,-p,--prompt", options->prompt,
                                    "the prompt; `run \"some text\"` asks the default bundle");
  auto* file = command.add_option("-f,--file", options->file, "a file with the prompt; - is stdin");
  prompt->excludes(file);
  command.add_option("--suffix", options->suffix,
                     "fill in what belongs between the prompt and this; @FILE: a file with it");
  GenerateOptions& generate = options->generate;
  command.add_option("-n,--max-tokens", generate.max_tokens, "longest answer, in tokens")
      ->check(is_whole_number(1))
      ->capture_default_str();
  command
      .add_option(
          "--prefill", generate.prefill,
          "exact, kv-prediction, kv-prediction:tail=N,refine=auto|N|off,gate=auto|X|off,mix=W|off, "
          "auto:ttft=MS, auxiliary, random:R, static:R, lazy:A-B or zero-cache (default: the "
          "model's)")
      ->check(is_prefill_spec());
  command.add_option("--compare", options->compare, "a second strategy to show beside the first")
      ->check(is_prefill_spec());
  add_sampling_options(command, generate.sampling);
  add_drafts_option(command, generate.drafts);
  command.add_option("--stop", generate.stop, "end the answer before this text; may be repeated")
      ->take_all();
  command.add_flag("--ignore-end-of-text", generate.ignore_end_of_text,
                   "go on after the end-of-text token");
  command.add_flag("--revise", generate.revise,
                   "take back what exact would not have chosen, once refinement knows");
  command.add_flag("--json", options->json, "one JSON object instead of streamed text");
  command.callback([options, prompt, file, &exit_code] {
    if (prompt->empty() && file->empty()) take_text_for_the_prompt(*options);
    check_sampling_options(options->generate.sampling);
    auto result = run(*options);
    exit_code = result ? *result : report_error(result.error());
  });
}

}  // namespace kvcast
