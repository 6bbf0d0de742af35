// `kvcast fit` and the trainer's `ridge` solve the same regression.
#include "train/ridge.h"

#include <gtest/gtest.h>

#include "fit/moments.h"

namespace kvcast::train {
namespace {

TEST(FitAndRidge, GiveTheSameMaps) {
  constexpr int64_t kRows = 700, kInput = 40, kTarget = 12;
  at::manual_seed(4);
  // Features of one variance, where both kinds of ridge are the same, and far from zero.
  Tensor x = at::randn({kRows, kInput});
  x = (x - x.mean(0)) / x.std(0, /*unbiased=*/false) + 3.0;
  const Tensor y = at::matmul(x, at::randn({kInput, kTarget})) + at::randn({kRows, kTarget}) - 50.0;
  RidgeSums sums({kTarget}, {kInput}, at::kCPU);
  Moments moments(kInput, kTarget);
  for (const int64_t first : {0, 200, 500}) {
    const int64_t count = first == 0 ? 200 : first == 200 ? 300 : 200;
    const Tensor in = x.narrow(0, first, count), out = y.narrow(0, first, count);
    const Tensor in_rows = in.view({1, count, 1, kInput}),
                 out_rows = out.view({1, count, 1, kTarget});
    sums.add({{out_rows, {}, out_rows}}, {{in_rows, {}, in_rows}});
    const auto span = [](const Tensor& t) {
      return std::span<const float>(t.data_ptr<float>(), static_cast<size_t>(t.numel()));
    };
    moments.add(span(in), span(out), 1);
  }
  for (const double ridge : {1e-6, 1e-2}) {
    const TensorMap trained = RidgeFit(sums, ridge).predictor({0});
    const LinearMaps fitted = fit_ridge(moments, ridge, 1);
    const Tensor weight = at::tensor(fitted.weight).view({kTarget, kInput});
    const Tensor intercept = at::tensor(fitted.intercept);
    const auto differ = [](const Tensor& a, const Tensor& b) {
      return (a - b).abs().max().item<double>();
    };
    EXPECT_LT(differ(trained.at("value_transforms.0.weight"), weight), 1e-4);
    EXPECT_LT(differ(trained.at("value_transforms.0.bias"), intercept), 1e-2);
  }
}

}  // namespace
}  // namespace kvcast::train
