#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <deque>

#include "base/half.h"
#include "kernels/kernel_table.h"
#include "kernels/kernels.h"
#include "kernels/reference.h"
#include "kernels_testing.h"

namespace kvcast {
namespace {

using kernel_testing::random_floats;

constexpr KvType kKvTypes[] = {KvType::kF32, KvType::kBf16, KvType::kInt8};

/// Rows of random floats, as a cache of that type holds them. Every row has a size of its own.
std::vector<std::byte> random_cache(int64_t rows, int64_t head_dim, uint32_t seed, KvType type) {
  auto floats = random_floats(rows * head_dim, seed);
  for (size_t i = 0; i < floats.size(); ++i) {
    floats[i] *= 0.5F + 0.125F * static_cast<float>(i / static_cast<size_t>(head_dim) % 8);
  }
  std::vector<std::byte> bytes(static_cast<size_t>(rows * kv_row_bytes(type, head_dim)));
  HeadNormRopeArgs args{.x = floats.data(),
                        .x_stride = head_dim,
                        .rows = rows,
                        .heads = 1,
                        .head_dim = head_dim,
                        .out_row_stride = kv_row_elements(type, head_dim)};
  if (type == KvType::kF32) args.out = reinterpret_cast<float*>(bytes.data());
  if (type == KvType::kBf16) args.out_bf16 = reinterpret_cast<uint16_t*>(bytes.data());
  if (type == KvType::kInt8) args.out_int8 = reinterpret_cast<int8_t*>(bytes.data());
  reference::head_norm_rope(args);
  return bytes;
}

/// One sequence with its cache: [kv_heads][capacity][head_dim].
struct Sequence {
  Sequence(const AttentionShape& shape, int64_t rows, int64_t first_position, uint32_t seed,
           float scale = 1.0F)
      : width(shape.query_heads * shape.head_dim),
        q(random_floats(rows * (width + 3), seed, scale)),
        keys(random_cache(shape.kv_heads * (first_position + rows + 2), shape.head_dim, seed + 1,
                          shape.kv_type)),
        values(random_cache(shape.kv_heads * (first_position + rows + 2), shape.head_dim, seed + 2,
                            shape.kv_type)),
        out(static_cast<size_t>(rows * (width + 5)), -7.0F),
        probabilities(static_cast<size_t>(first_position + rows)),
        args{.q = q.data(),
             .q_stride = width + 3,
             .rows = rows,
             .first_position = first_position,
             .keys = keys.data(),
             .values = values.data(),
             .head_stride =
                 (first_position + rows + 2) * kv_row_elements(shape.kv_type, shape.head_dim),
             .out = out.data(),
             .out_stride = width + 5} {}
  int64_t width;
  std::vector<float> q;
  std::vector<std::byte> keys, values;
  std::vector<float> out, probabilities;
  AttentionArgs args;
};

/// Probabilities carry the error of exp and of scores of size |q||k|/sqrt(d) in f32; mixed values
/// are averages of unit normals. Where queries and probabilities are rounded to bf16, each is off
/// by up to 2^-9 of itself; in 16 bits by 2^-16 of the largest.
double tolerance(const AttentionShape& shape) {
  const AttentionKernels& in_use = kernels().attention(shape.kv_type);
  return in_use.bf16_operands ? 1.5e-2 : in_use.int16_operands ? 5e-4 : 2e-5;
}

void expect_like_reference(const AttentionShape& shape,
                           std::vector<std::pair<int64_t, int64_t>> sizes, int threads) {
  std::deque<Sequence> fast, plain;
  std::vector<AttentionArgs> fast_args, plain_args;
  uint32_t seed = 40;
  for (const auto& [rows, first_position] : sizes) {
    for (auto* side : {&fast, &plain}) {
      Sequence& s = side->emplace_back(shape, rows, first_position, seed);
      s.args.last_row_probabilities = s.probabilities.data();
      (side == &fast ? fast_args : plain_args).push_back(s.args);
    }
    seed += 10;
  }
  attention(fast_args, shape, threads);
  reference::attention(plain_args, shape);
  for (size_t s = 0; s < fast.size(); ++s) {
    SCOPED_TRACE("rows " + std::to_string(sizes[s].first) + " after " +
                 std::to_string(sizes[s].second) + ", head_dim " + std::to_string(shape.head_dim) +
                 ", heads " + std::to_string(shape.query_heads) + "/" +
                 std::to_string(shape.kv_heads) + ", threads " + std::to_string(threads));
    for (size_t i = 0; i < fast[s].out.size(); ++i) {
      ASSERT_NEAR(fast[s].out[i], plain[s].out[i], tolerance(shape)) << i;
    }
    for (size_t i = 0; i < fast[s].probabilities.size(); ++i) {
      ASSERT_NEAR(fast[s].probabilities[i], plain[s].probabilities[i], tolerance(shape)) << i;
    }
  }
}

class Attention : public kernel_testing::EveryIsa {};
KVCAST_FOR_EVERY_ISA(Attention);

TEST_P(Attention, MatchesReferenceOnEveryHeadLayout) {
  for (const int64_t head_dim : {8, 16, 24, 64, 80, 128}) {
    for (const auto& [heads, kv_heads] :
         {std::pair<int64_t, int64_t>{1, 1}, {4, 2}, {3, 1}, {8, 2}}) {
      for (const KvType type : kKvTypes) {
        expect_like_reference({heads, kv_heads, head_dim, type}, {{33, 0}}, 2);
        expect_like_reference({heads, kv_heads, head_dim, type}, {{1, 70}}, 2);
      }
    }
  }
}

TEST_P(Attention, MatchesReferenceOnOddLengths) {
  for (const int64_t rows : {1, 2, 15, 17, 63, 64, 65, 130}) {
    for (const int64_t first_position : {0, 1, 63, 64, 100, 511, 513}) {
      for (const KvType type : kKvTypes) {
        expect_like_reference({4, 2, 16, type}, {{rows, first_position}}, 3);
      }
    }
  }
}

TEST_P(Attention, MatchesReferenceOnABatchOfDifferentLengths) {
  for (const int threads : {1, 2, 3, 5}) {
    for (const KvType type : kKvTypes) {
      expect_like_reference({4, 2, 64, type}, {{1, 1300}, {40, 0}, {1, 0}, {3, 500}, {90, 17}},
                            threads);
    }
  }
}

TEST_P(Attention, ThreadsAndSplittingOverKeysDoNotChangeABit) {
  for (const KvType type : kKvTypes) {
    const AttentionShape shape{6, 2, 64, type};
    for (const auto& [rows, first_position] :
         {std::pair<int64_t, int64_t>{1, 2000}, {9, 1025}, {200, 3}}) {
      Sequence one(shape, rows, first_position, 50);
      attention({&one.args, 1}, shape, 1);
      for (const int threads : {2, 3, 5, 16}) {
        Sequence many(shape, rows, first_position, 50);
        attention({&many.args, 1}, shape, threads);
        ASSERT_EQ(std::memcmp(one.out.data(), many.out.data(), one.out.size() * 4), 0) << threads;
      }
    }
  }
}

TEST_P(Attention, RowsOfBf16AreTheRoundedOnes) {
  ASSERT_EQ(kernels().bf16.takes_bf16_rows(), GetParam() == Isa::kAvx512Bf16);
  if (!kernels().bf16.takes_bf16_rows()) return;
  for (const KvType type : kKvTypes) {
    for (const int64_t head_dim : {24, 64}) {
      const AttentionShape shape{4, 2, head_dim, type};
      for (const auto& [rows, first_position] :  // the first is split over keys
           {std::pair<int64_t, int64_t>{1, 2000}, {130, 3}}) {
        Sequence s(shape, rows, first_position, 50);
        attention({&s.args, 1}, shape, 3);
        std::vector<uint16_t> rounded(s.out.size(), 7);
        s.args.out = nullptr;
        s.args.out_bf16 = rounded.data();
        attention({&s.args, 1}, shape, 3);
        for (size_t i = 0; i < rounded.size(); ++i) {
          const auto column = static_cast<int64_t>(i) % s.args.out_stride;
          ASSERT_EQ(rounded[i], column < s.width ? float_to_bf16(s.out[i]) : 7) << i;
        }
      }
    }
  }
}

TEST_P(Attention, ARowDoesNotDependOnTheRowsBesideIt) {
  constexpr int64_t kRows = 600;
  for (const KvType type : kKvTypes) {
    const AttentionShape shape{4, 2, 64, type};
    Sequence whole(shape, kRows, 0, 60);
    attention({&whole.args, 1}, shape, 2);
    for (const int64_t step : {1, 37, 64, 512}) {
      Sequence chunks(shape, kRows, 0, 60);
      for (int64_t r = 0; r < kRows; r += step) {
        AttentionArgs part = chunks.args;
        part.q += r * part.q_stride;
        part.out += r * part.out_stride;
        part.first_position = r;
        part.rows = std::min(step, kRows - r);
        attention({&part, 1}, shape, 2);
      }
      ASSERT_EQ(std::memcmp(whole.out.data(), chunks.out.data(), whole.out.size() * 4), 0) << step;
    }
  }
}

TEST_P(Attention, LargeScoresNeitherOverflowNorVanish) {
  const AttentionShape shape{2, 1, 64};
  Sequence s(shape, 70, 600, 70, 300.0F);  // scores in the hundreds
  Sequence plain(shape, 70, 600, 70, 300.0F);
  attention({&s.args, 1}, shape, 2);
  reference::attention({&plain.args, 1}, shape);
  for (size_t i = 0; i < s.out.size(); ++i) {
    // An error of an ulp in a score of 1000 is 6e-5 of a probability.
    ASSERT_NEAR(s.out[i], plain.out[i], 2e-3) << i;
  }
}

TEST_P(Attention, AValueThatIsNotANumberIsSeenByThoseThatSeeItsRow) {
  for (const KvType type : kKvTypes) {
    const AttentionShape shape{2, 1, 64, type};
    Sequence s(shape, 140, 0, 75);
    Sequence plain(shape, 140, 0, 75);
    const float nan = std::nanf("");
    std::byte* const row = s.values.data() + 100 * kv_row_bytes(type, 64);
    if (type == KvType::kBf16) {
      const uint16_t half = float_to_bf16(nan);
      std::memcpy(row, &half, sizeof half);
    } else {
      std::memcpy(row, &nan, sizeof nan);  // an element, or the row's step
    }
    attention({&s.args, 1}, shape, 2);
    attention({&plain.args, 1}, shape, 2);
    for (int64_t r = 0; r < 140; ++r) {
      const auto first = static_cast<size_t>(r * s.args.out_stride);
      if (r >= 100) {
        ASSERT_TRUE(std::isnan(s.out[first])) << r;
      } else if (r < 64) {  // of an earlier block
        ASSERT_EQ(s.out[first], plain.out[first]) << r;
      }
    }
  }
}

TEST_P(Attention, NothingToDoIsDoneQuietly) {
  attention({}, {4, 2, 64}, 2);
  const AttentionShape shape{4, 2, 64};
  Sequence empty(shape, 0, 5, 80);
  attention({&empty.args, 1}, shape, 2);
}

}  // namespace
}  // namespace kvcast
