#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>

#include "base/half.h"
#include "kernels/kernel_table.h"
#include "kernels/kernels.h"
#include "kernels/reference.h"
#include "kernels/rotation_inl.h"
#include "kernels_testing.h"

namespace kvcast {
namespace {

using kernel_testing::random_floats;

/// Relative to values of size one: a few roundings of f32.
void expect_close(const std::vector<float>& a, const std::vector<float>& b, double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_NEAR(a[i], b[i], tolerance * (1.0 + std::fabs(b[i]))) << i;
  }
}

class Elementwise : public kernel_testing::EveryIsa {};
KVCAST_FOR_EVERY_ISA(Elementwise);

TEST_P(Elementwise, RmsNormMatchesReference) {
  for (const int64_t dim : {1, 7, 8, 16, 33, 64, 100, 1280, 2049}) {
    for (const int64_t rows : {1, 3, 70}) {
      for (const int threads : {1, 3}) {
        const auto x = random_floats(rows * (dim + 2), 1, 3.0F);
        const auto weight = random_floats(dim, 2);
        std::vector<float> fast(static_cast<size_t>(rows * (dim + 1))), plain(fast);
        RmsNormArgs args{.x = x.data(),
                         .x_stride = dim + 2,
                         .weight = weight.data(),
                         .out = fast.data(),
                         .out_stride = dim + 1,
                         .rows = rows,
                         .dim = dim};
        rms_norm(args, threads);
        args.out = plain.data();
        reference::rms_norm(args);
        expect_close(fast, plain, 1e-6);
      }
    }
  }
}

/// What products take as bf16 is what they would have rounded f32 to.
TEST_P(Elementwise, RowsOfBf16AreTheRoundedOnes) {
  ASSERT_EQ(kernels().bf16.takes_bf16_rows(), GetParam() == Isa::kAvx512Bf16);
  if (!kernels().bf16.takes_bf16_rows()) return;
  for (const int64_t dim : {1, 16, 33, 1280}) {
    constexpr int64_t kRows = 70;
    const auto x = random_floats(kRows * 2 * dim, 1, 3.0F);
    const auto weight = random_floats(dim, 2);
    std::vector<float> out(static_cast<size_t>(kRows * dim));
    std::vector<uint16_t> out_bf16(static_cast<size_t>(kRows * (dim + 1)), 7);
    const auto expect_rounded = [&] {
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t i = 0; i <= dim; ++i) {
          ASSERT_EQ(out_bf16[r * (dim + 1) + i], i < dim ? float_to_bf16(out[r * dim + i]) : 7);
        }
      }
    };
    RmsNormArgs norm{.x = x.data(),
                     .x_stride = 2 * dim,
                     .weight = weight.data(),
                     .out = out.data(),
                     .out_stride = dim,
                     .rows = kRows,
                     .dim = dim};
    rms_norm(norm, 3);
    norm.out = nullptr;
    norm.out_bf16 = out_bf16.data();
    norm.out_stride = dim + 1;
    rms_norm(norm, 3);
    expect_rounded();

    SiluMulArgs silu{.gate_up = x.data(),
                     .gate_up_stride = 2 * dim,
                     .out = out.data(),
                     .out_stride = dim,
                     .rows = kRows,
                     .ffn_dim = dim};
    silu_mul(silu, 3);
    silu.out = nullptr;
    silu.out_bf16 = out_bf16.data();
    silu.out_stride = dim + 1;
    silu_mul(silu, 3);
    expect_rounded();
  }
}

TEST_P(Elementwise, RmsNormWorksInPlace) {
  auto x = random_floats(5 * 100, 3);
  auto plain = x;
  const auto weight = random_floats(100, 4);
  RmsNormArgs args{.x = x.data(),
                   .x_stride = 100,
                   .weight = weight.data(),
                   .out = x.data(),
                   .out_stride = 100,
                   .rows = 5,
                   .dim = 100};
  rms_norm(args, 2);
  args.x = args.out = plain.data();
  reference::rms_norm(args);
  expect_close(x, plain, 1e-6);
}

