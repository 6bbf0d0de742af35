#pragma once

#include <array>
#include <cstdint>

namespace kvcast {

/// 32 neighbours of a row as a file holds them: value[i] = scale * codes[i] + minimum.
struct CodeBlock {
  static constexpr int64_t kElements = 32;
  float scale = 0.0F;
  float minimum = 0.0F;
  std::array<uint8_t, kElements> codes{};
};

}  // namespace kvcast
