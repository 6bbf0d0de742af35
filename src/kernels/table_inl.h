// The part of a kernel table that every instruction set builds from its Simd in the same way.
#pragma once

#include "kernels/attention_inl.h"
#include "kernels/convert_inl.h"
#include "kernels/dot_inl.h"
#include "kernels/dot_int8_inl.h"
#include "kernels/elementwise_inl.h"

namespace kvcast {
namespace {

/// The value may have changed, as far as the compiler knows.
template <typename T>
KVCAST_INLINE void hide(T& value) {
  if constexpr (requires { value[0]; }) {
#if defined(__x86_64__)
    __asm__ volatile("" : "+v"(value));
#elif defined(__aarch64__)
    __asm__ volatile("" : "+w"(value));
#endif
  } else {
    __asm__ volatile("" : "+m"(value));
  }
}

/// The products of a register tile without its loads: as many independent chains as the kernels
/// have keep every pipeline full (Zen 5 needs 12 for vdpbf16ps: 6 cycles, two a cycle) and stay in
/// registers, where a spilled one would measure the stores.
template <class Dot>
double spin_dot(int64_t iterations, double operations_per_lane) {
  constexpr int kChains = Simd::kTileRows * Simd::kTileVectors;
  typename Dot::Accumulator acc[kChains];
  alignas(64) std::byte data[64] = {};
  auto a = Dot::activation(data);
  auto b = Dot::template expand<0>(Dot::weights(data));
  KVCAST_UNROLL
  for (int i = 0; i < kChains; ++i) {
    acc[i] = Dot::zero();
    hide(acc[i]);  // else equal chains would be computed once
  }
  for (int64_t n = 0; n < iterations; ++n) {
    KVCAST_UNROLL
    for (int i = 0; i < kChains; ++i) {
      hide(a);  // else what all products have in common would be computed once
      hide(b);
      acc[i] = Dot::multiply_add(acc[i], a, b);
    }
  }
  KVCAST_UNROLL
  for (int i = 0; i < kChains; ++i) {
    Dot::store(data, acc[i]);
    __asm__ volatile("" ::"r"(data) : "memory");
  }
  return static_cast<double>(iterations) * kChains * Simd::kWidth * operations_per_lane;
}

/// Reads and folds memory: eight independent chains of one vector each, fetched ahead as the
/// kernels fetch weights.
uint64_t read_bytes(const std::byte* data, size_t bytes) {
  constexpr size_t kVector = Simd::kWidth * 4;
  Simd::I fold[8];
  for (Simd::I& x : fold) x = Simd::zero_int();
  for (size_t i = 0; i + 8 * kVector <= bytes; i += 8 * kVector) {
    KVCAST_UNROLL
    for (size_t j = 0; j < 8 * kVector; j += 64) {
      __builtin_prefetch(data + i + j + Prefetch::kReadAhead, 0, 2);
    }
    KVCAST_UNROLL
    for (size_t j = 0; j < 8; ++j) {
      fold[j] = Simd::xor_int(fold[j], Simd::load_int(data + i + j * kVector));
    }
  }
  for (int j = 1; j < 8; ++j) fold[0] = Simd::xor_int(fold[0], fold[j]);
  alignas(64) uint64_t words[kVector / 8];
  Simd::store_int(reinterpret_cast<std::byte*>(words), fold[0]);
  return words[0] ^ words[1];
}

template <class Cache>
AttentionKernels attention_kernels() {
  constexpr bool kHalves = Cache::kPerGroup == 2;
  return {
      .bf16_operands = kHalves && !Cache::kIntegers,
      .int16_operands = Cache::kIntegers,
      .attend = attend<Cache>,
      .spin = [](int64_t n) { return spin_dot<typename Cache::Dot>(n, 2.0 * Cache::kPerGroup); },
      .last_row = last_row_probabilities<Cache>};
}

/// Everything but int8 products; more capable sets replace what they do better.
inline KernelTable base_table(Isa isa) {  // inline: not every file that has it takes it
  KernelTable t;
  t.isa = isa;
  t.f32.f32_activations = true;
  t.f32.convert = convert_f32<1>;
  set_product<DotF32>(t.f32);
  t.bf16.f32_activations = true;
  t.bf16.group_bytes = 8;
  t.bf16.convert = convert_f32<2>;
  set_product<DotBf16Widened>(t.bf16);
  for (MatmulKernels* m : {&t.f32, &t.bf16, &t.int8}) {
    m->row_multiple = Simd::kTileRows;
    m->scratch_bytes = scratch_bytes;
  }
  t.rms_norm = rms_norm_rows;
  t.head_norm_rope = head_norm_rope_rows;
  t.silu_mul = silu_mul_columns;
  t.attend_scratch_bytes = attend_scratch_bytes;
  t.attention_f32 = attention_kernels<CacheF32>();
  t.attention_bf16 = attention_kernels<CacheBf16Widened>();
  t.attention_int8 = attention_kernels<CacheInt8Widened>();
  t.merge = merge_chunks;
  t.read = read_bytes;
  return t;
}

}  // namespace
}  // namespace kvcast
