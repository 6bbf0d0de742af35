#include "model/kv_cache.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/half.h"
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
  const int64_t at = head * cache.head_stride() + row * cache.head_dim() + i;
  return cache.type() == KvType::kF32 ? reinterpret_cast<const float*>(data)[at]
                                      : bf16_to_float(reinterpret_cast<const uint16_t*>(data)[at]);
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
    for (int64_t head = 0; head < 2; ++head) {
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t i = 0; i < 6; ++i) {
          const float exact = key(row, head * 6 + i);
          const float held =
              GetParam() == KvType::kF32 ? exact : bf16_to_float(float_to_bf16(exact));
          ASSERT_EQ(element(cache, cache.keys(0), head, row, i), held);
          ASSERT_EQ(element(cache, cache.values(0), head, row, i), -held);
        }
      }
    }
  }
  static constexpr int64_t kWidth = 12;
};
INSTANTIATE_TEST_SUITE_P(Types, Cache, testing::Values(KvType::kF32, KvType::kBf16),
                         [](const auto& instance) {
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

TEST(CacheSize, Bf16TakesHalfTheMemory) {
  KVCache f32(two_layers(), KvType::kF32);
  KVCache bf16(two_layers(), KvType::kBf16);
  f32.reserve(100);
  bf16.reserve(100);
  EXPECT_EQ(f32.bytes(), 2 * bf16.bytes());
}

}  // namespace
}  // namespace kvcast
