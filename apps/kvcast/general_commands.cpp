// kvcast help, version and list.
#include <fmt/format.h>

#include "base/nearest_word.h"
#include "command.h"
#include "kvcast/version.h"
#include "model/bundle.h"
#include "models_folder.h"

namespace kvcast {
namespace {

int print_help(CLI::App& app, const std::string& of) {
  if (of.empty()) {
    // app.help() would be that of the chosen command, this one.
    fmt::print("{}",
               app.get_formatter()->make_help(&app, app.get_name(), CLI::AppFormatMode::Normal));
    return kExitOk;
  }
  const auto named =
      app.get_subcommands([&](const CLI::App* one) { return one->get_name() == of; });
  if (named.empty()) {
    const std::string nearest = nearest_word(of, command_names(app));
    const std::string meant = nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest);
    throw CLI::ValidationError(fmt::format("\"{}\" is no command{}", of, meant));
  }
  fmt::print("{}", named.front()->help(app.get_name()));
  return kExitOk;
}

int print_models() {
  const auto models = list_models();
  size_t width = 0;
  for (const ListedModel& model : models) width = std::max(width, model.name.size());
  for (const ListedModel& model : models) {
    fmt::print("{:<{}}  {}\n", model.name, width, model.path.string());
  }
  std::fflush(stdout);
  for (const ListedModel& model : models) {
    if (!is_bundle(model.path)) continue;
    const auto manifest = read_bundle_manifest(model.path);
    if (!manifest) print_note("kvcast: {}\n", manifest.error().message);
  }
  if (!models.empty()) return kExitOk;
  std::string folders;
  for (const auto& folder : models_folders()) folders += " " + folder.string();
  return report_error({fmt::format("no models in{}; KVCAST_MODELS names another folder", folders)});
}

}  // namespace

std::string version_line() { return fmt::format("kvcast {} ({})", version(), commit()); }

void register_general(CLI::App& app, int& exit_code) {
  const auto of = std::make_shared<std::string>();
  CLI::App* help = app.add_subcommand("help", "the commands, or one command's options");
  help->add_option("COMMAND", *of, "a command");
  help->callback([&app, of, &exit_code] { exit_code = print_help(app, *of); });
  app.add_subcommand("version", "the version, and the commit it was built from")->callback([] {
    fmt::print("{}\n", version_line());
  });
  app.add_subcommand("list", "the models that may be called by name")->callback([&exit_code] {
    exit_code = print_models();
  });
}

}  // namespace kvcast
