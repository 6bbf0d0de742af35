// RECIPE and --set, which every command that follows a recipe takes.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "train/data/recipe.h"

namespace kvcast::train {

/// Bad usage as one line.
inline std::string one_line_failure(const CLI::App* app, const CLI::Error& error) {
  return "kvcast-train: " + std::string(error.what()) + "; see kvcast-train " +
         (app->get_parent() != nullptr ? app->get_name() + " " : "") + "--help\n";
}

struct RecipeArguments {
  std::string recipe;
  std::vector<std::string> set;

  void add_to(CLI::App& command) {
    command.add_option("recipe", recipe, "TOML file; see recipes/README.md")
        ->required()
        ->check(CLI::ExistingFile);
    command
        .add_option("--set", set,
                    "NAME=VALUE: a variable of the recipe (${NAME}), or one of its keys "
                    "(run.steps=100)")
        ->allow_extra_args(false)
        ->check([](const std::string& value) {
          return value.find('=') > 0 && value.find('=') != std::string::npos
                     ? std::string()
                     : "expected NAME=VALUE, found " + value;
        });
  }

  [[nodiscard]] Settings settings() const {
    Settings result;
    for (const auto& value : set) {
      const size_t equals = value.find('=');
      result.emplace_back(value.substr(0, equals), value.substr(equals + 1));
    }
    return result;
  }
};

}  // namespace kvcast::train
