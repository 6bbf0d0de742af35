// Memory that runs out. Allocations too large for any machine fail at once without using any.
#include <new>

#include "malformed/malformed.h"
#include "model/kv_cache.h"
#include "support/cache_rows.h"

#ifdef KVCAST_SANITIZED
// Large requests fail under sanitizers as they do without them.
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }
extern "C" const char* __tsan_default_options() { return "allocator_may_return_null=1"; }
#endif

namespace kvcast {
namespace {

TEST(OutOfMemory, ACacheThatCannotGrowKeepsWhatItHolds) {
  ModelConfig shape = tiny_base_shape();
  shape.head_dim = 2;
  shape.layers = {{1, 1, 8}, {2, 2, 8}, {1 << 18, 1 << 18, 8}};
  KVCache cache(shape);
  shape.layers.pop_back();
  KVCache small(shape);  // the same without the layer that cannot grow
  std::vector<float> rows(static_cast<size_t>(2 * 2 * shape.head_dim));
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i);
  for (KVCache* each : {&cache, &small}) {
    each->reserve(2);
    append_rows(*each, 0, rows.data(), rows.data(), 2, 2 * shape.head_dim);
    append_rows(*each, 1, rows.data(), rows.data(), 2, 2 * shape.head_dim);
  }
  EXPECT_THROW(cache.reserve(1 << 26), std::bad_alloc);  // 128 TiB in the last layer
  for (int64_t layer = 0; layer < 2; ++layer) {
    ASSERT_EQ(cache.rows(layer), 2);
    const auto bytes = static_cast<size_t>(2 * shape.head_dim) * sizeof(float);
    for (int64_t head = 0; head < cache.kv_heads(layer); ++head) {
      const auto at = [&](const KVCache& c) {
        return static_cast<size_t>(head * c.head_stride()) * sizeof(float);
      };
      EXPECT_EQ(std::memcmp(cache.keys(layer) + at(cache), small.keys(layer) + at(small), bytes),
                0);
      EXPECT_EQ(
          std::memcmp(cache.values(layer) + at(cache), small.values(layer) + at(small), bytes), 0);
    }
  }
}

}  // namespace
}  // namespace kvcast
