// Any bytes as a GGUF file: refused with a message, or every tensor that comes out is inside the
// file, as large as its shape says, overlaps no other and can be read to its last element, and
// every value is of its type or refused.
#include <algorithm>
#include <array>
#include <utility>

#include "fuzz.h"
#include "io/code_blocks.h"
#include "io/gguf.h"
#include "support/gguf_bytes.h"

namespace kvcast {
namespace {

/// Keys that the seeds and built files use.
constexpr std::array<std::string_view, 8> kKeys = {
    "k0", "k1", "k2", "k3", "general.alignment", "general.architecture", "split.count", "split.no"};

/// A number such as attacks are made of, or the input's own.
uint64_t number(Input& input) {
  constexpr std::array<uint64_t, 16> kEdges = {0,
                                               1,
                                               2,
                                               8,
                                               32,
                                               256,
                                               257,
                                               1024,
                                               uint64_t{1} << 31,
                                               uint64_t{1} << 32,
                                               uint64_t{1} << 60,
                                               (uint64_t{1} << 63) - 1,
                                               uint64_t{1} << 63,
                                               ~uint64_t{0} - 31,
                                               ~uint64_t{0} / 18 * 32,
                                               ~uint64_t{0}};
  const uint8_t choice = input.byte();
  return choice < 128 ? choice % 64 : kEdges[choice % kEdges.size()];
}

std::string value(Input& input, uint32_t type) {
  if (type == static_cast<uint32_t>(GgufType::kString)) {
    const uint64_t lie = number(input);
    const std::string_view text = input.text(16);
    return input.byte() % 8 == 0 ? gguf_string(text, lie) : gguf_string(text);
  }
  return std::string(input.text(8));
}

std::string pair(Input& input) {
  const std::string_view key = kKeys[input.byte() % kKeys.size()];
  const uint32_t type = input.byte() % 15;
  if (type != static_cast<uint32_t>(GgufType::kArray)) {
    return gguf_pair(key, static_cast<GgufType>(type), value(input, type));
  }
  const uint32_t element = input.byte() % 15;
  const uint64_t count = number(input);
  std::string elements;
  for (int i = input.byte() % 8; i > 0; --i) elements += value(input, element);
  return gguf_array(key, static_cast<GgufType>(element), count, elements);
}

/// A file with a right head, whose entries the input chooses: mutations get past the counts.
std::string build(Input& input) {
  GgufBytes file;
  file.version = 2 + input.byte() % 2;
  for (int i = input.byte() % 6; i > 0; --i) file.pairs.push_back(pair(input));
  uint64_t offset = 0;
  for (int i = input.byte() % 6; i > 0; --i) {
    std::vector<uint64_t> dimensions(input.byte() % 6);
    for (uint64_t& dimension : dimensions) dimension = number(input);
    const uint32_t type = input.byte() % 32;
    const std::string name = "t" + std::to_string(input.byte() % 8);
    if (input.byte() % 4 == 0) offset = number(input);
    file.tensors.push_back(gguf_tensor(name, dimensions, type, offset));
    offset += number(input) / 32 * 32;
  }
  file.data = input.rest();
  return file.str();
}

void check_tensors(const Gguf& file) {
  std::vector<std::pair<const std::byte*, const std::byte*>> ranges;
  for (const auto& [name, tensor] : file.tensors()) {
    const DTypeLayout& layout = dtype_layout(tensor.dtype);
    const int64_t count = tensor.element_count();
    FUZZ_CHECK(count > 0 && count % layout.elements == 0);
    FUZZ_CHECK(std::ssize(tensor.bytes) == count / layout.elements * layout.bytes);
    ranges.emplace_back(tensor.bytes.data(), tensor.bytes.data() + tensor.bytes.size());
    std::vector<float> values(static_cast<size_t>(count));
    if (layout.elements > 1 || file.find_float(name, tensor.shape)) to_float(tensor, values);
    if (has_code_blocks(tensor.dtype)) {
      std::vector<CodeBlock> blocks(static_cast<size_t>(count / CodeBlock::kElements));
      decode_blocks(tensor.dtype, tensor.bytes, blocks);
      const int codes = 1 << code_bits(tensor.dtype);
      for (const CodeBlock& block : blocks) FUZZ_CHECK(std::ranges::max(block.codes) < codes);
    }
  }
  std::ranges::sort(ranges);
  for (size_t i = 1; i < ranges.size(); ++i) FUZZ_CHECK(ranges[i - 1].second <= ranges[i].first);
}

void check_values(const GgufMetadata& values) {
  const auto check = [](const auto& result) {
    if (!result) check_message(result.error().message);
  };
  for (const std::string_view key : kKeys) {
    check(values.text(key));
    check(values.integer(key));
    check(values.number(key));
    check(values.boolean(key));
    check(values.texts(key));
    check(values.integers(key));
    check(values.numbers(key));
  }
}

}  // namespace
}  // namespace kvcast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvcast;
  static const MemoryFile file;
  Input input(data, size);
  // Files begin with 'G'; with another first byte the input says what file to build.
  const bool is_file = size == 0 || data[0] == 'G';
  if (!is_file) input.byte();
  file.set(is_file ? std::string(input.rest()) : build(input));
  const auto opened = Gguf::open(file.path());
  if (!opened) {
    check_message(opened.error().message);
    return 0;
  }
  check_tensors(**opened);
  check_values((*opened)->values());
  return 0;
}
