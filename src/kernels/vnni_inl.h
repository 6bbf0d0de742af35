// int8 products with vpdpbusd, of AVX-512 VNNI or of AVX-VNNI. Included after the file's Simd.
#pragma once

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

/// The same of unsigned weights, u, and signed activations, for blocks. The sum starts at -128
/// times that of the activations; and as the last bits of a float as large as 2^23 times their
/// scale, so that the result is scaled when that is subtracted as a float. |sum| is below 2^20.
struct DotBlocksVnni : DotInt8Vnni {
  static Accumulator multiply_add(Accumulator c, Simd::I a, Simd::I w) {
    return DotInt8Vnni::multiply_add(c, w, a);
  }
  static Simd::I from_unsigned(Simd::I u) { return u; }
  static void store_header(std::byte* header, float scale, int32_t sum) {
    const float large = scale * 0x1.8p23F;
    uint32_t start;
    __builtin_memcpy(&start, &large, 4);
    start -= 128U * static_cast<uint32_t>(sum);
    __builtin_memcpy(header, &start, 4);
    __builtin_memcpy(header + 4, &large, 4);
  }
  static Simd::I begin(const std::byte* header) {
    return Simd::set_int(*reinterpret_cast<const int32_t*>(header));
  }
  static Simd::F end(Simd::I sum, const std::byte* header) {
    return Simd::sub(Simd::as_float(sum), Simd::set(*reinterpret_cast<const float*>(header + 4)));
  }
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

void set_vnni_products(KernelTable& t) {
  t.int8.group_bytes = 4;
  t.int8.convert = convert_unsigned_int8;
  set_product<DotInt8Vnni>(t.int8);
  set_block_products<DotBlocksVnni>(t, convert_blocks_vnni);
}

}  // namespace
}  // namespace kvcast
