#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/half.h"
#include "kernels/kernel_table.h"
#include "kernels/kernels.h"
#include "kernels/reference.h"
#include "matmul_testing.h"

namespace kvcast {
namespace {

using Case = kernel_testing::MatmulCase;
using Data = kernel_testing::MatmulData;
using kernel_testing::pack_floats;
using kernel_testing::random_floats;
using kernel_testing::type_name;

reference::Activations activations_of(WeightType type) {
  return kernels().matmul(type).bf16_activations ? reference::Activations::kBf16
                                                 : reference::activations_of(type);
}

/// A sum of k products of unit variance, each rounded, in one chain: its error is a random walk of
/// k steps of half an ulp of a sum of size sqrt(k): k * 2^-24. int8 sums are exact; what is left is
/// the rounding of the result and of the two scales. Blocks add one rounded product for every 32.
double tolerance(const Case& c, double reference) {
  const double product_error =
      c.type == WeightType::kInt8 ? 0.0 : 6.0 * static_cast<double>(c.k) * 0x1p-24;
  return product_error + 4e-6 + std::fabs(reference) * 1e-6;
}

void expect_like_reference(const Case& c) {
  SCOPED_TRACE(type_name(c.type) + " rows " + std::to_string(c.rows) + " n " + std::to_string(c.n) +
               " k " + std::to_string(c.k) + " threads " + std::to_string(c.threads));
  Data fast(c);
  Data plain(c);
  matmul(fast.args, c.threads);
  reference::matmul(plain.args, activations_of(c.type));
  for (size_t i = 0; i < fast.out.size(); ++i) {
    ASSERT_NEAR(fast.out[i], plain.out[i], tolerance(c, plain.out[i]))
        << "row " << i / fast.out_stride << " column " << i % fast.out_stride;
  }
}

class Matmul : public kernel_testing::EveryIsa {};
KVCAST_FOR_EVERY_ISA(Matmul);

TEST_P(Matmul, MatchesReferenceForEveryNumberOfRows) {
  for (const WeightType type : kWeightTypes) {
    for (int64_t rows = 1; rows <= 70; ++rows) {
      expect_like_reference({type, rows, 67, 45});
    }
  }
}

TEST_P(Matmul, MatchesReferenceOnOddShapes) {
  for (const WeightType type : kWeightTypes) {
    for (const int64_t n : {1, 15, 16, 17, 63, 65, 129, 300}) {
      for (const int64_t k : {1, 2, 3, 5, 31, 64, 127}) {
        for (const int64_t rows : {1, 18}) {
          expect_like_reference({type, rows, n, k, true, true, 3, 3, 5});
        }
      }
    }
  }
}

TEST_P(Matmul, MatchesReferenceWhereTheSumIsBlocked) {
  for (const WeightType type : kWeightTypes) {
    for (const int64_t k : {1025, 2600}) {
      for (const int64_t rows : {1, 2, 7, 33}) {
        expect_like_reference({type, rows, 70, k, true, true, 2});
      }
    }
  }
}

TEST_P(Matmul, MatchesReferenceForManyRowsAndThreads) {
  for (const WeightType type : kWeightTypes) {
    for (const int threads : {1, 2, 3, 5}) {
      expect_like_reference({type, 333, 200, 96, false, true, threads});
      expect_like_reference({type, 1100, 72, 33, true, false, threads});
    }
  }
}

TEST_P(Matmul, BytesBetweenRowsOfOutStay) {
  for (const WeightType type : kWeightTypes) {
    Data d({type, 9, 30, 20, false, false, 1, 0, 7});
    const auto before = d.out;
    matmul(d.args, 2);
    for (int64_t r = 0; r < 9; ++r) {
      for (int64_t c = 30; c < 37; ++c) ASSERT_EQ(d.out[r * 37 + c], before[r * 37 + c]);
    }
  }
}

TEST_P(Matmul, ThreadsDoNotChangeABit) {
  for (const WeightType type : kWeightTypes) {
    for (const int64_t rows : {1, 3, 50, 300}) {
      const Case c{type, rows, 333, 700, true, true};
      Data one(c);
      matmul(one.args, 1);
      for (const int threads : {2, 3, 5, 16}) {
        Data many(c);
        matmul(many.args, threads);
        ASSERT_EQ(std::memcmp(one.out.data(), many.out.data(), one.out.size() * 4), 0)
            << type_name(type) << ", " << rows << " rows, " << threads << " threads";
      }
    }
  }
}

TEST_P(Matmul, ARowDoesNotDependOnTheRowsBesideIt) {
  for (const WeightType type : kWeightTypes) {
    const Case c{type, 77, 130, 2200, true, true};
    Data whole(c);
    matmul(whole.args, 2);
    for (const int64_t step : {1, 2, 5, 6, 7, 16, 31, 40}) {
      Data chunks(c);
      for (int64_t r = 0; r < c.rows; r += step) {
        MatmulArgs part = chunks.args;
        part.a += r * part.a_stride;
        part.out += r * part.out_stride;
        part.rows = std::min(step, c.rows - r);
        matmul(part, 2);
      }
      ASSERT_EQ(std::memcmp(whole.out.data(), chunks.out.data(), whole.out.size() * 4), 0)
          << type_name(type) << " in chunks of " << step;
    }
  }
}

TEST_P(Matmul, SharedInputEqualsOneByOne) {
  for (const WeightType type : kWeightTypes) {
    for (const int64_t rows : {1, 20, 150}) {
      Data a({type, rows, 100, 300, true, false});
      Data b({type, rows, 30, 300, false, true});
      Data c({type, rows, 257, 300});
      Data together_a = Data({type, rows, 100, 300, true, false});
      Data together_b = Data({type, rows, 30, 300, false, true});
      Data together_c = Data({type, rows, 257, 300});
      for (Data* d : {&a, &b, &c}) matmul(d->args, 3);
      MatmulArgs products[3] = {together_a.args, together_b.args, together_c.args};
      products[0].weight = &a.weight;  // a Data that moved would leave its weight behind
      products[1].weight = &b.weight;
      products[2].weight = &c.weight;
      for (MatmulArgs& p : products) p.a = a.a.data();
      matmul_shared_input(products, 3);
      EXPECT_EQ(a.out, together_a.out);
      EXPECT_EQ(b.out, together_b.out);
      EXPECT_EQ(c.out, together_c.out);
    }
  }
}

TEST_P(Matmul, BothKindsOfBlocksShareAnInput) {
  for (const int64_t rows : {1, 20, 150}) {
    Data a({WeightType::kInt4Blocks, rows, 100, 300, true, false});
    Data b({WeightType::kInt8Blocks, rows, 257, 300});
    std::vector<float> out_a(a.out.size()), out_b(b.out.size());
    MatmulArgs products[2] = {a.args, b.args};
    products[0].out = out_a.data();
    products[1].out = out_b.data();
    products[1].a = a.args.a;
    matmul_shared_input(products, 3);
    matmul(a.args, 1);
    b.args.a = a.args.a;
    matmul(b.args, 1);
    EXPECT_EQ(a.out, out_a);
    EXPECT_EQ(b.out, out_b);
  }
}

/// Where sums of bytes are largest: nothing may saturate.
TEST_P(Matmul, ExtremeCodesHaveExactSums) {
  constexpr int64_t kRows = 7, kN = 66, kK = 96;
  for (const WeightType type :
       {WeightType::kInt8, WeightType::kInt4Blocks, WeightType::kInt8Blocks}) {
    for (const float high : {1.0F, -1.0F, 0.5F}) {
      std::vector<float> w(kN * kK);
      for (int64_t i = 0; i < kN * kK; ++i)
        w[i] = i / kK % 3 == 0 ? 1.0F : i % 5 == 0 ? -1.0F : high;
      Data d({type, kRows, kN, kK});
      d.weight = pack_floats(w, kN, kK, type);
      d.args.weight = &d.weight;
      for (int64_t i = 0; i < kRows * kK; ++i)
        d.a[i] = i / kK % 2 == 0 || i % 7 != 0 ? 1.0F : -1.0F;
      std::vector<float> expected = d.out;
      MatmulArgs plain = d.args;
      plain.out = expected.data();
      matmul(d.args, 1);
      reference::matmul(plain, activations_of(type));
      for (size_t i = 0; i < d.out.size(); ++i) {
        ASSERT_NEAR(d.out[i], expected[i], 1e-5F * kK) << type_name(type) << ", " << i;
      }
    }
  }
}

TEST_P(Matmul, WithSiluEqualsTheTwoStepsToTheBit) {
  for (const WeightType type : kWeightTypes) {
    for (const int64_t ffn_dim : {1, 50, 64, 192}) {  // in whole panels and not
      for (const int64_t rows : {1, 5, 140, 300}) {
        for (const int threads : {1, 3}) {
          const int64_t k = 77;
          Data d({type, rows, 2 * ffn_dim, k, false, false, 1, 3});
          matmul(d.args, 2);
          std::vector<float> expected(static_cast<size_t>(rows * ffn_dim));
          silu_mul({.gate_up = d.out.data(),
                    .gate_up_stride = d.out_stride,
                    .out = expected.data(),
                    .out_stride = ffn_dim,
                    .rows = rows,
                    .ffn_dim = ffn_dim},
                   2);
          const int64_t stride = ffn_dim + 2;
          std::vector<float> out(static_cast<size_t>(rows * stride), -7.0F);
          matmul_silu({.a = d.a.data(),
                       .a_stride = d.a_stride,
                       .rows = rows,
                       .weight = &d.weight,
                       .out = out.data(),
                       .out_stride = stride},
                      threads);
          for (int64_t r = 0; r < rows; ++r) {
            for (int64_t i = 0; i < stride; ++i) {
              ASSERT_EQ(out[r * stride + i], i < ffn_dim ? expected[r * ffn_dim + i] : -7.0F)
                  << type_name(type) << ", ffn_dim " << ffn_dim << ", row " << r << " of " << rows;
            }
          }
        }
      }
    }
  }
}

std::vector<uint16_t> rounded_rows(const std::vector<float>& rows, int64_t stride, int64_t width) {
  const int64_t count = static_cast<int64_t>(rows.size()) / stride;
  const int64_t rounded_stride = bf16_row_stride(width);
  std::vector<uint16_t> rounded(static_cast<size_t>(count * rounded_stride), 0x7fc0);  // NaN
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t i = 0; i < width; ++i) {
      rounded[r * rounded_stride + i] = float_to_bf16(rows[r * stride + i]);
    }
  }
  return rounded;
}

