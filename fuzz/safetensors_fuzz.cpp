// Any bytes as a safetensors file: refused with a message, or every view that comes out is inside
// the file, as large as its shape says, and no two overlap.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "fuzz.h"
#include "io/safetensors.h"

namespace kvcast {
namespace {

void check_tensors(const Safetensors& file) {
  std::vector<std::pair<const std::byte*, const std::byte*>> ranges;
  unsigned sum = 0;
  for (const auto& [name, tensor] : file.tensors()) {
    const auto count = static_cast<size_t>(tensor.element_count());
    FUZZ_CHECK(tensor.bytes.size() == count * dtype_size(tensor.dtype));
    for (const std::byte each : tensor.bytes) sum += std::to_integer<unsigned>(each);
    if (!tensor.bytes.empty()) {
      ranges.emplace_back(tensor.bytes.data(), tensor.bytes.data() + tensor.bytes.size());
    }
    FUZZ_CHECK(file.find(name).has_value());
    if (const auto found = file.find_float(name, tensor.shape)) {
      std::vector<float> values(count);
      to_float(*found, values);
    } else {
      check_message(found.error().message);
    }
    const auto wrong = file.find_float(name, std::array<int64_t, 1>{-1});
    FUZZ_CHECK(!wrong);
    check_message(wrong.error().message);
  }
  std::ranges::sort(ranges);
  for (size_t i = 1; i < ranges.size(); ++i) FUZZ_CHECK(ranges[i - 1].second <= ranges[i].first);
  volatile unsigned keep = sum;  // the bytes must really be read
  (void)keep;
}

}  // namespace
}  // namespace kvcast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvcast;
  static const MemoryFile file;
  // The first 8 bytes are a length that mutations rarely keep right: with 0xFF in the highest of
  // them, a length that no file has, it is put right.
  std::string contents(reinterpret_cast<const char*>(data), size);
  if (size > 8 && data[7] == 0xFF) {
    const uint64_t header = std::min<uint64_t>(contents.rfind('}') + 1, size) - 8;
    if (header < size) std::memcpy(contents.data(), &header, sizeof header);
  }
  file.set(contents);
  const auto opened = Safetensors::open(file.path());
  if (opened) {
    check_tensors(**opened);
  } else {
    check_message(opened.error().message);
  }
  return 0;
}
