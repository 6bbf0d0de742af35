#include <fmt/format.h>

#include <cassert>
#include <cstring>
#include <set>

#include "base/atomic_file.h"
#include "base/macros.h"
#include "io/json.h"
#include "io/safetensors.h"

namespace kvcast {

namespace {

std::string header_text(std::span<const TensorToWrite> tensors,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const auto& tensor : tensors) {
    assert(tensor.bytes.size() % dtype_size(tensor.dtype) == 0);
    header[tensor.name] = {{"dtype", dtype_name(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + tensor.bytes.size()}}};
    offset += tensor.bytes.size();
  }
  std::string text = header.dump();
  constexpr size_t kAlignment = 64;
  text.append((kAlignment - (8 + text.size()) % kAlignment) % kAlignment, ' ');
  return text;
}

uint64_t file_bytes(std::span<const TensorToWrite> tensors,
                    const std::map<std::string, std::string>& metadata) {
  uint64_t bytes = 8 + header_text(tensors, metadata).size();
  for (const auto& tensor : tensors) bytes += tensor.bytes.size();
  return bytes;
}

}  // namespace

// The data section starts 64-byte aligned (the header is padded with spaces, as the format allows)
// and tensors follow each other without gaps, as the format's reference implementation demands.
Status write_safetensors(const std::filesystem::path& file, std::span<const TensorToWrite> tensors,
                         const std::map<std::string, std::string>& metadata) {
  std::set<std::string_view> names;
  for (const auto& tensor : tensors) {
    if (!names.insert(tensor.name).second) {
      return fail(fmt::format("{}: tensor {}: written twice", file.string(), tensor.name));
    }
  }
  const std::string text = header_text(tensors, metadata);
  KVCAST_TRY(auto out, AtomicFile::create(file));
  const uint64_t header_bytes = text.size();
  std::byte length[8];
  std::memcpy(length, &header_bytes, sizeof length);
  KVCAST_CHECK(out->write(length));
  KVCAST_CHECK(out->write(std::as_bytes(std::span(text))));
  for (const auto& tensor : tensors) KVCAST_CHECK(out->write(tensor.bytes));
  return out->commit();
}

Status write_checkpoint(const std::filesystem::path& directory,
                        std::span<const TensorToWrite> tensors,
                        const std::map<std::string, std::string>& metadata, int64_t shard_bytes) {
  const auto limit = static_cast<uint64_t>(shard_bytes);
  if (shard_bytes == 0 || file_bytes(tensors, metadata) <= limit) {
    return write_safetensors(directory / "model.safetensors", tensors, metadata);
  }
  std::vector<std::span<const TensorToWrite>> shards;
  for (size_t begin = 0, end = 0; begin < tensors.size(); begin = end) {
    while (end < tensors.size() &&
           file_bytes(tensors.subspan(begin, end + 1 - begin), metadata) <= limit) {
      ++end;
    }
    if (end == begin) {
      return fail(fmt::format("{}: tensor {}: takes {} bytes, more than a shard's {}",
                              directory.string(), tensors[begin].name,
                              file_bytes(tensors.subspan(begin, 1), metadata), shard_bytes));
    }
    shards.push_back(tensors.subspan(begin, end - begin));
  }
  uint64_t total = 0;
  for (const auto& tensor : tensors) total += tensor.bytes.size();
  nlohmann::ordered_json index = {{"metadata", {{"total_size", total}}},
                                  {"weight_map", nlohmann::ordered_json::object()}};
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    KVCAST_CHECK(write_safetensors(directory / name, shards[i], metadata));
    for (const auto& tensor : shards[i]) index["weight_map"][tensor.name] = name;
  }
  return write_file_atomically(directory / "model.safetensors.index.json", index.dump(1) + "\n");
}

}  // namespace kvcast
