// What the subcommands share. Each subcommand is one file with a register_* function.
#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <filesystem>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "kvcast/model.h"
#include "kvcast/result.h"

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
/// A whole number from `least` to `most`.
CLI::Validator is_whole_number(int64_t least, int64_t most = INT64_MAX);
/// The spec of a prefill strategy.
CLI::Validator is_prefill_spec();
/// A number of threads; 0: all cores.
CLI::Validator is_thread_count();

/// Options that every command which loads a model takes.
struct ModelOptions {
  std::string directory;  // empty: the bundle that ships with kvcast
  std::string dtype = "auto";
  std::string kv_dtype = "auto";
  int threads = 0;
  std::string tokenizer;

  void add_to(CLI::App& command);
  void add_kv_dtype_to(CLI::App& command);  // part of add_to
  Result<std::shared_ptr<const Model>> load() const;
};

/// The bundle that ships with kvcast: in the source tree, or beside an installed program. Errors
/// say where it was looked for.
Result<std::filesystem::path> default_model_directory();

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
