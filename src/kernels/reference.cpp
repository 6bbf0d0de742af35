#include "kernels/reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/half.h"
#include "kernels/kernel_table.h"
#include "kernels/rotation_inl.h"

namespace kvcast::reference {
namespace {

/// Activations of one row after rounding, and what their sum of products is multiplied by.
struct Row {
  std::vector<double> values;
  double scale = 1.0;
};

Row round_row(const float* a, int64_t k, Activations activations) {
  Row row{std::vector<double>(a, a + k), 1.0};
  if (activations == Activations::kBf16) {
    for (int64_t i = 0; i < k; ++i) row.values[i] = bf16_to_float(float_to_bf16(a[i]));
  } else if (activations == Activations::kInt8) {
    float largest = 0.0F;
    bool finite = true;
    for (int64_t i = 0; i < k; ++i) {
      largest = std::max(largest, std::fabs(a[i]));
      finite &= std::isfinite(a[i]);
    }
    if (!finite) return {std::vector<double>(static_cast<size_t>(k)), std::nan("")};
    const float inverse = largest >= kSmallestLargest ? 127.0F / largest : 0.0F;
    for (int64_t i = 0; i < k; ++i) row.values[i] = std::nearbyint(a[i] * inverse);
    row.scale = largest / 127.0F;
  }
  return row;
}

/// Every 32 elements with a scale of their own.
Row round_blocks(const float* a, int64_t k) {
  Row row{std::vector<double>(a, a + k), 1.0};
  for (int64_t begin = 0; begin < k; begin += kWeightBlock) {
    const int64_t end = std::min(begin + kWeightBlock, k);
    float largest = 0.0F;
    for (int64_t i = begin; i < end; ++i) {
      if (!(std::fabs(a[i]) < kLargestBlockActivation)) row.scale = std::nan("");
      largest = std::max(largest, std::fabs(a[i]));
    }
    const float scale = block_scale(largest);
    const float inverse = 1.0F / scale;
    for (int64_t i = begin; i < end; ++i) {
      row.values[i] = std::nearbyint(a[i] * inverse) * static_cast<double>(scale);
    }
  }
  return row;
}

/// A row of KvType::kInt8.
void store_int8_row(const std::vector<float>& x, int8_t* out) {
  const Row row = round_row(x.data(), std::ssize(x), Activations::kInt8);
  const auto step = static_cast<float>(row.scale);
  std::memcpy(out, &step, sizeof step);
  for (size_t i = 0; i < x.size(); ++i) {
    out[kKvStepBytes + static_cast<int64_t>(i)] = static_cast<int8_t>(row.values[i]);
  }
}

/// Element i of a row of a head.
double cached(KvType type, const void* row, int64_t i) {
  if (type == KvType::kF32) return static_cast<const float*>(row)[i];
  if (type == KvType::kBf16) return bf16_to_float(static_cast<const uint16_t*>(row)[i]);
  float step = 0.0F;
  std::memcpy(&step, row, sizeof step);
  return static_cast<double>(step) * static_cast<const int8_t*>(row)[kKvStepBytes + i];
}

}  // namespace

Activations activations_of(WeightType type) {
  if (is_blocks(type)) return Activations::kInt8Blocks;
  return type == WeightType::kInt8 ? Activations::kInt8 : Activations::kF32;
}

void matmul(const MatmulArgs& args) { matmul(args, activations_of(args.weight->type())); }

void matmul(const MatmulArgs& args, Activations activations) {
  const int64_t n = args.weight->n();
  const int64_t k = args.weight->k();
  std::vector<Row> rows;
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* const a = args.a + r * args.a_stride;
    rows.push_back(activations == Activations::kInt8Blocks ? round_blocks(a, k)
                                                           : round_row(a, k, activations));
  }
  std::vector<float> weights(static_cast<size_t>(k));
  for (int64_t c = 0; c < n; ++c) {
    args.weight->unpack_row(c, weights);
    for (int64_t r = 0; r < args.rows; ++r) {
      double sum = 0.0;
      for (int64_t i = 0; i < k; ++i) sum += rows[r].values[i] * static_cast<double>(weights[i]);
      sum *= rows[r].scale;
      if (args.bias != nullptr) sum += args.bias[c];
      float& out = args.out[r * args.out_stride + c];
      if (args.accumulate) sum += out;
      out = static_cast<float>(sum);
    }
  }
}

void rms_norm(const RmsNormArgs& args) {
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* const x = args.x + r * args.x_stride;
    float* const out = args.out + r * args.out_stride;
    double squares = 0.0;
    for (int64_t i = 0; i < args.dim; ++i) squares += static_cast<double>(x[i]) * x[i];
    const double scale = 1.0 / std::sqrt(squares / static_cast<double>(args.dim) + args.eps);
    for (int64_t i = 0; i < args.dim; ++i)
      out[i] = static_cast<float>(x[i] * scale * args.weight[i]);
  }
}

