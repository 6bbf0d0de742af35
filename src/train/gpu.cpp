#include "train/gpu.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cctype>

#ifdef KVCAST_CUDA_KERNELS
#include <c10/cuda/CUDACachingAllocator.h>
#endif

namespace kvcast::train {
namespace {

/// NVIDIA's data sheets, without sparsity. The first name that is contained counts.
constexpr Gpu kGpus[] = {
    {"H200", 989.4, 141.0, 4800.0, 450.0}, {"H100 PCIe", 756.0, 80.0, 2000.0, 64.0},
    {"H100", 989.4, 80.0, 3350.0, 450.0},  {"A100", 312.0, 80.0, 2039.0, 300.0},
    {"L40S", 362.0, 48.0, 864.0, 32.0},    {"L4", 121.0, 24.0, 300.0, 32.0},
    {"A10", 125.0, 24.0, 600.0, 32.0},
};

/// The driver's name of a GPU; asked of the driver itself, so that this compiles without CUDA.
std::string_view driver_name(int index, std::array<char, 128>& buffer) {
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY);
  if (driver == nullptr) return {};
  const auto get_device = reinterpret_cast<int (*)(int*, int)>(dlsym(driver, "cuDeviceGet"));
  const auto get_name =
      reinterpret_cast<int (*)(char*, int, int)>(dlsym(driver, "cuDeviceGetName"));
  int device = 0;
  if (get_device == nullptr || get_name == nullptr || get_device(&device, index) != 0 ||
      get_name(buffer.data(), static_cast<int>(buffer.size()) - 1, device) != 0) {
    return {};
  }
  return buffer.data();
}

bool same_letter(char a, char b) {
  return std::tolower(static_cast<unsigned char>(a)) == std::tolower(static_cast<unsigned char>(b));
}

}  // namespace

std::optional<Gpu> find_gpu(std::string_view name) {
  const auto found = std::ranges::find_if(
      kGpus, [&](const Gpu& gpu) { return std::ranges::equal(gpu.name, name, same_letter); });
  if (found == std::end(kGpus)) return std::nullopt;
  return *found;
}

std::string known_gpus() {
  std::string names;
  for (const Gpu& gpu : kGpus) {
    if (!names.empty()) names += ", ";
    for (const char c : gpu.name) {
      names += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
  }
  return names;
}

std::optional<Gpu> gpu_of(const at::Device& device) {
  if (!device.is_cuda()) return std::nullopt;
  std::array<char, 128> buffer{};
  const std::string_view name = driver_name(device.index(), buffer);
  for (const Gpu& gpu : kGpus) {
    if (name.find(gpu.name) != std::string_view::npos) return gpu;
  }
  return std::nullopt;
}

int64_t peak_memory_bytes(const at::Device& device) {
#ifdef KVCAST_CUDA_KERNELS
  if (device.is_cuda()) {
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
    return stats.allocated_bytes[0].peak;  // 0: all pools together
  }
#endif
  (void)device;
  return 0;
}

}  // namespace kvcast::train
