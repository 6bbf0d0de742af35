#include <gtest/gtest.h>

#include <cstring>
#include <new>

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

class OutOfMemory : public testing::EveryIsa {};
KVCAST_FOR_EVERY_ISA(OutOfMemory);

// Nothing is read or written before the memory is there: the pointers lead nowhere.
TEST_P(OutOfMemory, AProductThrowsInItsCallerBeforeItStarts) {
  const int64_t k = 1037;  // no multiple of a group: activations are converted
  const PackedMatrix weight =
      testing::pack_floats(testing::random_floats(3 * k, 1), 3, k, WeightType::kF32);
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
