// int8 products with vpdpbusd, of AVX-512 VNNI or of AVX-VNNI. Included after the file's Simd.
#pragma once

#include "kernels/attention_int8_inl.h"
#include "kernels/gemm_blocks_inl.h"
#include "kernels/table_inl.h"

namespace kvcast {
namespace {

/// Four products of unsigned activations (q + 128) and signed weights per lane.
struct DotInt8Vnni : DotInt8<128> {
  static constexpr int kSteps = 1;
  template <int kStep>
  static Simd::I expand(Simd::I b) {
    return b;
  }
  static Accumulator multiply_add(Accumulator c, Simd::I a, Simd::I b) {
    // GCC 12 copies the sums of its own intrinsic from register to register, and spills some.
    if constexpr (Simd::kWidth == 16) {
      __asm__("vpdpbusd %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
    } else {  // in the encoding of processors without AVX-512
      __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(c) : "x"(a), "x"(b));
    }
    return c;
  }
};

/// The same of unsigned weights and signed activations, for blocks.
struct DotBlocksVnni : DotInt8Vnni {
  static constexpr bool kUnsignedBytes = true;
  static Accumulator multiply_add(Accumulator c, Simd::I a, Simd::I w) {
    return DotInt8Vnni::multiply_add(c, w, a);
  }
  static Simd::I from_unsigned(Simd::I u) { return u; }
};

void convert_unsigned_int8(const ConvertArgs& c) {
  convert_int8(c, [](std::byte* out, int64_t i, Simd::I q) {
    Simd::store_bytes(out + i, Simd::xor_int(q, Simd::set_int(0x80)));
  });
}

void convert_blocks_vnni(const ConvertArgs& c) {
  convert_to_blocks<DotBlocksVnni>(
      c, [](std::byte* out, int64_t i, Simd::I q) { Simd::store_bytes(out + i, q); });
}

/// vpdpwssd: a pair of 16-bit products per lane.
struct DotPairsVnni : DotPairs {
  static Accumulator multiply_add(Accumulator c, Simd::I a, Simd::I b) {
    if constexpr (Simd::kWidth == 16) {
      __asm__("vpdpwssd %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
    } else {
      __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(c) : "x"(a), "x"(b));
    }
    return c;
  }
};

inline void set_vnni_products(KernelTable& t) {
  t.attention_int8 = attention_kernels<CacheInt8<DotPairsVnni>>();
  t.int8.group_bytes = 4;
  t.int8.convert = convert_unsigned_int8;
  set_product<DotInt8Vnni>(t.int8);
  set_block_products<DotBlocksVnni>(t, convert_blocks_vnni);
}

}  // namespace
}  // namespace kvcast