TEST_P(Elementwise, HeadNormRopeMatchesReference) {
  for (const int64_t head_dim : {2, 8, 16, 24, 64, 80, 128}) {
    for (const bool norm : {false, true}) {
      for (const int64_t rows : {1, 9, 130}) {
        constexpr int64_t kHeads = 5;
        auto fast = random_floats(rows * (kHeads * head_dim + 3), 5);
        auto plain = fast;
        const auto weight = random_floats(head_dim, 6);
        const auto cosines = random_floats(rows * head_dim / 2, 7);
        const auto sines = random_floats(rows * head_dim / 2, 8);
        HeadNormRopeArgs args{.x = fast.data(),
                              .x_stride = kHeads * head_dim + 3,
                              .rows = rows,
                              .heads = kHeads,
                              .head_dim = head_dim,
                              .norm_weight = norm ? weight.data() : nullptr,
                              .rope_cos = cosines.data(),
                              .rope_sin = sines.data(),
                              .out = fast.data(),
                              .out_row_stride = kHeads * head_dim + 3,
                              .out_head_stride = head_dim};
        head_norm_rope(args, 3);
        args.x = args.out = plain.data();
        reference::head_norm_rope(args);
        expect_close(fast, plain, 3e-6);
      }
    }
  }
}

TEST_P(Elementwise, HeadsGoWhereACacheHoldsThem) {
  for (const int64_t head_dim : {2, 10, 24, 64, 80}) {
    for (const bool rotate : {false, true}) {
      for (const bool bf16 : {false, true}) {
        constexpr int64_t kHeads = 3, kCapacity = 80;
        constexpr int64_t kRows[] = {70, 1, 9};  // three sequences
        const auto x = random_floats(80 * kHeads * head_dim, 11);
        const auto weight = random_floats(head_dim, 12);
        const auto angles = random_floats(80 * head_dim / 2, 13);
        const auto size = static_cast<size_t>(3 * kHeads * kCapacity * head_dim);
        std::vector<float> fast(size, 7.0F), plain(size, 7.0F);
        std::vector<uint16_t> fast_bf16(size, 7), plain_bf16(size, 7);
        std::vector<HeadNormRopeArgs> fast_parts, plain_parts;
        int64_t first = 0;
        for (int64_t s = 0; s < 3; ++s) {
          const int64_t at = s * kHeads * kCapacity * head_dim + 2 * head_dim;  // from row 2 on
          HeadNormRopeArgs args{.x = x.data() + first * kHeads * head_dim,
                                .x_stride = kHeads * head_dim,
                                .rows = kRows[s],
                                .heads = kHeads,
                                .head_dim = head_dim,
                                .norm_weight = rotate ? weight.data() : nullptr,
                                .rope_cos = rotate ? angles.data() : nullptr,
                                .rope_sin = rotate ? angles.data() : nullptr,
                                .out = bf16 ? nullptr : fast.data() + at,
                                .out_bf16 = bf16 ? fast_bf16.data() + at : nullptr,
                                .out_row_stride = head_dim,
                                .out_head_stride = kCapacity * head_dim};
          fast_parts.push_back(args);
          args.out = bf16 ? nullptr : plain.data() + at;
          args.out_bf16 = bf16 ? plain_bf16.data() + at : nullptr;
          plain_parts.push_back(args);
          first += kRows[s];
        }
        head_norm_rope(fast_parts, 3);
        for (const HeadNormRopeArgs& args : plain_parts) reference::head_norm_rope(args);
        expect_close(fast, plain, 3e-6);
        for (size_t i = 0; i < size; ++i) {  // f32 may differ in its last bits before rounding
          const float a = bf16_to_float(fast_bf16[i]), b = bf16_to_float(plain_bf16[i]);
          ASSERT_NEAR(a, b, std::fabs(b) / 128) << i;
          if (!rotate) {
            ASSERT_EQ(fast_bf16[i], plain_bf16[i]) << i;
          }
        }
      }
    }
  }
}

