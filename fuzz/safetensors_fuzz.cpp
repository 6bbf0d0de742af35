// Any bytes as a safetensors file: refused with a message, or every view that comes out is inside
// the file, as large as its shape says, and no two overlap. What is packed is refused, or can be
// read to its last element.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "fuzz.h"
#include "io/safetensors.h"
#include "model/weight_reader.h"

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

/// Reads each packed tensor as the matrix that its own shape says it might be.
void check_packed(const std::shared_ptr<const Safetensors>& file) {
  for (const WeightType type : {WeightType::kF32, WeightType::kInt8, WeightType::kInt4Blocks}) {
    const auto reader = WeightReader::open(file, type, 1);
    if (!reader) return check_message(reader.error().message);
    for (const auto& [name, tensor] : file->tensors()) {
      if (!name.ends_with(".packed") || tensor.shape.size() < 3) continue;
      if (tensor.shape[0] > 64 || tensor.shape[1] > 256) continue;  // not in a few kilobytes
      const std::string plain = name.substr(0, name.size() - 6) + "weight";
      // Of a row of an element-wise matrix, or of a block.
      const int64_t elements = tensor.shape.size() == 3 ? kWeightBlock : tensor.shape[3];
      const int64_t n = tensor.shape[0] * 64 - 1, k = tensor.shape[1] * elements - 1;
      for (const int64_t columns : {k, k - 2 * elements}) {  // int8 has two rows beside these
        const auto matrix = reader->matrix(LayoutEntry::whole(plain, n, columns));
        if (!matrix) {
          check_message(matrix.error().message);
        } else {
          FUZZ_CHECK(unpack(*matrix, 1).size() == static_cast<size_t>(n * columns));
        }
      }
    }
  }
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
  auto opened = Safetensors::open(file.path());
  if (opened) {
    check_tensors(**opened);
    check_packed(std::move(*opened));
  } else {
    check_message(opened.error().message);
  }
  return 0;
}
