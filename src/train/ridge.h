// The predictor in closed form (method §10): ridge regression from the auxiliary's keys and values
// to the base's, for every pair of layers at once, so that the layer map can be chosen by it.
#pragma once

#include <vector>

#include "train/model.h"

namespace kvcast::train {

/// Sums over tokens for the regressions of all layer pairs, in f64: for keys and for values, per
/// auxiliary layer j the products X_jᵀ X_j and X_jᵀ [Y_0 | Y_1 | ...] with the base layers' Y, and
/// the sums of X_j and Y. Keys are those before k_norm.
class RidgeSums {
 public:
  RidgeSums(const ModelConfig& base, const ModelConfig& auxiliary, const at::Device& device);
  /// For targets and inputs of these widths, in the order of the caches given to add().
  RidgeSums(std::vector<int64_t> target_widths, const std::vector<int64_t>& input_widths,
            const at::Device& device);

  /// The caches of the same tokens [B, T].
  void add(const Cache& base, const Cache& auxiliary);
  [[nodiscard]] int64_t rows() const { return rows_; }

 private:
  friend class RidgeFit;
  struct Kind {                     // keys or values
    std::vector<Tensor> xx, xy, x;  // per auxiliary layer: [a, a], [a, sum of b], [a]
    Tensor y, yy;                   // [sum of b]: sums and sums of squares
  };
  void add(Kind& kind, Tensor LayerCache::*member, const Cache& base, const Cache& auxiliary);

  std::vector<int64_t> base_widths_;  // KV width of each base layer, b
  Kind keys_, values_;
  int64_t rows_ = 0;
};

/// The regressions of all pairs, with bias (centred): W = (XᵀX + r I)⁻¹ XᵀY where r is
/// `regularisation` times the inputs' mean variance.
class RidgeFit {
 public:
  RidgeFit(const RidgeSums& sums, double regularisation);

  /// key_transforms.{i}.weight and so on, f32 on the CPU (predictor.h).
  [[nodiscard]] TensorMap predictor(const std::vector<int64_t>& layer_map) const;

  /// [base layers, auxiliary layers], f64 on the CPU: the mean over keys and values of the
  /// unexplained share of the variance on other tokens, 0 is perfect, 1 what the mean would do.
  [[nodiscard]] Tensor errors(const RidgeSums& held_out) const;

 private:
  struct Kind {
    std::vector<Tensor> weight, bias;  // per auxiliary layer: [a, sum of b], [sum of b]
  };
  static Kind solve(const RidgeSums::Kind& sums, int64_t rows, double regularisation);
  [[nodiscard]] Tensor errors(const Kind& fit, const RidgeSums::Kind& held_out, int64_t rows) const;

  std::vector<int64_t> base_widths_;
  Kind keys_, values_;
};

/// The layer map of least summed error [base layers, auxiliary layers]; `monotone`: never falling
/// from one base layer to the next.
std::vector<int64_t> best_layer_map(const Tensor& errors, bool monotone);

}  // namespace kvcast::train
