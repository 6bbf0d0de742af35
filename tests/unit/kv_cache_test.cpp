#include "model/kv_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "kernels/rotation_inl.h"
#include "model/kv_cache_rows.h"
#include "support/cache_rows.h"

namespace kvcast {
namespace {

ModelConfig two_layers() {
  ModelConfig config;
  config.head_dim = 6;
  config.layers = {{4, 2, 8}, {2, 1, 8}};
  return config;
}

/// Element i of row `row` of a head, as f32.
float element(const KVCache& cache, const std::byte* data, int64_t head, int64_t row, int64_t i) {
  data += head * cache.head_stride() * kv_element_bytes(cache.type()) +
          row * kv_row_bytes(cache.type(), cache.head_dim());
  if (cache.type() == KvType::kF32) return reinterpret_cast<const float*>(data)[i];
  if (cache.type() == KvType::kBf16) {
    return bf16_to_float(reinterpret_cast<const uint16_t*>(data)[i]);
  }
  float step = 0.0F;
  std::memcpy(&step, data, sizeof step);
  return step * static_cast<float>(reinterpret_cast<const int8_t*>(data)[kKvStepBytes + i]);
}

/// A row of a head as a cache holds it, in its basis.
std::vector<float> held(KvType type, std::vector<float> row, bool keys) {
  if (type == KvType::kF32) return row;
  if (type == KvType::kBf16) {
    for (float& x : row) x = bf16_to_float(float_to_bf16(x));
    return row;
  }
  if (keys) rotate_head(row.data(), std::ssize(row));
  float largest = 0.0F;
  for (const float x : row) largest = std::max(largest, std::fabs(x));
  for (float& x : row) x = largest / 127.0F * std::nearbyint(x * (127.0F / largest));
  return row;
}

class Cache : public testing::TestWithParam<KvType> {
 protected:
  /// Layer 0 holds keys row * 100 + column + 1/512 and values minus that.
  KVCache filled(int64_t rows) const {
    KVCache cache(two_layers(), GetParam());
    for (int64_t row = 0; row < rows; ++row) {  // one by one: the cache grows on the way
      cache.reserve(row + 1);
      std::vector<float> keys(kWidth), values(kWidth);
      for (int64_t i = 0; i < kWidth; ++i) {
        keys[static_cast<size_t>(i)] = key(row, i);
        values[static_cast<size_t>(i)] = -key(row, i);
      }
      append_rows(cache, 0, keys.data(), values.data(), 1, kWidth);
      append_rows(cache, 1, keys.data(), values.data(), 1, kWidth);
      cache.advance(1);
    }
    return cache;
  }
  static float key(int64_t row, int64_t column) {
    return static_cast<float>(row * 100 + column) + 1.0F / 512;
  }
  void expect_filled(const KVCache& cache, int64_t rows) const {
    ASSERT_EQ(cache.rows(0), rows);
    ASSERT_EQ(cache.next_position(), rows);
    const std::vector<float> values = cached_values(cache, 0);
    ASSERT_EQ(values.size(), static_cast<size_t>(2 * rows * 6));
    for (int64_t head = 0; head < 2; ++head) {
      for (int64_t row = 0; row < rows; ++row) {
        std::vector<float> key_row(6), value_row(6);
        for (int64_t i = 0; i < 6; ++i) {
          key_row[static_cast<size_t>(i)] = key(row, head * 6 + i);
          value_row[static_cast<size_t>(i)] = -key(row, head * 6 + i);
        }
        key_row = held(GetParam(), std::move(key_row), true);
        value_row = held(GetParam(), std::move(value_row), false);
        for (int64_t i = 0; i < 6; ++i) {
          const auto at = static_cast<size_t>(i);
          ASSERT_EQ(element(cache, cache.keys(0), head, row, i), key_row[at]);
          ASSERT_EQ(element(cache, cache.values(0), head, row, i), value_row[at]);
          ASSERT_EQ(values[static_cast<size_t>((head * rows + row) * 6 + i)], value_row[at]);
        }
      }
    }
  }
  static constexpr int64_t kWidth = 12;
};
INSTANTIATE_TEST_SUITE_P(Types, Cache, testing::Values(KvType::kF32, KvType::kBf16, KvType::kInt8),
                         [](const auto& instance) {
                           if (instance.param == KvType::kInt8) return "int8";
                           return instance.param == KvType::kF32 ? "f32" : "bf16";
                         });

TEST_P(Cache, KeepsItsRowsWhileItGrows) { expect_filled(filled(150), 150); }

TEST_P(Cache, ClonesAndCopiesHoldTheSame) {
  const KVCache cache = filled(70);
  expect_filled(cache.clone(), 70);
  KVCache copy(two_layers(), GetParam());
  copy.copy_from(cache, 33);
  expect_filled(copy, 33);
}

TEST_P(Cache, ForgetsFromAPositionOn) {
  KVCache cache = filled(10);
  cache.truncate(4);
  expect_filled(cache, 4);
}

TEST_P(Cache, RowsAsTheyAreHeldGoIntoAnother) {
  const KVCache cache = filled(70);
  KVCache other(two_layers(), GetParam());
  other.reserve(200);
  std::vector<std::byte> rows(static_cast<size_t>(cache.held_bytes(40)));
  std::byte* next = rows.data();
  for (int64_t layer = 0; layer < 2; ++layer) {
    cache.copy_held(layer, 40, next);
    other.append_held(layer, 40, next);
    next += 2 * cache.kv_heads(layer) * 40 * kv_row_bytes(GetParam(), 6);
  }
  EXPECT_EQ(next, rows.data() + rows.size());
  other.advance(40);
  expect_filled(other, 40);
}

TEST(CacheSize, EightBitsTakeAByteAnElementAndAFloatARow) {
  KVCache cache(two_layers(), KvType::kInt8);
  cache.reserve(64);
  EXPECT_EQ(cache.bytes(), 2 * 3 * 64 * (6 + 4));
}

TEST(CacheSize, Bf16TakesHalfTheMemory) {
  KVCache f32(two_layers(), KvType::kF32);
  KVCache bf16(two_layers(), KvType::kBf16);
  f32.reserve(100);
  bf16.reserve(100);
  EXPECT_EQ(f32.bytes(), 2 * bf16.bytes());
}

}  // namespace
}  // namespace kvcast
