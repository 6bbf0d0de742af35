// kvcast-train plan RECIPE: what a run would take, without a GPU and without weights.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "recipe_arguments.h"

namespace kvcast::train {

struct PlanArguments {
  RecipeArguments recipe;
  std::string gpu = "h100", base, auxiliary;
  int64_t gpus = 1;
  bool json = false;

  void add_to(CLI::App& command);
};

/// Prints the plan; the exit status.
int run_plan(const PlanArguments& arguments);

}  // namespace kvcast::train
