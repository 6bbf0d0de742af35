// What `adapt` makes before it trains, where it is not there yet.
#pragma once

#include "recipe_arguments.h"
#include "train/torch.h"

namespace kvcast::train {

/// The stages of the recipe whose results are missing: shards and prompts (by kvcast-train-text),
/// then the base's answers. A recipe that has not the table of a stage has its result from
/// elsewhere.
void make_training_data(const RecipeArguments& arguments, const at::Device& device, bool quiet);

/// argv[0] of the program that has the commands on text, beside this one.
std::string text_program();

}  // namespace kvcast::train
