// Builds GGUF files in memory, right ones and, since every number can be given, wrong ones.
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/gguf_metadata.h"

namespace kvcast {

template <typename T>
std::string little_endian(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

/// A string as the format stores it; `length` for one that lies.
inline std::string gguf_string(std::string_view text, std::optional<uint64_t> length = {}) {
  return little_endian<uint64_t>(length.value_or(text.size())) + std::string(text);
}

inline std::string gguf_pair(std::string_view key, GgufType type, std::string_view value) {
  return gguf_string(key) + little_endian(type) + std::string(value);
}

inline std::string gguf_array(std::string_view key, GgufType type, uint64_t count,
                              std::string_view elements) {
  return gguf_pair(key, GgufType::kArray,
                   little_endian(type) + little_endian(count) + std::string(elements));
}

/// A tensor's entry: dimensions in the file's order, the row's length first.
inline std::string gguf_tensor(std::string_view name, const std::vector<uint64_t>& dimensions,
                               uint32_t type, uint64_t offset) {
  std::string entry =
      gguf_string(name) + little_endian<uint32_t>(static_cast<uint32_t>(dimensions.size()));
  for (const uint64_t dimension : dimensions) entry += little_endian(dimension);
  return entry + little_endian(type) + little_endian(offset);
}

struct GgufBytes {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::vector<std::string> pairs, tensors;
  std::optional<uint64_t> pair_count, tensor_count;  ///< what the file says, if not the truth
  uint64_t alignment = 32;
  std::string data;

  [[nodiscard]] std::string str() const {
    std::string bytes = magic + little_endian(version) +
                        little_endian<uint64_t>(tensor_count.value_or(tensors.size())) +
                        little_endian<uint64_t>(pair_count.value_or(pairs.size()));
    for (const std::string& pair : pairs) bytes += pair;
    for (const std::string& tensor : tensors) bytes += tensor;
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
    return bytes + data;
  }
};

}  // namespace kvcast
