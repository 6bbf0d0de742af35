#include <fmt/format.h>

#include <cassert>
#include <cstring>

#include "base/atomic_file.h"
#include "base/macros.h"
#include "io/json.h"
#include "io/safetensors.h"

namespace kvcast {

// The data section starts 64-byte aligned (the header is padded with spaces, as the format allows)
// and tensors follow each other without gaps, as the format's reference implementation demands.
Status write_safetensors(const std::filesystem::path& file, std::span<const TensorToWrite> tensors,
                         const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const auto& tensor : tensors) {
    assert(tensor.bytes.size() % dtype_size(tensor.dtype) == 0);
    if (header.contains(tensor.name)) {
      return fail(fmt::format("{}: tensor {}: written twice", file.string(), tensor.name));
    }
    header[tensor.name] = {{"dtype", dtype_name(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + tensor.bytes.size()}}};
    offset += tensor.bytes.size();
  }
  std::string text = header.is_null() ? "{}" : header.dump();
  constexpr size_t kAlignment = 64;
  text.append((kAlignment - (8 + text.size()) % kAlignment) % kAlignment, ' ');

  KVCAST_TRY(auto out, AtomicFile::create(file));
  const uint64_t header_bytes = text.size();
  std::byte length[8];
  std::memcpy(length, &header_bytes, sizeof length);
  KVCAST_CHECK(out->write(length));
  KVCAST_CHECK(out->write(std::as_bytes(std::span(text))));
  for (const auto& tensor : tensors) KVCAST_CHECK(out->write(tensor.bytes));
  return out->commit();
}

}  // namespace kvcast
