// kvcast report: what to use instead.
#include "command.h"

namespace kvcast {

void register_report(CLI::App& app, int& exit_code) {
  CLI::App& command = *app.add_subcommand("report", "tables and figures: see kvcast-report");
  command.group("");  // not listed: it is not there
  command.allow_extras();
  command.callback([&exit_code] {
    report_error(
        {"report: tables and figures are made by kvcast-report PATH... --out "
         "DIR (pip install 'kvcast[report]')"});
    exit_code = kExitUsage;
  });
}

}  // namespace kvcast
