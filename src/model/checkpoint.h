// One opener for everything that a model is: its config, its weights, and the files beside them.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "io/tensor_source.h"
#include "kvcast/result.h"
#include "model/config.h"
#include "model/layout.h"

namespace kvcast {

/// A model directory or GGUF file, opened: headers read and checked, weights mapped.
struct Checkpoint {
  std::filesystem::path path;
  ModelConfig config;
  std::shared_ptr<const TensorSource> weights;
  StoredForm form;  ///< how `weights` holds the model
};
Result<Checkpoint> open_checkpoint(const std::filesystem::path& path);

/// The files that belong to a model beside its config and weights, those that are there:
/// tokenizer, chat template, generation settings, licence.
std::vector<std::filesystem::path> companions(const std::filesystem::path& model);
/// Copies them into an existing directory; of a GGUF file its metadata, as a file of no tensors.
Status copy_companions(const std::filesystem::path& model, const std::filesystem::path& directory);

}  // namespace kvcast
