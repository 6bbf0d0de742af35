// Where `make models` puts what it fetches.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace kvcast {

/// A test of a model that is not there fails: `make models` fetches it.
inline std::filesystem::path hub_model(const std::string& name) {
  const char* const folder = std::getenv("KVCAST_MODELS");
  const auto in_source_tree = std::filesystem::path(KVCAST_SOURCE_DIR) / "models" / "hub";
  return (folder != nullptr ? std::filesystem::path(folder) : in_source_tree) / (name + ".gguf");
}

}  // namespace kvcast
