#include "fit/moments.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <new>

#include "base/team.h"
#include "kernels/kernels.h"

namespace kvcast {
namespace {

PackedMatrix packed(const std::vector<float>& rows, int64_t n, int64_t k, int threads) {
  PackedMatrix matrix = PackedMatrix::pack(reinterpret_cast<const std::byte*>(rows.data()),
                                           SourceType::kF32, n, k, WeightType::kF32, threads);
  if (matrix.empty()) throw std::bad_alloc();
  return matrix;
}

/// out [rows, w.n()] (+)= a [rows, w.k()] · wᵀ
void multiply(const float* a, int64_t rows, const PackedMatrix& w, float* out, bool accumulate,
              int threads) {
  matmul({.a = a,
          .a_stride = w.k(),
          .rows = rows,
          .weight = &w,
          .out = out,
          .out_stride = w.n(),
          .accumulate = accumulate},
         threads);
}

std::vector<double> column_means(std::span<const float> rows, int64_t columns) {
  std::vector<double> means(static_cast<size_t>(columns));
  const auto count = static_cast<int64_t>(rows.size()) / columns;
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t c = 0; c < columns; ++c) means[c] += rows[r * columns + c];
  }
  for (double& mean : means) mean /= static_cast<double>(count);
  return means;
}

/// [columns, rows]: each column about its mean, its elements together.
std::vector<float> centred_columns(std::span<const float> rows, std::span<const double> means,
                                   int threads) {
  const auto columns = static_cast<int64_t>(means.size());
  const auto count = static_cast<int64_t>(rows.size()) / columns;
  std::vector<float> out(rows.size());
  parallel_for(columns, threads, [&](int64_t c, int) {
    for (int64_t r = 0; r < count; ++r) {
      out[c * count + r] = static_cast<float>(rows[r * columns + c] - means[c]);
    }
  });
  return out;
}

}  // namespace

void Moments::add(std::span<const float> x, std::span<const float> y, int threads) {
  const int64_t count = static_cast<int64_t>(x.size()) / d();
  if (count == 0) return;
  const auto x_means = column_means(x, d()), y_means = column_means(y, t());
  const auto xt = centred_columns(x, x_means, threads), yt = centred_columns(y, y_means, threads);
  const PackedMatrix features = packed(xt, d(), count, threads);
  multiply(xt.data(), d(), features, xx.data(), true, threads);
  multiply(yt.data(), t(), features, yx.data(), true, threads);
  for (int64_t i = 0; i < t(); ++i) {
    for (int64_t r = 0; r < count; ++r) yy[i] += double{yt[i * count + r]} * yt[i * count + r];
  }
  std::vector<double> dx(x_means), dy(y_means);
  for (int64_t i = 0; i < d(); ++i) dx[i] -= x_mean[i];
  for (int64_t i = 0; i < t(); ++i) dy[i] -= y_mean[i];
  const auto old = static_cast<double>(rows), more = static_cast<double>(count);
  add_outer(old * more / (old + more), dx, dy, threads);
  for (int64_t i = 0; i < d(); ++i) x_mean[i] += dx[i] * more / (old + more);
  for (int64_t i = 0; i < t(); ++i) y_mean[i] += dy[i] * more / (old + more);
  rows += count;
}

void Moments::merge(const Moments& other, int threads) {
  if (other.rows == 0) return;
  const auto old = static_cast<double>(rows), more = static_cast<double>(other.rows);
  std::vector<double> dx(other.x_mean), dy(other.y_mean);
  for (int64_t i = 0; i < d(); ++i) dx[i] -= x_mean[i];
  for (int64_t i = 0; i < t(); ++i) dy[i] -= y_mean[i];
  for (size_t i = 0; i < xx.size(); ++i) xx[i] += other.xx[i];
  for (size_t i = 0; i < yx.size(); ++i) yx[i] += other.yx[i];
  for (size_t i = 0; i < yy.size(); ++i) yy[i] += other.yy[i];
  add_outer(old * more / (old + more), dx, dy, threads);
  for (int64_t i = 0; i < d(); ++i) x_mean[i] += dx[i] * more / (old + more);
  for (int64_t i = 0; i < t(); ++i) y_mean[i] += dy[i] * more / (old + more);
  rows += other.rows;
}

