// Closed-form maps: what is linear is found, whatever its means; sums of parts are those of the
// whole.
#include "fit/moments.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace kvcast {
namespace {

constexpr int64_t kD = 37, kT = 19, kRows = 400;

struct Data {
  std::vector<float> x, y;       // [rows, d], [rows, t]
  std::vector<float> weight;     // [t, d]
  std::vector<float> intercept;  // [t]
};

/// y = weight x + intercept + noise, with means far from zero and scales far from one.
Data linear_data(double noise, uint32_t seed = 1, int64_t rows = kRows) {
  std::mt19937 random(seed), maps(7);
  std::normal_distribution<double> normal;
  Data data;
  for (int64_t i = 0; i < kT * kD; ++i) data.weight.push_back(static_cast<float>(normal(maps)));
  for (int64_t i = 0; i < kT; ++i) data.intercept.push_back(static_cast<float>(300 * normal(maps)));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < kD; ++j) {
      const double scale = std::pow(10.0, static_cast<double>(j % 5) - 2);
      data.x.push_back(static_cast<float>(scale * (normal(random) + 20)));
    }
    for (int64_t i = 0; i < kT; ++i) {
      double y = data.intercept[i] + noise * normal(random);
      for (int64_t j = 0; j < kD; ++j) y += double{data.weight[i * kD + j]} * data.x[r * kD + j];
      data.y.push_back(static_cast<float>(y));
    }
  }
  return data;
}

Moments moments_of(const Data& data) {
  Moments moments(kD, kT);
  moments.add(data.x, data.y, 2);
  return moments;
}

double direct_error(const LinearMaps& maps, const Data& data, int64_t target) {
  double sum = 0;
  for (int64_t r = 0; r < std::ssize(data.x) / kD; ++r) {
    double error = data.y[r * kT + target] - maps.intercept[target];
    for (int64_t j = 0; j < kD; ++j) {
      error -= double{maps.weight[target * kD + j]} * data.x[r * kD + j];
    }
    sum += error * error;
  }
  return sum;
}

TEST(Moments, FindALinearMapAndItsIntercept) {
  const Data data = linear_data(0);
  const Moments moments = moments_of(data);
  const LinearMaps maps = fit_ridge(moments, 1e-6, 2);
  for (int64_t i = 0; i < kT; ++i) {
    EXPECT_LT(direct_error(maps, data, i), 1e-4 * moments.yy[i]) << i;
  }
}

TEST(Moments, ARidgeDoesNotShrinkTheIntercept) {
  const Data data = linear_data(0.1);
  const Moments moments = moments_of(data);
  const LinearMaps maps = fit_ridge(moments, 1e6, 2);  // hardly any weight is left
  for (int64_t i = 0; i < kT; ++i) {
    EXPECT_NEAR(maps.intercept[i], moments.y_mean[i], 1e-3 * std::abs(moments.y_mean[i]) + 0.05);
  }
}

TEST(Moments, PartsAddUpToTheWhole) {
  const Data data = linear_data(0.5);
  const Moments whole = moments_of(data);
  Moments parts(kD, kT), last(kD, kT);
  const std::span x(data.x), y(data.y);
  parts.add(x.first(130 * kD), y.first(130 * kT), 1);
  parts.add(x.subspan(130 * kD, kD), y.subspan(130 * kT, kT), 1);
  last.add(x.subspan(131 * kD), y.subspan(131 * kT), 1);
  parts.merge(last, 1);
  EXPECT_EQ(parts.rows, whole.rows);
  for (int64_t i = 0; i < kT; ++i) {
    EXPECT_NEAR(parts.yy[i], whole.yy[i], 1e-4 * whole.yy[i]);
    EXPECT_NEAR(parts.y_mean[i], whole.y_mean[i], 1e-4 * std::abs(whole.y_mean[i]) + 1e-4);
    for (int64_t j = 0; j < kD; ++j) {
      const double size = std::sqrt(whole.yy[i] * whole.xx[j * kD + j]);
      EXPECT_NEAR(parts.yx[i * kD + j], whole.yx[i * kD + j], 1e-4 * size);
    }
  }
}

TEST(Moments, ErrorsAreThoseOfTheRows) {
  const Data data = linear_data(2), other = linear_data(2, 99, 150);
  const LinearMaps maps = fit_ridge(moments_of(data), 1e-3, 2);
  const std::vector<double> errors = squared_errors(maps, moments_of(other), 2);
  for (int64_t i = 0; i < kT; ++i) {
    const double direct = direct_error(maps, other, i);
    EXPECT_NEAR(errors[i], direct, 0.02 * direct) << i;
  }
}

TEST(Moments, AConstantFeatureIsNoTrouble) {
  Data data = linear_data(0);
  for (int64_t r = 0; r < kRows; ++r) data.x[r * kD + 3] = 5;
  const LinearMaps maps = fit_ridge(moments_of(data), 1e-3, 2);
  for (int64_t i = 0; i < kT; ++i) EXPECT_EQ(maps.weight[i * kD + 3], 0.0F);
}

}  // namespace
}  // namespace kvcast
