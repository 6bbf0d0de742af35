// What the subcommands share. Each subcommand is one file with a register_* function.
#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <filesystem>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/note.h"
#include "kvcast/model.h"
#include "kvcast/result.h"
#include "kvcast/sampling.h"
#include "kvcast/session.h"

namespace kvcast {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitInterrupted = 130;  // 128 + SIGINT, as shells count

/// Each adds its subcommand to `app`; the exit status goes to `exit_code`, which must outlive it.
void register_run(CLI::App& app, int& exit_code);
void register_bench(CLI::App& app, int& exit_code);
void register_info(CLI::App& app, int& exit_code);
void register_flops(CLI::App& app, int& exit_code);
void register_inspect(CLI::App& app, int& exit_code);
void register_serve(CLI::App& app, int& exit_code);
void register_chat(CLI::App& app, int& exit_code);
void register_convert(CLI::App& app, int& exit_code);
void register_analyze(CLI::App& app, int& exit_code);
void register_report(CLI::App& app, int& exit_code);
void register_eval(CLI::App& app, int& exit_code);
void register_fit(CLI::App& app, int& exit_code);
/// help, version and list.
void register_general(CLI::App& app, int& exit_code);

std::vector<std::string> command_names(const CLI::App& app);

/// "kvcast 0.1.0 (commit)".
std::string version_line();

/// A line on stderr that the next is written over, cut to the terminal's width; empty: none.
/// Nothing unless stderr is a terminal.
void show_progress(std::string line);

/// "kvcast: message" on stderr, one line; returns kExitFailed.
int report_error(const Error& error);

/// A check of an option by the library's own parser: its error is the usage error.
template <typename Parse>
CLI::Validator checked_by(Parse parse) {
  return CLI::Validator(
      [parse](std::string& value) {
        const auto result = parse(value);
        return result ? std::string() : result.error().message;
      },
      "");
}
/// "exact,kv-prediction:tail=16,refine=auto" is two strategies: what is an option and no name
/// belongs to the one before it.
std::vector<std::string> split_prefill_specs(std::span<const std::string> lists);

/// --prefill with such lists, each strategy checked by the library's own parser.
template <typename Parse>
void add_prefill_list(CLI::App& command, std::vector<std::string>& specs, const std::string& help,
                      Parse parse) {
  command.add_option_function<std::vector<std::string>>(
      "--prefill",
      [&specs, parse](const std::vector<std::string>& lists) {
        specs = split_prefill_specs(lists);
        for (const std::string& spec : specs) {
          if (const auto result = parse(spec); !result) {
            throw CLI::ValidationError("--prefill", result.error().message);
          }
        }
      },
      help);
}

/// A whole number from `least` to `most`.
CLI::Validator is_whole_number(int64_t least, int64_t most = INT64_MAX);
/// What SamplingOptions::seed holds.
CLI::Validator is_seed();
/// The spec of a prefill strategy.
CLI::Validator is_prefill_spec();
/// A number of threads; 0: available_processors().
CLI::Validator is_thread_count();

/// --temperature, --top-k and so on; a command's callback begins with the check, which throws what
/// is bad usage.
void add_sampling_options(CLI::App& command, SamplingOptions& sampling);
void check_sampling_options(const SamplingOptions& sampling);
/// --drafts; what `drafts` is already is the default.
void add_drafts_option(CLI::App& command, int64_t& drafts);

/// Describes MODEL where a command does not need one to be named.
inline constexpr const char* kModelHelp =
    "model directory, KV-prediction bundle, or the name of a model that kvcast list shows "
    "(default: the bundle shipped with kvcast)";

/// Options that every command which loads a model takes.
struct ModelOptions {
  std::string directory;  // a path or a name (models_folder.h); empty: the shipped bundle
  std::string dtype = "auto";
  std::string kv_dtype = "auto";
  int threads = 0;
  std::string tokenizer;

  void add_to(CLI::App& command);
  void add_kv_dtype_to(CLI::App& command);  // part of add_to
  /// What is known to be wrong with a prefill strategy before weights are loaded; empty: nothing.
  Status check_prefill(const std::string& spec) const;
  Result<std::shared_ptr<const Model>> load() const;
};

/// "after 12 tokens, 97% agree, 3 revised": what became of a forecast.
std::string refinement_text(const Refinement& refinement);

/// "12 of 30 came true": what became of an answer's drafts.
std::string drafts_text(int64_t drafted, int64_t accepted);

/// "5 17 3" or "5,17,3" -> token ids.
Result<std::vector<int32_t>> parse_token_ids(const std::string& text);

/// While it lives, the first SIGINT or SIGTERM asks for a clean stop through token(); the second
/// ends the process at once. Make it before other threads start: they inherit the signal mask.
class InterruptScope {
 public:
  InterruptScope();
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;
  [[nodiscard]] std::stop_token token() const { return source_.get_token(); }

  /// While it lives nothing looks at token(), because weights are being loaded, and the first
  /// signal already ends the process.
  class ImmediateExit {
   public:
    explicit ImmediateExit(InterruptScope& scope) : scope_(scope) { scope_.exit_at_once_ = true; }
    ~ImmediateExit() { scope_.exit_at_once_ = false; }
    ImmediateExit(const ImmediateExit&) = delete;
    ImmediateExit& operator=(const ImmediateExit&) = delete;

   private:
    InterruptScope& scope_;
  };

 private:
  std::atomic<bool> exit_at_once_ = false;
  std::stop_source source_;
  std::jthread watcher_;
};

}  // namespace kvcast