void Moments::add_outer(double weight, std::span<const double> dx, std::span<const double> dy,
                        int threads) {
  if (weight == 0) return;
  const auto add_row = [&](std::vector<float>& sums, int64_t row, double factor) {
    for (int64_t j = 0; j < d(); ++j) sums[row * d() + j] += static_cast<float>(factor * dx[j]);
  };
  parallel_for(d(), threads, [&](int64_t i, int) { add_row(xx, i, weight * dx[i]); });
  parallel_for(t(), threads, [&](int64_t i, int) { add_row(yx, i, weight * dy[i]); });
  for (int64_t i = 0; i < t(); ++i) yy[i] += weight * dy[i] * dy[i];
}

// With standardised features z: W = yz (zz + ridge)⁻¹, from a factorisation in f64 and products in
// f32 whose rounding one step of iterative refinement takes back.
LinearMaps fit_ridge(const Moments& moments, double ridge, int threads) {
  const int64_t d = moments.d(), t = moments.t();
  const auto n = static_cast<double>(moments.rows);
  Eigen::VectorXd inverse_scale(d);
  for (int64_t j = 0; j < d; ++j) {
    const double variance = double{moments.xx[j * d + j]} / n;
    inverse_scale[j] = variance > 0 ? 1 / std::sqrt(variance) : 0;  // a constant explains nothing
  }
  Eigen::MatrixXd zz(d, d);
  for (int64_t i = 0; i < d; ++i) {
    for (int64_t j = 0; j < d; ++j) {
      zz(j, i) = moments.xx[i * d + j] / n * inverse_scale[i] * inverse_scale[j];
    }
    zz(i, i) += ridge;
  }
  const Eigen::MatrixXd inverse = zz.llt().solve(Eigen::MatrixXd::Identity(d, d));
  const auto to_rows = [&](const Eigen::MatrixXd& matrix) {  // symmetric
    std::vector<float> rows(static_cast<size_t>(d * d));
    for (int64_t i = 0; i < d * d; ++i) rows[i] = static_cast<float>(matrix.data()[i]);
    return packed(rows, d, d, threads);
  };
  const PackedMatrix inverse_packed = to_rows(inverse), zz_packed = to_rows(zz);

  std::vector<float> yz(moments.yx.size());
  parallel_for(t, threads, [&](int64_t i, int) {
    for (int64_t j = 0; j < d; ++j) {
      yz[i * d + j] = static_cast<float>(moments.yx[i * d + j] / n * inverse_scale[j]);
    }
  });
  LinearMaps maps{.weight = std::vector<float>(yz.size()),
                  .intercept = std::vector<float>(static_cast<size_t>(t))};
  multiply(yz.data(), t, inverse_packed, maps.weight.data(), false, threads);
  std::vector<float> product(yz.size());
  multiply(maps.weight.data(), t, zz_packed, product.data(), false, threads);
  for (size_t i = 0; i < yz.size(); ++i) yz[i] -= product[i];
  multiply(yz.data(), t, inverse_packed, maps.weight.data(), true, threads);

  parallel_for(t, threads, [&](int64_t i, int) {
    double intercept = moments.y_mean[i];
    for (int64_t j = 0; j < d; ++j) {
      float& weight = maps.weight[i * d + j];
      weight *= static_cast<float>(inverse_scale[j]);
      intercept -= double{weight} * moments.x_mean[j];
    }
    maps.intercept[i] = static_cast<float>(intercept);
  });
  return maps;
}

// About the means where the maps' error is zero: sum (y - W x)² = yy - 2 W·yx + W xx Wᵀ.
std::vector<double> squared_errors(const LinearMaps& maps, const Moments& moments, int threads) {
  const int64_t d = moments.d(), t = moments.t();
  std::vector<double> y_forecast(static_cast<size_t>(t));
  parallel_for(t, threads, [&](int64_t i, int) {
    double sum = maps.intercept[i];
    for (int64_t j = 0; j < d; ++j) sum += double{maps.weight[i * d + j]} * moments.x_mean[j];
    y_forecast[i] = sum;
  });
  std::vector<float> product(maps.weight.size());
  multiply(maps.weight.data(), t, packed(moments.xx, d, d, threads), product.data(), false,
           threads);
  std::vector<double> errors(static_cast<size_t>(t));
  parallel_for(t, threads, [&](int64_t i, int) {
    double sum = moments.yy[i];
    for (int64_t j = 0; j < d; ++j) {
      const int64_t at = i * d + j;
      sum += maps.weight[at] * (double{product[at]} - 2 * double{moments.yx[at]});
    }
    const double bias = moments.y_mean[i] - y_forecast[i];
    errors[i] = std::max(sum, 0.0) + static_cast<double>(moments.rows) * bias * bias;
  });
  return errors;
}

}  // namespace kvcast
