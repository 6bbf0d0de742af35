#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <thread>
#include <vector>

#include "base/memory_use.h"
#include "kernels/memory.h"
#include "kernels_testing.h"

namespace kvcast {
namespace {

TEST(Scratch, RunningOutThrowsAndLeavesItUsable) {
  Scratch scratch;
  EXPECT_THROW(scratch.reserve(size_t{1} << 61), std::bad_alloc);
  std::memset(scratch.reserve(1000), 1, 1000);
  std::memset(scratch.reserve(3'000'000), 1, 3'000'000);
}

TEST(Scratch, KeepsItsMemoryWhileThatIsEnough) {
  Scratch scratch;
  std::byte* const first = scratch.reserve(5000);
  EXPECT_EQ(scratch.reserve(10), first);
  EXPECT_EQ(scratch.reserve(5000), first);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0U);
}

/// `bytes` of weights, all of them `value`.
std::shared_ptr<std::byte> filled_weights(size_t bytes, int value) {
  std::shared_ptr<std::byte> memory = allocate_weights(bytes);
  EXPECT_NE(memory, nullptr);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.get()) % 64, 0U);
  std::memset(memory.get(), value, bytes);
  return memory;
}

bool holds(const std::shared_ptr<std::byte>& memory, size_t bytes, int value) {
  return std::all_of(memory.get(), memory.get() + bytes,
                     [value](std::byte b) { return b == static_cast<std::byte>(value); });
}

TEST(Weights, AreApartFromEachOtherOnAnyNumberOfThreads) {
  const auto work = [](int thread) {
    std::vector<std::shared_ptr<std::byte>> kept;
    std::vector<size_t> sizes;
    for (int i = 0; i < 60; ++i) {
      sizes.push_back(static_cast<size_t>(1000 + i * 7001 * (thread + 1)));
      kept.push_back(filled_weights(sizes.back(), 16 * thread + i % 16));
      if (i % 3 == 2) kept[static_cast<size_t>(i) - 1].reset();
    }
    for (int i = 0; i < 60; ++i) {
      const auto at = static_cast<size_t>(i);
      if (kept[at] == nullptr) continue;
      EXPECT_TRUE(holds(kept[at], sizes[at], 16 * thread + i % 16)) << i;
    }
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) threads.emplace_back(work, t);
  for (std::thread& thread : threads) thread.join();
}

TEST(Weights, MoreThanTheUsualPieceOfAddressSpace) {
  const std::shared_ptr<std::byte> large = allocate_weights((size_t{1} << 30) + 100'000);
  ASSERT_NE(large, nullptr);
  large.get()[(size_t{1} << 30) + 99'999] = std::byte{1};
  EXPECT_EQ(allocate_weights(size_t{1} << 61), nullptr);
}

TEST(Weights, TheirMemoryGoesBackWhileOthersStay) {
  constexpr size_t kBytes = size_t{64} << 20;
  const auto before = filled_weights(100'000, 1);
  auto freed = filled_weights(kBytes, 2);
  const auto after = filled_weights(100'000, 3);
  reset_peak_rss();
  const int64_t with = peak_rss_bytes();
  freed.reset();
  reset_peak_rss();
  EXPECT_LT(peak_rss_bytes(), with - static_cast<int64_t>(kBytes) * 9 / 10);
  EXPECT_TRUE(holds(before, 100'000, 1));
  EXPECT_TRUE(holds(after, 100'000, 3));
}

class OutOfMemory : public kernel_testing::EveryIsa {};
KVCAST_FOR_EVERY_ISA(OutOfMemory);

// Nothing is read or written before the memory is there: the pointers lead nowhere.
TEST_P(OutOfMemory, AProductThrowsInItsCallerBeforeItStarts) {
  const int64_t k = 1037;  // no multiple of a group: activations are converted
  const PackedMatrix weight =
      kernel_testing::pack_floats(kernel_testing::random_floats(3 * k, 1), 3, k, WeightType::kF32);
  float nowhere = 0.0F;
  const MatmulArgs args{.a = &nowhere,
                        .a_stride = k,
                        .rows = int64_t{1} << 48,
                        .weight = &weight,
                        .out = &nowhere,
                        .out_stride = 3};
  EXPECT_THROW(matmul(args, 2), std::bad_alloc);
}

}  // namespace
}  // namespace kvcast
