// What a model directory or bundle holds, gathered without loading weights.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "kvcast/result.h"
#include "model/bundle.h"
#include "model/config.h"

namespace kvcast {

/// Tensors of one dtype in a file.
struct Stored {
  int64_t tensors = 0, elements = 0, bytes = 0;
};

struct ModelInfo {
  std::filesystem::path directory;
  ModelConfig config;
  std::map<std::string, Stored> stored;  ///< by dtype name
};

struct TokenizerInfo {
  std::filesystem::path file;
  int64_t vocab_size = 0;
  int32_t bos_token = 0, eos_token = 0;
};

struct BundleInfo {
  BundleManifest manifest;
  ModelInfo auxiliary;
  std::map<std::string, Stored> predictor;  ///< by dtype name
};

struct Info {
  std::filesystem::path path;
  ModelInfo model;  ///< of a bundle: the base
  std::optional<BundleInfo> bundle;
  std::optional<TokenizerInfo> tokenizer;
};

/// Opens every file and reads their headers; errors name the file.
Result<Info> gather_info(const std::filesystem::path& path);

}  // namespace kvcast