TEST_P(Elementwise, HeadsOf8BitsAreTheRoundedOnesWithTheirStep) {
  for (const int64_t head_dim : {2, 6, 24, 64, 80, 128, 512}) {
    for (const bool rotate : {false, true}) {
      constexpr int64_t kRows = 21, kHeads = 2;
      auto x = random_floats(kRows * kHeads * head_dim, 15);
      for (int64_t i = 0; i < head_dim; ++i) x[static_cast<size_t>(i)] = 0.0F;  // a row of zeros
      const auto weight = random_floats(head_dim, 12);
      const auto angles = random_floats(kRows * head_dim / 2, 13);
      const int64_t row_bytes = kv_row_bytes(KvType::kInt8, head_dim);
      std::vector<int8_t> fast(static_cast<size_t>(kRows * kHeads * row_bytes + 1), 7);
      std::vector<float> exact(static_cast<size_t>(kRows * kHeads * head_dim));
      HeadNormRopeArgs args{.x = x.data(),
                            .x_stride = kHeads * head_dim,
                            .rows = kRows,
                            .heads = kHeads,
                            .head_dim = head_dim,
                            .norm_weight = rotate ? weight.data() : nullptr,
                            .rope_cos = rotate ? angles.data() : nullptr,
                            .rope_sin = rotate ? angles.data() : nullptr,
                            .out_int8 = fast.data(),
                            .rotate_int8 = rotate,
                            .out_row_stride = row_bytes,
                            .out_head_stride = kRows * row_bytes};
      head_norm_rope(args, 3);
      args.out_int8 = nullptr;
      args.out = exact.data();
      args.out_row_stride = head_dim;
      args.out_head_stride = kRows * head_dim;
      head_norm_rope(args, 1);
      for (int64_t r = 0; r < kRows * kHeads; ++r) {
        float* const row = exact.data() + r * head_dim;
        if (rotate) rotate_head(row, head_dim);
        float largest = 0.0F, step = 0.0F;
        for (int64_t i = 0; i < head_dim; ++i) largest = std::max(largest, std::fabs(row[i]));
        std::memcpy(&step, fast.data() + r * row_bytes, sizeof step);
        ASSERT_EQ(step, largest / 127.0F) << r;
        for (int64_t i = 0; i < head_dim; ++i) {
          const float code = largest == 0.0F ? 0.0F : std::nearbyint(row[i] * (127.0F / largest));
          ASSERT_EQ(fast[static_cast<size_t>(r * row_bytes + kKvStepBytes + i)], code) << r;
        }
      }
      ASSERT_EQ(fast.back(), 7);  // nothing is written behind a row
    }
  }
}

TEST(Rotation, IsItsOwnInverseAndKeepsProducts) {
  for (const int64_t n : {2, 6, 24, 64, 80, 128}) {
    const std::vector<float> a = random_floats(n, 21), b = random_floats(n, 22);
    std::vector<float> x = a, y = b;
    rotate_head(x.data(), n);
    rotate_head(y.data(), n);
    double before = 0, after = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      before += static_cast<double>(a[i]) * b[i];
      after += static_cast<double>(x[i]) * y[i];
    }
    EXPECT_NEAR(after, before, 1e-5 * static_cast<double>(n)) << n;
    rotate_head(x.data(), n);
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(x[i], a[i], 1e-5) << n;
  }
  std::vector<float> outlier(64, 0.0F);
  outlier[5] = 80.0F;
  rotate_head(outlier.data(), 64);
  for (const float x : outlier) EXPECT_FLOAT_EQ(std::fabs(x), 10.0F);
}

TEST_P(Elementwise, RowsOf8BitsThatAreNotFiniteHaveNaNForTheirStep) {
  for (const float special : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    std::vector<float> x = random_floats(24, 16);
    x[5] = special;
    std::vector<int8_t> out(2 * (12 + kKvStepBytes));
    head_norm_rope({.x = x.data(),
                    .x_stride = 12,
                    .rows = 2,
                    .heads = 1,
                    .head_dim = 12,
                    .out_int8 = out.data(),
                    .out_row_stride = 12 + kKvStepBytes},
                   1);
    float steps[2];
    std::memcpy(&steps[0], out.data(), sizeof(float));
    std::memcpy(&steps[1], out.data() + 12 + kKvStepBytes, sizeof(float));
    EXPECT_TRUE(std::isnan(steps[0]));
    EXPECT_TRUE(std::isfinite(steps[1]));
    EXPECT_EQ(out[kKvStepBytes], 0);
  }
}

