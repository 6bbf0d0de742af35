// What is known of GPUs: for the plan of a run, and for the utilisation that the log reports.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "train/torch.h"

namespace kvcast::train {

/// By the makers' data sheets.
struct Gpu {
  std::string_view name;      ///< as the driver's name contains it
  double peak_teraflops;      ///< dense bf16
  double memory_gb;           ///< 1e9 bytes
  double bandwidth_gb_per_s;  ///< of its memory
  double link_gb_per_s;       ///< to the other GPUs of the host, each way
};

/// "h100", "h200", "h100 pcie", ...: by its name, whatever the case.
std::optional<Gpu> find_gpu(std::string_view name);
/// Names for find_gpu, for messages.
std::string known_gpus();

/// The GPU that a CUDA device is; nothing for CPUs and for those that are not known.
std::optional<Gpu> gpu_of(const at::Device& device);

/// The most memory that tensors have taken on the device so far; 0 where that is not known.
int64_t peak_memory_bytes(const at::Device& device);

}  // namespace kvcast::train
