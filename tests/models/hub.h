// Where `make models` puts what it fetches.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace kvcast {

/// A test of a model that is not there fails: `make models` fetches it.
inline std::filesystem::path hub_model(const std::string& name) {
  const char* folder = std::getenv("KVCAST_MODELS");
  const std::filesystem::path hub = folder != nullptr ? folder : KVCAST_SOURCE_DIR "/models/hub";
  return hub / (name + ".gguf");
}

}  // namespace kvcast