TEST_P(Elementwise, RoundsToBf16AsOneNumberIsRounded) {
  std::vector<float> x = random_floats(120, 14);
  const float special[] = {0.0F,
                           -0.0F,
                           1.00390625F,
                           1.01171875F,
                           -1.00390625F,
                           3.4e38F,
                           std::numeric_limits<float>::infinity(),
                           -std::numeric_limits<float>::infinity()};
  std::copy(std::begin(special), std::end(special), x.begin());
  std::vector<uint16_t> out(x.size());
  HeadNormRopeArgs args{.x = x.data(),
                        .x_stride = 12,
                        .rows = 10,
                        .heads = 1,
                        .head_dim = 12,
                        .out_bf16 = out.data(),
                        .out_row_stride = 12};
  head_norm_rope(args, 1);
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(out[i], float_to_bf16(x[i])) << x[i];
  x.assign(x.size(), std::numeric_limits<float>::quiet_NaN());
  head_norm_rope(args, 1);
  for (const uint16_t bits : out) EXPECT_TRUE(std::isnan(bf16_to_float(bits)));
}

TEST_P(Elementwise, SiluMulMatchesReference) {
  for (const int64_t ffn_dim : {1, 7, 16, 100, 4096, 9001}) {
    for (const int64_t rows : {1, 20}) {
      const auto gate_up = random_floats(rows * (2 * ffn_dim + 3), 9, 5.0F);
      std::vector<float> fast(static_cast<size_t>(rows * (ffn_dim + 1))), plain(fast);
      SiluMulArgs args{.gate_up = gate_up.data(),
                       .gate_up_stride = 2 * ffn_dim + 3,
                       .out = fast.data(),
                       .out_stride = ffn_dim + 1,
                       .rows = rows,
                       .ffn_dim = ffn_dim};
      silu_mul(args, 3);
      args.out = plain.data();
      reference::silu_mul(args);
      expect_close(fast, plain, 2e-6);
    }
  }
}

TEST_P(Elementwise, SiluOfExtremeGatesIsFinite) {
  const std::vector<float> gate_up = {-1e30F, -200.0F, -88.0F, 0.0F, 88.0F, 200.0F, 1e30F,
                                      1.0F,   1.0F,    1.0F,   1.0F, 1.0F,  1.0F,   1.0F};
  std::vector<float> out(7);
  silu_mul({.gate_up = gate_up.data(),
            .gate_up_stride = 14,
            .out = out.data(),
            .out_stride = 7,
            .rows = 1,
            .ffn_dim = 7},
           1);
  EXPECT_NEAR(out[0], 0.0F, 1e-6F);
  EXPECT_NEAR(out[1], 0.0F, 1e-6F);
  EXPECT_NEAR(out[2], 0.0F, 1e-6F);
  EXPECT_EQ(out[3], 0.0F);
  EXPECT_EQ(out[4], 88.0F);
  EXPECT_EQ(out[5], 200.0F);
  EXPECT_EQ(out[6], 1e30F);
}

TEST_P(Elementwise, ThreadsDoNotChangeABit) {
  const auto gate_up = random_floats(64 * 2 * 5000, 20);
  std::vector<float> one(64 * 5000), many(one);
  SiluMulArgs args{.gate_up = gate_up.data(),
                   .gate_up_stride = 10000,
                   .out = one.data(),
                   .out_stride = 5000,
                   .rows = 64,
                   .ffn_dim = 5000};
  silu_mul(args, 1);
  args.out = many.data();
  silu_mul(args, 5);
  EXPECT_EQ(one, many);
}

}  // namespace
}  // namespace kvcast