void head_norm_rope(const HeadNormRopeArgs& args) {
  const int64_t half = args.head_dim / 2;
  for (int64_t r = 0; r < args.rows; ++r) {
    for (int64_t h = 0; h < args.heads; ++h) {
      const float* const from = args.x + r * args.x_stride + h * args.head_dim;
      std::vector<float> x(from, from + args.head_dim);
      if (args.norm_weight != nullptr) {
        rms_norm({.x = x.data(),
                  .weight = args.norm_weight,
                  .out = x.data(),
                  .rows = 1,
                  .dim = args.head_dim,
                  .eps = args.eps});
      }
      for (int64_t i = 0; i < half && args.rope_cos != nullptr; ++i) {
        const double cosine = args.rope_cos[r * half + i];
        const double sine = args.rope_sin[r * half + i];
        const double a = x[i];
        const double b = x[i + half];
        x[i] = static_cast<float>(a * cosine - b * sine);
        x[i + half] = static_cast<float>(b * cosine + a * sine);
      }
      const int64_t to = r * args.out_row_stride + h * args.out_head_stride;
      if (args.out_int8 != nullptr) {
        if (args.rotate_int8) rotate_head(x.data(), args.head_dim);
        store_int8_row(x, args.out_int8 + to);
        continue;
      }
      for (int64_t i = 0; i < args.head_dim; ++i) {
        if (args.out_bf16 != nullptr) {
          args.out_bf16[to + i] = float_to_bf16(x[i]);
        } else {
          args.out[to + i] = x[i];
        }
      }
    }
  }
}

void silu_mul(const SiluMulArgs& args) {
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* const gate = args.gate_up + r * args.gate_up_stride;
    const float* const up = gate + args.ffn_dim;
    for (int64_t j = 0; j < args.ffn_dim; ++j) {
      const double g = gate[j];
      args.out[r * args.out_stride + j] = static_cast<float>(g / (1.0 + std::exp(-g)) * up[j]);
    }
  }
}

void attention(std::span<const AttentionArgs> sequences, const AttentionShape& shape) {
  const int64_t row_bytes = kv_row_bytes(shape.kv_type, shape.head_dim);
  const double scale = 1.0 / std::sqrt(static_cast<double>(shape.head_dim));
  const int64_t group = shape.query_heads / shape.kv_heads;
  for (const AttentionArgs& s : sequences) {
    std::vector<double> mean(static_cast<size_t>(s.first_position + s.rows), 0.0);
    for (int64_t r = 0; r < s.rows; ++r) {
      const int64_t visible = s.first_position + r + 1;
      for (int64_t h = 0; h < shape.query_heads; ++h) {
        const float* const asked = s.q + r * s.q_stride + h * shape.head_dim;
        std::vector<float> q(asked, asked + shape.head_dim);
        if (shape.kv_type == KvType::kInt8) rotate_head(q.data(), shape.head_dim);
        const int64_t head = h / group * s.head_stride * kv_element_bytes(shape.kv_type);
        const auto* const keys = static_cast<const std::byte*>(s.keys) + head;
        const auto* const values = static_cast<const std::byte*>(s.values) + head;
        std::vector<double> p(static_cast<size_t>(visible), 0.0);
        for (int64_t j = 0; j < visible; ++j) {
          for (int64_t i = 0; i < shape.head_dim; ++i) {
            p[j] += q[i] * cached(shape.kv_type, keys + j * row_bytes, i);
          }
          p[j] *= scale;
        }
        const double largest = *std::max_element(p.begin(), p.end());
        double sum = 0.0;
        for (double& value : p) sum += value = std::exp(value - largest);
        float* const out = s.out + r * s.out_stride + h * shape.head_dim;
        for (int64_t i = 0; i < shape.head_dim; ++i) {
          double mixed = 0.0;
          for (int64_t j = 0; j < visible; ++j)
            mixed += p[j] / sum * cached(shape.kv_type, values + j * row_bytes, i);
          out[i] = static_cast<float>(mixed);
        }
        for (int64_t j = 0; j < visible && r + 1 == s.rows; ++j) {
          mean[j] += p[j] / sum / static_cast<double>(shape.query_heads);
        }
      }
    }
    if (s.last_row_probabilities == nullptr || s.rows == 0) continue;
    for (size_t j = 0; j < mean.size(); ++j) {
      s.last_row_probabilities[j] = static_cast<float>(mean[j]);
    }
  }
}

}  // namespace kvcast::reference
