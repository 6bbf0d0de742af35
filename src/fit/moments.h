// Sums from which linear maps are fitted in closed form (method §10), and tried on other text.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kvcast {

/// Second moments of features x [d] and targets y [t] over the rows seen so far, about their means:
/// the intercept of a fit is then no part of what a ridge shrinks. Sums of any parts of a text add
/// up to those of the whole.
struct Moments {
  int64_t rows = 0;
  std::vector<double> x_mean;  // [d]
  std::vector<double> y_mean;  // [t]
  std::vector<double> yy;      // [t]    sum of (y - mean)²
  std::vector<float> xx;       // [d, d] sum of (x - mean)(x - mean)ᵀ
  std::vector<float> yx;       // [t, d] sum of (y - mean)(x - mean)ᵀ

  Moments() = default;
  Moments(int64_t d, int64_t t)
      : x_mean(d),
        y_mean(t),
        yy(t),
        xx(static_cast<size_t>(d * d)),
        yx(static_cast<size_t>(t * d)) {}

  [[nodiscard]] int64_t d() const { return static_cast<int64_t>(x_mean.size()); }
  [[nodiscard]] int64_t t() const { return static_cast<int64_t>(y_mean.size()); }

  /// x [count, d], y [count, t].
  void add(std::span<const float> x, std::span<const float> y, int threads);
  void merge(const Moments& other, int threads);

 private:
  /// weight * (dy dxᵀ) and its like onto all sums.
  void add_outer(double weight, std::span<const double> dx, std::span<const double> dy,
                 int threads);
};

/// y ~ weight x + intercept.
struct LinearMaps {
  std::vector<float> weight;     // [t, d]
  std::vector<float> intercept;  // [t]
};

/// Least squares with a ridge on the weights of standardised features: `ridge` is in units of their
/// variance.
LinearMaps fit_ridge(const Moments& moments, double ridge, int threads);

/// [t] Sum of squared errors of the maps on the rows of `moments`.
std::vector<double> squared_errors(const LinearMaps& maps, const Moments& moments, int threads);

}  // namespace kvcast
