#include "train/device_peak.h"

#include <dlfcn.h>

#include <array>
#include <string_view>
#include <utility>

namespace kvcast::train {
namespace {

/// NVIDIA's data sheets, without sparsity. The first name that is contained counts.
constexpr std::pair<std::string_view, double> kPeaks[] = {
    {"H200", 989.4}, {"H100 PCIe", 756.0}, {"H100", 989.4}, {"A100", 312.0},
    {"L40S", 362.0}, {"L4", 121.0},        {"A10", 125.0},
};

/// The driver's name of a GPU; asked of the driver itself, so that this compiles without CUDA.
std::string_view gpu_name(int index, std::array<char, 128>& buffer) {
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

}  // namespace

double device_peak_teraflops(const at::Device& device) {
  if (!device.is_cuda()) return 0.0;
  std::array<char, 128> buffer{};
  const std::string_view name = gpu_name(device.index(), buffer);
  for (const auto& [part, peak] : kPeaks) {
    if (name.find(part) != std::string_view::npos) return peak;
  }
  return 0.0;
}

}  // namespace kvcast::train
