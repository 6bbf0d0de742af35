// The tile registers of AMX: how they are shared out, and the products that the kernels use.
// Included after amx_row_inl.h by amx_inl.h.
#pragma once

#include "kernels/amx_row_inl.h"

namespace kvcast {
namespace {

constexpr int64_t kLine = 64;

/// The operand of ldtilecfg.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes_per_row[16] = {};
  uint8_t rows[16] = {};
};

void load_config(const TileConfig& config) {
  __asm__ volatile("" ::"r"(&config) : "memory");  // GCC 12's intrinsic claims to read 8 bytes only
  _tile_loadconfig(&config);
}

/// Tiles 0..3: sums, two by two; 4, 5: A; 6, 7: B. `upper` rows in 0, 1, 4; `lower` in 2, 3, 5.
void configure_square(int64_t upper, int64_t lower) {
  TileConfig config;
  for (int i = 0; i < 8; ++i) config.bytes_per_row[i] = kLine;
  for (const int i : {0, 1, 4}) config.rows[i] = static_cast<uint8_t>(upper);
  for (const int i : {2, 3, 5}) config.rows[i] = static_cast<uint8_t>(lower);
  for (const int i : {6, 7}) config.rows[i] = kTileSide;
  load_config(config);
}

/// Tiles 0..3: sums side by side; 4: A; 5..7: B.
void configure_wide(int64_t rows) {
  TileConfig config;
  for (int i = 0; i < 8; ++i) config.bytes_per_row[i] = kLine;
  for (const int i : {0, 1, 2, 3, 4}) config.rows[i] = static_cast<uint8_t>(rows);
  for (const int i : {5, 6, 7}) config.rows[i] = kTileSide;
  load_config(config);
}

/// GCC's intrinsics take nothing but literals, hence a name for every combination.
struct TilesBf16 {
  static constexpr bool kInt8 = false;
  static KVCAST_INLINE void multiply_046() { _tile_dpbf16ps(0, 4, 6); }
  static KVCAST_INLINE void multiply_147() { _tile_dpbf16ps(1, 4, 7); }
  static KVCAST_INLINE void multiply_256() { _tile_dpbf16ps(2, 5, 6); }
  static KVCAST_INLINE void multiply_357() { _tile_dpbf16ps(3, 5, 7); }
  static KVCAST_INLINE void multiply_045() { _tile_dpbf16ps(0, 4, 5); }
  static KVCAST_INLINE void multiply_146() { _tile_dpbf16ps(1, 4, 6); }
  static KVCAST_INLINE void multiply_247() { _tile_dpbf16ps(2, 4, 7); }
  static KVCAST_INLINE void multiply_345() { _tile_dpbf16ps(3, 4, 5); }
};
struct TilesInt8 {
  static constexpr bool kInt8 = true;
  static KVCAST_INLINE void multiply_046() { _tile_dpbssd(0, 4, 6); }
  static KVCAST_INLINE void multiply_147() { _tile_dpbssd(1, 4, 7); }
  static KVCAST_INLINE void multiply_256() { _tile_dpbssd(2, 5, 6); }
  static KVCAST_INLINE void multiply_357() { _tile_dpbssd(3, 5, 7); }
  static KVCAST_INLINE void multiply_045() { _tile_dpbssd(0, 4, 5); }
  static KVCAST_INLINE void multiply_146() { _tile_dpbssd(1, 4, 6); }
  static KVCAST_INLINE void multiply_247() { _tile_dpbssd(2, 4, 7); }
  static KVCAST_INLINE void multiply_345() { _tile_dpbssd(3, 4, 5); }
};

}  // namespace
}  // namespace kvcast
