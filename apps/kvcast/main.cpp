#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <new>

#include "base/nearest_word.h"
#include "base/shrunken_files.h"
#include "command.h"

namespace kvcast {
namespace {

/// A program may be started with its standard streams closed (`2>&-`). Then the first file that it
/// opened would be one of them, and be written into.
void keep_standard_streams_apart() {
  for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; ++stream) {
    if (fcntl(stream, F_GETFD) != -1) continue;
    // Standard output cannot be written then, which is an error in the end as a full disk is.
    open("/dev/null", stream == STDERR_FILENO ? O_WRONLY : O_RDONLY);
  }
}

/// A full disk or a closed pipe may show only when the output is flushed.
int finish(int exit_code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return exit_code;
  if (exit_code != kExitOk) return exit_code;
  return report_error({"cannot write the output"});
}

std::vector<std::string> option_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

/// "; did you mean run?", if a word that is known is near enough.
std::string suggestion(std::string_view typed, const std::vector<std::string>& known) {
  const std::string nearest = nearest_word(typed.substr(0, typed.find('=')), known);
  return nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest);
}

/// What was wrong with the command line, what may have been meant, and where help is.
std::string usage_message(const CLI::App& app, const CLI::ParseError& error) {
  std::string message = error.what();
  const auto chosen = app.get_subcommands();
  if (chosen.empty()) {
    for (const std::string& word : app.remaining()) {
      if (word.starts_with('-')) {
        message += suggestion(word, {"--help", "--version"});
      } else {
        message = fmt::format("\"{}\" is no command{}", word, suggestion(word, command_names(app)));
      }
      break;
    }
    return fmt::format("{} (kvcast help lists the commands)", message);
  }
  const CLI::App& command = *chosen.front();
  for (const std::string& word : command.remaining()) {
    if (word.starts_with("--")) message += suggestion(word, option_names(command));
  }
  return fmt::format("{} (kvcast {} --help lists the options)", message, command.get_name());
}

void register_all(CLI::App& app, int& exit_code) {
  register_run(app, exit_code);
  register_chat(app, exit_code);
  register_serve(app, exit_code);
  register_bench(app, exit_code);
  register_eval(app, exit_code);
  register_fit(app, exit_code);
  register_info(app, exit_code);
  register_flops(app, exit_code);
  register_inspect(app, exit_code);
  register_convert(app, exit_code);
  register_analyze(app, exit_code);
  register_report(app, exit_code);
  register_general(app, exit_code);
}

}  // namespace
}  // namespace kvcast

int main(int argc, char** argv) {
  using namespace kvcast;
  keep_standard_streams_apart();
  report_shrunken_files("kvcast");
  std::signal(SIGXFSZ, SIG_IGN);  // a file beyond a limit is reported, as a full disk is
  CLI::App app{"kvcast: forecast the KV cache, get the first token sooner"};
  app.set_version_flag("--version", version_line());
  app.require_subcommand(0, 1);  // a word that is no command is then named as such
  int exit_code = kExitOk;
  register_all(app, exit_code);
  try {
    app.parse(argc, argv);
    if (app.get_subcommands().empty()) throw CLI::RequiredError("A command");
  } catch (const CLI::Success& help) {
    return finish(app.exit(help));
  } catch (const CLI::ParseError& error) {
    report_error({one_line(usage_message(app, error))});
    return kExitUsage;
  } catch (const std::bad_alloc&) {
    return report_error({"not enough memory"});
  } catch (const std::exception& error) {
    if (std::ferror(stdout) != 0) return finish(kExitOk);  // fmt::print's
    return report_error({one_line(error.what())});
  }
  return finish(exit_code);
}
