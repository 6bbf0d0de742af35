// Any bytes as a safetensors file: refused with a message, or every view that comes out is inside
// the file, as large as its shape says, and no two overlap. Matrices, packed or not, are refused,
// or can be read to their last element in every type. The same of an index and its shards.
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
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

constexpr std::array<std::optional<WeightType>, 6> kReadAs = {
    std::nullopt,      WeightType::kF32,        WeightType::kBf16,
    WeightType::kInt8, WeightType::kInt4Blocks, WeightType::kInt8Blocks};

/// Refused by all that read it, with a line, or read in whole.
void check_matrix(const WeightReader& reader, const LayoutEntry& entry) {
  const auto size = static_cast<size_t>(entry.rows * entry.columns);
  const auto matrix = reader.matrix(entry);
  const auto values = reader.floats(entry);
  FUZZ_CHECK(matrix.has_value() == reader.check(entry).has_value());
  FUZZ_CHECK(matrix.has_value() == values.has_value());
  if (!matrix) return check_message(matrix.error().message);
  FUZZ_CHECK(unpack(*matrix, 1).size() == size);
  FUZZ_CHECK(values->size() == size);
  FUZZ_CHECK(reader.type_of(entry) == matrix->type());
}

/// A packed tensor as the matrix that its own shape says it might be.
void check_packed(const WeightReader& reader, const std::string& name, const TensorView& tensor) {
  if (!name.ends_with(".packed") || tensor.shape.size() < 3 || tensor.bytes.empty()) return;
  if (tensor.shape[0] > 64 || tensor.shape[1] > 256) return;  // not in a few kilobytes
  const std::string plain = name.substr(0, name.size() - 6) + "weight";
  // Of a row of an element-wise matrix, or of a block.
  const int64_t elements = tensor.shape.size() == 3 ? kWeightBlock : tensor.shape[3];
  const int64_t n = tensor.shape[0] * 64 - 1, k = tensor.shape[1] * elements - 1;
  for (const int64_t columns : {k, k - 2 * elements}) {  // int8 has two rows beside these
    if (columns > 0) check_matrix(reader, LayoutEntry::whole(plain, n, columns));
  }
}

/// A tensor as it is, which no shape of a model would refuse.
void check_plain(const WeightReader& reader, const std::string& name, const TensorView& tensor) {
  const size_t axes = tensor.shape.size();
  if (axes < 1 || axes > 2 || tensor.bytes.empty() || tensor.element_count() > 4096) return;
  const LayoutEntry entry =
      LayoutEntry::whole(name, tensor.shape[0], axes == 2 ? tensor.shape[1] : 0);
  if (entry.is_matrix()) {
    if (!reader.is_packed()) check_matrix(reader, entry);
    return;
  }
  const auto values = reader.floats(entry);
  FUZZ_CHECK(values.has_value() == reader.check(entry).has_value());
  if (!values) return check_message(values.error().message);
  FUZZ_CHECK(std::ssize(*values) == entry.rows);
}

void check_weights(const std::shared_ptr<const Safetensors>& file) {
  for (const std::optional<WeightType> type : kReadAs) {
    const auto reader = WeightReader::open(file, type, 1);
    if (!reader) return check_message(reader.error().message);
    for (const auto& [name, tensor] : file->tensors()) {
      check_packed(*reader, name, tensor);
      check_plain(*reader, name, tensor);
    }
  }
}

void check_opened(Result<std::unique_ptr<Safetensors>> opened) {
  if (!opened) return check_message(opened.error().message);
  check_tensors(**opened);
  check_weights(std::move(*opened));
}

/// The first 8 bytes are a length that mutations rarely keep right: with 0xFF in the highest of
/// them, a length that no file has, it is put right.
std::string repaired(std::string_view data) {
  std::string contents(data);
  if (contents.size() > 8 && contents[7] == '\xFF') {
    const uint64_t header = std::min<uint64_t>(contents.rfind('}') + 1, contents.size()) - 8;
    if (header < contents.size()) std::memcpy(contents.data(), &header, sizeof header);
  }
  return contents;
}

/// An index and the shards "a" and "b", one after the other with 0xFE between them.
void fuzz_checkpoint(std::string_view data) {
  static const ScratchDirectory folder;
  for (const char* name : {"model.safetensors.index.json", "a", "b"}) {
    const std::string_view piece = data.substr(0, data.find('\xFE'));
    data.remove_prefix(std::min(piece.size() + 1, data.size()));
    folder.write(name, repaired(piece));
  }
  check_opened(Safetensors::open_checkpoint(folder.path()));
}

}  // namespace
}  // namespace kvcast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvcast;
  static const MemoryFile file;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (bytes.starts_with('\xFE')) {  // of a length that no file has
    fuzz_checkpoint(bytes.substr(1));
    return 0;
  }
  file.set(repaired(bytes));
  check_opened(Safetensors::open(file.path()));
  return 0;
}
