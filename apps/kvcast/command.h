// What the subcommands share. Each subcommand is one file with a register_* function.
#pragma once

#include <CLI/CLI.hpp>
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

/// "kvcast: message" on stderr, one line; returns kExitFailed.
int report_error(const Error& error);

/// Options that every command which loads a model takes.
struct ModelOptions {
  std::string directory;  // empty: the bundle that ships with kvcast
  std::string dtype = "auto";
  int threads = 0;
  std::string tokenizer;

  void add_to(CLI::App& command);
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

 private:
  std::stop_source source_;
  std::jthread watcher_;
};

}  // namespace kvcast
