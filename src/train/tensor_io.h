// Between safetensors files and libtorch tensors.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "prefill/predictor.h"
#include "train/parameters.h"
#include "train/torch.h"

namespace kvcast::train {

/// A copy on the CPU; F32, F16 and BF16 become f32, I64 stays.
Tensor to_tensor(const TensorView& view);

/// Reads the tensors that `specs` name, in f32 on the CPU. Throws TrainError naming file, tensor
/// and shape.
TensorMap read_parameters(const Safetensors& file, const std::vector<ParameterSpec>& specs);
/// The same from an unpacked predictor, which must hold them all.
TensorMap read_parameters(const std::map<std::string, FloatTensor>& tensors,
                          const std::vector<ParameterSpec>& specs);

/// Writes `tensors` (f32 ones as `dtype`, kF32 or kBF16; int64 ones as I64), atomically.
void write_tensors(const std::filesystem::path& file, const TensorMap& tensors, DType dtype,
                   const std::map<std::string, std::string>& metadata = {});

/// The same as STEM.safetensors in `directory`, or, if that would be larger than `shard_bytes`, as
/// STEM-00001-of-0000N.safetensors and so on with STEM.safetensors.index.json, as Hugging Face
/// does. A tensor is never split.
void write_sharded_tensors(const std::filesystem::path& directory, const std::string& stem,
                           const TensorMap& tensors, DType dtype, int64_t shard_bytes,
                           const std::map<std::string, std::string>& metadata = {});

/// All tensors that write_sharded_tensors wrote, on the CPU.
TensorMap read_sharded_tensors(const std::filesystem::path& directory, const std::string& stem);

}  // namespace kvcast::train
