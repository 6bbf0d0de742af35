// kvcast report: tables and figures from results and training logs.
#include <fmt/format.h>

#include "base/macros.h"
#include "command.h"
#include "kvcast/version.h"
#include "report/page.h"

namespace kvcast {
namespace {

using namespace report;

struct ReportOptions {
  std::vector<std::string> inputs;
  std::string out;
  std::string title = "KV Prediction: results";
  bool png = false;
};

Status run_report(const ReportOptions& options) {
  KVCAST_TRY(Results results, read_results({options.inputs.begin(), options.inputs.end()}));
  Report report{.title = options.title,
                .made_by = fmt::format("Made by kvcast report {} ({}).", version(), commit()),
                .sections = make_sections(results),
                .notes = std::move(results.notes)};
  for (const std::string& note : report.notes)
    fmt::print(stderr, "kvcast: note: {}\n", one_line(note));
  if (report.sections.empty()) {
    return fail(fmt::format("{}: no results of kvcast eval, bench or analyze and no training logs",
                            options.inputs.front()));
  }
  KVCAST_CHECK(write_report(report, options.out, options.png));
  fmt::print("{}\n", (std::filesystem::path(options.out) / "index.html").string());
  return {};
}

}  // namespace

void register_report(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<ReportOptions>();
  CLI::App& command = *app.add_subcommand(
      "report", "tables and figures from results and training logs, as one page and as files");
  command
      .add_option("PATH", options->inputs,
                  "result files (.json) and training logs (.jsonl), or directories of them")
      ->required();
  command.add_option("--out", options->out, "directory to write")->required();
  command.add_option("--title", options->title, "of the page")->capture_default_str();
  command.add_flag("--png", options->png, "figures as PNG too, through rsvg-convert");
  command.callback([options, &exit_code] {
    const Status status = run_report(*options);
    exit_code = status ? kExitOk : report_error(status.error());
  });
}

}  // namespace kvcast
