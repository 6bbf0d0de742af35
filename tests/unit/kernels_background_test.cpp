#include <gtest/gtest.h>

#include "base/stopwatch.h"
#include "kernels/background.h"
#include "kernels_testing.h"

namespace kvcast {
namespace {

using kernel_testing::pack_floats;
using kernel_testing::random_floats;
using kernel_testing::type_name;

/// x [rows, 150] -> (y [rows, 200], z [rows, 70]) -> z += y W: as two links, again and again.
struct Chain {
  Chain(int64_t rows_count, WeightType type)
      : rows(rows_count),
        first(pack_floats(random_floats(200 * 150, 1), 200, 150, type)),
        second(pack_floats(random_floats(70 * 150, 2), 70, 150, type)),
        third(pack_floats(random_floats(70 * 200, 3), 70, 200, type)),
        x(random_floats(rows * 150, 4)),
        bias(random_floats(200, 5)),
        y(static_cast<size_t>(rows * 200)),
        z(static_cast<size_t>(rows * 70)) {}

  [[nodiscard]] std::vector<MatmulArgs> link(int index) {
    const auto product = [&](const std::vector<float>& a, const PackedMatrix& w,
                             std::vector<float>& out) {
      return MatmulArgs{.a = a.data(),
                        .a_stride = w.k(),
                        .rows = rows,
                        .weight = &w,
                        .out = out.data(),
                        .out_stride = w.n()};
    };
    std::vector<MatmulArgs> products;
    if (index % 2 == 0) {
      products = {product(x, first, y), product(x, second, z)};
      products[0].bias = bias.data();
    } else {
      products = {product(y, third, z)};
      products[0].accumulate = true;
      for (float& value : x) value *= -1.5F;  // the next link differs
    }
    return products;
  }

  int64_t rows;
  PackedMatrix first, second, third;
  std::vector<float> x, bias, y, z;
};

class Background : public kernel_testing::EveryIsa {};
KVCAST_FOR_EVERY_ISA(Background);

/// A product that carries, of rows enough for several tiles and tasks.
class Carrier {
 public:
  explicit Carrier(WeightType type)
      : weight_(pack_floats(random_floats(400 * 300, 6), 400, 300, type)),
        a_(random_floats(kRows * 300, 7)),
        out_(kRows * 400),
        args_{.a = a_.data(),
              .a_stride = 300,
              .rows = kRows,
              .weight = &weight_,
              .out = out_.data(),
              .out_stride = 400} {}
  std::vector<float> run(int threads) {
    matmul(args_, threads);
    return out_;
  }

 private:
  static constexpr int64_t kRows = 70;
  PackedMatrix weight_;
  std::vector<float> a_, out_;
  MatmulArgs args_;
};

TEST_P(Background, CarriedProductsHaveTheBitsOfMatmul) {
  constexpr int kLinks = 12;
  for (const WeightType type : kWeightTypes) {
    for (const WeightType carrier_type : {WeightType::kF32, type}) {
      for (const int64_t rows : {1, 5, 16, 20, 24}) {
        for (const int threads : {1, 3}) {
          SCOPED_TRACE(type_name(type) + " in " + type_name(carrier_type) + ", " +
                       std::to_string(rows) + " rows, " + std::to_string(threads) + " threads");
          Chain expected(rows, type);
          for (int link = 0; link < kLinks; ++link) {
            matmul_shared_input(expected.link(link), threads);
          }
          Carrier carrier(carrier_type);
          const std::vector<float> undisturbed = carrier.run(threads);
          Chain carried(rows, type);
          int link = 0;
          BackgroundProducts* chain = nullptr;
          BackgroundProducts background(rows, threads, [&] {
            if (++link < kLinks) chain->start(carried.link(link));
          });
          chain = &background;
          const BackgroundProducts::Scope scope(&background);
          background.start(carried.link(0));
          // A thread that has begun a panel may have to wait for a processor.
          const Stopwatch within;
          while (!background.idle() && within.elapsed_ms() < 60'000) {
            ASSERT_EQ(carrier.run(threads), undisturbed);
          }
          EXPECT_EQ(link, kLinks);
          EXPECT_EQ(carried.y, expected.y);
          EXPECT_EQ(carried.z, expected.z);
        }
      }
    }
  }
}

TEST_P(Background, WhatIsBegunIsFinishedByAll) {
  for (const WeightType type : kWeightTypes) {
    Chain expected(2, type), carried(2, type);
    Carrier carrier(type);
    int calls = 0;
    BackgroundProducts background(2, 3, [&] { ++calls; });
    EXPECT_TRUE(background.idle());
    background.finish();  // nothing
    for (int link = 0; link < 6; ++link) {
      matmul_shared_input(expected.link(link), 3);
      background.start(carried.link(link));
      EXPECT_FALSE(background.idle());
      if (link % 3 == 1) {  // some of it
        const BackgroundProducts::Scope scope(&background);
        carrier.run(link % 2 == 0 ? 1 : 3);
      }
      background.finish();
      EXPECT_TRUE(background.idle());
      ASSERT_EQ(carried.z, expected.z) << type_name(type) << ", link " << link;
    }
    EXPECT_LE(calls, 2);  // of what was carried to the end
  }
}

TEST_P(Background, FewRowsAndWhatIsOutsideAScopeCarryNothing) {
  MatmulKernels takes, takes_not;
  takes.takes_interludes = true;
  BackgroundProducts background(1, 2, [] {});
  EXPECT_EQ(CarriedProducts(64, takes).between_tiles(0), nullptr);
  {
    const BackgroundProducts::Scope scope(&background);
    EXPECT_EQ(CarriedProducts(1, takes).between_tiles(0), nullptr);
    EXPECT_NE(CarriedProducts(64, takes).between_tiles(0), nullptr);
    EXPECT_NE(CarriedProducts(64, takes).between_tiles(1),
              CarriedProducts(64, takes).between_tiles(0));
    EXPECT_EQ(CarriedProducts(64, takes_not).between_tiles(0), nullptr);
    const BackgroundProducts::Scope none(nullptr);
    EXPECT_EQ(CarriedProducts(64, takes).between_tiles(0), nullptr);
  }
  EXPECT_EQ(CarriedProducts(64, takes).between_tiles(0), nullptr);
}

}  // namespace
}  // namespace kvcast
