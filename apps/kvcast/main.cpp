#include <fmt/format.h>

#include <cstdio>
#include <new>

#include "command.h"
#include "kvcast/version.h"

namespace kvcast {
namespace {

/// A full disk or a closed pipe may show only when the output is flushed.
int finish(int exit_code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return exit_code;
  if (exit_code != kExitOk) return exit_code;
  return report_error({"cannot write the output"});
}

}  // namespace
}  // namespace kvcast

int main(int argc, char** argv) {
  using namespace kvcast;
  CLI::App app{"kvcast: forecast the KV cache, get the first token sooner"};
  app.set_version_flag("--version", fmt::format("kvcast {} ({})", version(), commit()));
  app.require_subcommand(0, 1);  // a word that is no command is then named as such
  int exit_code = kExitOk;
  register_run(app, exit_code);
  register_bench(app, exit_code);
  register_info(app, exit_code);
  register_flops(app, exit_code);
  register_inspect(app, exit_code);
  register_serve(app, exit_code);
  register_chat(app, exit_code);
  register_convert(app, exit_code);
  register_analyze(app, exit_code);
  register_report(app, exit_code);
  register_eval(app, exit_code);
  register_fit(app, exit_code);
  try {
    app.parse(argc, argv);
    if (app.get_subcommands().empty()) throw CLI::RequiredError("A command");
  } catch (const CLI::Success& help) {
    return finish(app.exit(help));
  } catch (const CLI::ParseError& error) {
    report_error({one_line(fmt::format("{} (kvcast --help lists the options)", error.what()))});
    return kExitUsage;
  } catch (const std::bad_alloc&) {
    return report_error({"not enough memory"});
  } catch (const std::exception& error) {
    if (std::ferror(stdout) != 0) return finish(kExitOk);  // fmt::print's
    return report_error({one_line(error.what())});
  }
  return finish(exit_code);
}
