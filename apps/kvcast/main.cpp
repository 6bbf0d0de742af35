#include <fmt/format.h>

#include <cstdio>

#include "command.h"
#include "kvcast/version.h"

int main(int argc, char** argv) {
  using namespace kvcast;
  CLI::App app{"kvcast: forecast the KV cache, get the first token sooner"};
  app.set_version_flag("--version", fmt::format("kvcast {} ({})", version(), commit()));
  app.require_subcommand(1);
  int exit_code = kExitOk;
  register_run(app, exit_code);
  register_bench(app, exit_code);
  register_info(app, exit_code);
  register_flops(app, exit_code);
  register_inspect(app, exit_code);
  register_serve(app, exit_code);
  register_chat(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "kvcast: {} (kvcast --help lists the options)\n", error.what());
    return kExitUsage;
  } catch (const std::exception& error) {
    fmt::print(stderr, "kvcast: {}\n", error.what());
    return kExitFailed;
  }
  // A full disk or a closed pipe shows only when the output is flushed.
  if (std::fflush(stdout) != 0 && exit_code == kExitOk) {
    fmt::print(stderr, "kvcast: cannot write the output\n");
    return kExitFailed;
  }
  return exit_code;
}