TEST_P(Matmul, RowsThatAreRoundedAlreadyGiveTheSameBits) {
  for (const WeightType type : kWeightTypes) {
    for (const int64_t k : {32, 96, 2240}) {
      for (const int64_t rows : {1, 5, 140}) {
        const Case c{type, rows, 256, k, true, true, 1, 3};
        Data d(c), from_bf16(c);
        const bool takes = type == WeightType::kBf16 && GetParam() == Isa::kAvx512Bf16;
        ASSERT_EQ(takes_bf16_rows(d.weight), takes);
        if (!takes) continue;
        const std::vector<uint16_t> a = rounded_rows(d.a, d.a_stride, k);
        matmul(d.args, 2);
        from_bf16.args.a = nullptr;
        from_bf16.args.a_bf16 = a.data();
        from_bf16.args.a_stride = bf16_row_stride(k);
        matmul(from_bf16.args, 3);
        ASSERT_EQ(d.out, from_bf16.out) << rows << " rows, k " << k;

        std::vector<float> hidden(static_cast<size_t>(rows * 128));
        const int64_t stride = bf16_row_stride(128);
        std::vector<uint16_t> hidden_bf16(static_cast<size_t>(rows * stride), 7);
        MatmulSiluArgs silu{.a = d.a.data(),
                            .a_stride = d.a_stride,
                            .rows = rows,
                            .weight = &d.weight,
                            .out = hidden.data(),
                            .out_stride = 128};
        matmul_silu(silu, 2);
        silu.a = nullptr;
        silu.a_bf16 = a.data();
        silu.a_stride = bf16_row_stride(k);
        silu.out = nullptr;
        silu.out_bf16 = hidden_bf16.data();
        silu.out_stride = stride;
        matmul_silu(silu, 2);
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t i = 0; i < stride; ++i) {
            ASSERT_EQ(hidden_bf16[r * stride + i], i < 128 ? float_to_bf16(hidden[r * 128 + i]) : 7)
                << "row " << r << " of " << rows;
          }
        }
      }
    }
  }
}

TEST_P(Matmul, KThatIsPaddedTakesNoRoundedRows) {
  const Data d({WeightType::kBf16, 1, 64, 33});
  EXPECT_FALSE(takes_bf16_rows(d.weight));
}

TEST(MatmulReference, Bf16ActivationsAreRounded) {
  Data d({WeightType::kF32, 1, 1, 1});
  d.a[0] = 1.00390625F;  // 1 + 2^-8, a tie that goes to 1
  reference::matmul(d.args, reference::Activations::kBf16);
  std::vector<float> w(1);
  d.weight.unpack_row(0, w);
  EXPECT_EQ(d.out[0], w[0]);
}

}  // namespace
}  // namespace kvcast
