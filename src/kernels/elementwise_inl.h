// RMSNorm, per-head norm with RoPE, SiLU times up. Included after the file's Simd and math_inl.h.
#pragma once

#include "kernels/kernel_table.h"
#include "kernels/math_inl.h"
#include "kernels/rotation_inl.h"

namespace kvcast {
namespace {

/// f(i, count): whole vectors first, then one of the remaining lanes.
template <typename Function>
KVCAST_INLINE void for_each_lane_group(int64_t begin, int64_t end, Function&& f) {
  int64_t i = begin;
  for (; i + Simd::kWidth <= end; i += Simd::kWidth) f(i, int64_t{Simd::kWidth});
  if (i < end) f(i, end - i);
}
KVCAST_INLINE Simd::F load_up_to(const float* p, int64_t count) {
  return count == Simd::kWidth ? Simd::load(p) : Simd::load_first(p, count);
}
KVCAST_INLINE void store_up_to(float* p, Simd::F x, int64_t count) {
  if (count == Simd::kWidth) {
    Simd::store(p, x);
  } else {
    Simd::store_first(p, x, count);
  }
}

/// A row that is written: bf16 if that is not null.
struct OutRow {
  float* f32;
  uint16_t* bf16;

  static OutRow of(float* f32, uint16_t* bf16, int64_t offset) {
    return bf16 == nullptr ? OutRow{f32 + offset, nullptr} : OutRow{nullptr, bf16 + offset};
  }
  KVCAST_INLINE void store(int64_t i, Simd::F x, int64_t count) const {
    if (bf16 != nullptr) return Simd::store_bf16(bf16 + i, x, count);
    store_up_to(f32 + i, x, count);
  }
};

/// 1 / sqrt(mean(x^2) + eps). Four chains hide the latency of the additions.
KVCAST_INLINE float inverse_rms(const float* x, int64_t dim, float eps) {
  Simd::F sums[4] = {Simd::zero(), Simd::zero(), Simd::zero(), Simd::zero()};
  int64_t i = 0;
  for (; i + 4 * Simd::kWidth <= dim; i += 4 * Simd::kWidth) {
    KVCAST_UNROLL
    for (int j = 0; j < 4; ++j) {
      const Simd::F v = Simd::load(x + i + j * Simd::kWidth);
      sums[j] = Simd::fma(v, v, sums[j]);
    }
  }
  for_each_lane_group(i, dim, [&](int64_t at, int64_t count) {
    const Simd::F v = load_up_to(x + at, count);
    sums[0] = Simd::fma(v, v, sums[0]);
  });
  const Simd::F total = Simd::add(Simd::add(sums[0], sums[1]), Simd::add(sums[2], sums[3]));
  return 1.0F / __builtin_sqrtf(Simd::sum(total) / static_cast<float>(dim) + eps);
}

KVCAST_INLINE void normalise(const float* x, const float* weight, const OutRow& out, int64_t dim,
                             float eps) {
  const Simd::F scale = Simd::set(inverse_rms(x, dim, eps));
  for_each_lane_group(0, dim, [&](int64_t i, int64_t count) {
    const Simd::F scaled = Simd::mul(load_up_to(x + i, count), scale);
    out.store(i, Simd::mul(scaled, load_up_to(weight + i, count)), count);
  });
}

void rms_norm_rows(const RmsNormArgs& args, int64_t row_begin, int64_t row_end) {
  for (int64_t r = row_begin; r < row_end; ++r) {
    normalise(args.x + r * args.x_stride, args.weight,
              OutRow::of(args.out, args.out_bf16, r * args.out_stride), args.dim, args.eps);
  }
}

/// x [n] as a row of KvType::kInt8; [n, n + kWidth) is zero.
KVCAST_INLINE void store_int8_row(const float* x, int64_t n, int8_t* row) {
  Simd::F lanes = Simd::zero();
  Simd::F zero_or_nan = Simd::zero();
  for (int64_t i = 0; i < n; i += Simd::kWidth) {
    lanes = Simd::max(lanes, Simd::abs(Simd::load(x + i)));
    zero_or_nan = Simd::fma(Simd::load(x + i), Simd::zero(), zero_or_nan);
  }
  const float largest = Simd::largest(lanes);
  const float not_finite = Simd::sum(zero_or_nan);
  const float step = not_finite != 0.0F ? not_finite : largest / 127.0F;
  __builtin_memcpy(row, &step, sizeof step);
  const bool codes = not_finite == 0.0F && largest >= kSmallestLargest;
  const Simd::F inverse = Simd::set(codes ? 127.0F / largest : 0.0F);
  auto* const out = reinterpret_cast<std::byte*>(row + kKvStepBytes);
  for_each_lane_group(0, n, [&](int64_t i, int64_t count) {
    const Simd::I q =
        codes ? Simd::to_int(Simd::mul(Simd::load(x + i), inverse)) : Simd::zero_int();
    if (count == Simd::kWidth) return Simd::store_bytes(out + i, q);
    std::byte bytes[Simd::kWidth];
    Simd::store_bytes(bytes, q);
    for (int64_t lane = 0; lane < count; ++lane) out[i + lane] = bytes[lane];
  });
}

void head_norm_rope_rows(const HeadNormRopeArgs& args, int64_t row_begin, int64_t row_end) {
  const int64_t half = args.head_dim / 2;
  for (int64_t r = row_begin; r < row_end; ++r) {
    const float* const cosines = args.rope_cos == nullptr ? nullptr : args.rope_cos + r * half;
    const float* const sines = args.rope_sin == nullptr ? nullptr : args.rope_sin + r * half;
    for (int64_t h = 0; h < args.heads; ++h) {
      const float* const x = args.x + r * args.x_stride + h * args.head_dim;
      const int64_t place = r * args.out_row_stride + h * args.out_head_stride;
      const bool norm = args.norm_weight != nullptr;
      const Simd::F scale = Simd::set(norm ? inverse_rms(x, args.head_dim, args.eps) : 1.0F);
      const auto normed = [&](int64_t i, int64_t count) KVCAST_LAMBDA_INLINE {
        const Simd::F value = load_up_to(x + i, count);
        if (!norm) return value;
        return Simd::mul(Simd::mul(value, scale), load_up_to(args.norm_weight + i, count));
      };
      const auto for_each_value = [&](auto&& use) KVCAST_LAMBDA_INLINE {
        for_each_lane_group(0, half, [&](int64_t i, int64_t count) KVCAST_LAMBDA_INLINE {
          const Simd::F a = normed(i, count);
          const Simd::F b = normed(half + i, count);
          if (args.rope_cos == nullptr) {
            use(i, a, count);
            use(half + i, b, count);
            return;
          }
          const Simd::F cosine = load_up_to(cosines + i, count);
          const Simd::F sine = load_up_to(sines + i, count);
          use(i, Simd::sub(Simd::mul(a, cosine), Simd::mul(b, sine)), count);
          use(half + i, Simd::fma(b, cosine, Simd::mul(a, sine)), count);
        });
      };
      if (args.out_int8 != nullptr) {
        float row[kMostHeadElements + 2 * Simd::kWidth];
        for_each_value([&](int64_t i, Simd::F value, int64_t count)
                           KVCAST_LAMBDA_INLINE { store_up_to(row + i, value, count); });
        Simd::store(row + args.head_dim, Simd::zero());
        if (args.rotate_int8) rotate_head(row, args.head_dim);
        store_int8_row(row, args.head_dim, args.out_int8 + place);
        continue;
      }
      const OutRow out = OutRow::of(args.out, args.out_bf16, place);
      for_each_value([&](int64_t i, Simd::F value, int64_t count)
                         KVCAST_LAMBDA_INLINE { out.store(i, value, count); });
    }
  }
}

/// Columns [begin, end) of one row.
void silu_mul_columns(const SiluMulArgs& args, int64_t row, int64_t begin, int64_t end) {
  const float* const gate = args.gate_up + row * args.gate_up_stride;
  const float* const up = gate + args.ffn_dim;
  const OutRow out = OutRow::of(args.out, args.out_bf16, row * args.out_stride);
  const Simd::F one = Simd::set(1.0F);
  for_each_lane_group(begin, end, [&](int64_t i, int64_t count) {
    const Simd::F g = load_up_to(gate + i, count);
    const Simd::F sigmoid = Simd::div(one, Simd::add(one, exp(Simd::sub(Simd::zero(), g))));
    out.store(i, Simd::mul(Simd::mul(g, sigmoid), load_up_to(up + i, count)), count);
  });
}

}  // namespace
}  // namespace kvcast
