// Models that are called by a name instead of a path.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "kvcast/result.h"

namespace kvcast {

/// Where named models lie, the first found counts: KVCAST_MODELS (several with ':' between them),
/// beside the installed program, in the source tree and its hub/.
std::vector<std::filesystem::path> models_folders();

struct ListedModel {
  std::string name;
  std::filesystem::path path;  ///< a model directory, a bundle or a GGUF file
};
/// Every model in models_folders(), by name.
std::vector<ListedModel> list_models();

/// The path itself if something is there, else the model of that name. Empty: the bundle that ships
/// with kvcast. Errors: nothing is there, and which name is near; a directory that holds no model;
/// where the shipped bundle was looked for.
Result<std::filesystem::path> find_model(const std::string& path_or_name);
/// Whether find_model() finds something.
bool is_model(const std::string& path_or_name);

}  // namespace kvcast
