#include "io/code_blocks.h"

#include <array>
#include <cassert>
#include <cstring>

#include "base/clones.h"
#include "base/half.h"
#include "base/inline.h"

namespace kvcast {
namespace {

constexpr int kHalf = CodeBlock::kElements / 2;

KVCAST_INLINE uint8_t byte_at(const std::byte* bytes, int64_t i) {
  return std::to_integer<uint8_t>(bytes[i]);
}

KVCAST_INLINE float half_at(const std::byte* bytes) {
  uint16_t bits = 0;
  std::memcpy(&bits, bytes, sizeof bits);
  return f16_to_float(bits);
}

/// 16 bytes to 32 codes of 4 bits: low halves first, then high ones.
KVCAST_INLINE void unpack_nibbles(const std::byte* packed, uint8_t* codes) {
  for (int i = 0; i < kHalf; ++i) {
    codes[i] = byte_at(packed, i) & 0x0FU;
    codes[i + kHalf] = byte_at(packed, i) >> 4;
  }
}

/// Adds each code's fifth bit, bit i of 32 for code i.
KVCAST_INLINE void add_fifth_bits(const std::byte* packed, uint8_t* codes) {
  uint32_t bits = 0;
  std::memcpy(&bits, packed, sizeof bits);
  for (int i = 0; i < CodeBlock::kElements; ++i) {
    codes[i] = static_cast<uint8_t>(codes[i] | (((bits >> i) & 1U) << 4));
  }
}

// Each type: `kBlocks` CodeBlocks in one stored block of `kBytes`. Types with an offset store codes
// that mean scale * (code - offset); the others store a minimum.

struct Q40 {
  static constexpr int kBlocks = 1, kBytes = 18, kBits = 4, kOffset = 8;
  static KVCAST_INLINE void decode(const std::byte* in, CodeBlock* out) {
    out->scale = half_at(in);
    unpack_nibbles(in + 2, out->codes.data());
  }
};

struct Q41 {
  static constexpr int kBlocks = 1, kBytes = 20, kBits = 4, kOffset = 0;
  static KVCAST_INLINE void decode(const std::byte* in, CodeBlock* out) {
    out->scale = half_at(in);
    out->minimum = half_at(in + 2);
    unpack_nibbles(in + 4, out->codes.data());
  }
};

struct Q50 {
  static constexpr int kBlocks = 1, kBytes = 22, kBits = 5, kOffset = 16;
  static KVCAST_INLINE void decode(const std::byte* in, CodeBlock* out) {
    out->scale = half_at(in);
    unpack_nibbles(in + 6, out->codes.data());
    add_fifth_bits(in + 2, out->codes.data());
  }
};

struct Q51 {
  static constexpr int kBlocks = 1, kBytes = 24, kBits = 5, kOffset = 0;
  static KVCAST_INLINE void decode(const std::byte* in, CodeBlock* out) {
    out->scale = half_at(in);
    out->minimum = half_at(in + 2);
    unpack_nibbles(in + 8, out->codes.data());
    add_fifth_bits(in + 4, out->codes.data());
  }
};

struct Q80 {
  static constexpr int kBlocks = 1, kBytes = 34, kBits = 8, kOffset = 128;
  static KVCAST_INLINE void decode(const std::byte* in, CodeBlock* out) {
    out->scale = half_at(in);
    for (int i = 0; i < CodeBlock::kElements; ++i) {
      out->codes[i] = byte_at(in + 2, i) ^ 0x80U;  // two's complement plus 128
    }
  }
};

struct Iq4Nl {
  static constexpr int kBlocks = 1, kBytes = 18, kBits = 8, kOffset = 128;
  static KVCAST_INLINE void decode(const std::byte* in, CodeBlock* out) {
    // Levels denser around zero, as most weights are; plus 128.
    constexpr std::array<uint8_t, 16> kLevels = {1,   24,  45,  63,  79,  93,  106, 118,
                                                 129, 141, 153, 166, 181, 197, 217, 241};
    out->scale = half_at(in);
    unpack_nibbles(in + 2, out->codes.data());
    for (uint8_t& code : out->codes) code = kLevels[code];
  }
};

constexpr int kSuperBlock = 8;  // CodeBlocks that share the scale of scales in Q4_K and Q5_K

/// Scales and minima of a super-block: two halves, then 12 bytes of 6-bit numbers, of which the
/// last four scales and minima are spread over the third four bytes and the others' high bits.
KVCAST_INLINE void decode_scales(const std::byte* in, CodeBlock* out) {
  const float scale = half_at(in), minimum = half_at(in + 2);
  const std::byte* packed = in + 4;
  for (int i = 0; i < kSuperBlock / 2; ++i) {
    const unsigned low = byte_at(packed, i), middle = byte_at(packed, i + 4);
    const unsigned high = byte_at(packed, i + 8);
    out[i].scale = scale * static_cast<float>(low & 0x3FU);
    out[i].minimum = -(minimum * static_cast<float>(middle & 0x3FU));
    out[i + 4].scale = scale * static_cast<float>((high & 0x0FU) | ((low >> 2) & 0x30U));
    out[i + 4].minimum = -(minimum * static_cast<float>((high >> 4) | ((middle >> 2) & 0x30U)));
  }
}

/// 32 bytes hold the low halves of one block's codes and the high ones of the next.
KVCAST_INLINE void unpack_nibble_pairs(const std::byte* packed, CodeBlock* out) {
  for (int pair = 0; pair < kSuperBlock / 2; ++pair) {
    for (int i = 0; i < CodeBlock::kElements; ++i) {
      const uint8_t both = byte_at(packed, pair * CodeBlock::kElements + i);
      out[2 * pair].codes[i] = both & 0x0FU;
      out[2 * pair + 1].codes[i] = both >> 4;
    }
  }
}

struct Q4K {
  static constexpr int kBlocks = kSuperBlock, kBytes = 144, kBits = 4, kOffset = 0;
  static KVCAST_INLINE void decode(const std::byte* in, CodeBlock* out) {
    decode_scales(in, out);
    unpack_nibble_pairs(in + 16, out);
  }
};

struct Q5K {
  static constexpr int kBlocks = kSuperBlock, kBytes = 176, kBits = 5, kOffset = 0;
  static KVCAST_INLINE void decode(const std::byte* in, CodeBlock* out) {
    decode_scales(in, out);
    unpack_nibble_pairs(in + 48, out);
    for (int block = 0; block < kSuperBlock; ++block) {
      for (int i = 0; i < CodeBlock::kElements; ++i) {
        const unsigned fifth = (byte_at(in + 16, i) >> block) & 1U;
        out[block].codes[i] = static_cast<uint8_t>(out[block].codes[i] | (fifth << 4));
      }
    }
  }
};

/// Calls `visit` with the type's description; false where `dtype` is no CodeBlocks.
template <typename Visitor>
KVCAST_INLINE constexpr bool with_block_type(DType dtype, Visitor visit) {
  switch (dtype) {
    case DType::kQ4_0:
      visit(Q40{});
      return true;
    case DType::kQ4_1:
      visit(Q41{});
      return true;
    case DType::kQ5_0:
      visit(Q50{});
      return true;
    case DType::kQ5_1:
      visit(Q51{});
      return true;
    case DType::kQ8_0:
      visit(Q80{});
      return true;
    case DType::kIq4Nl:
      visit(Iq4Nl{});
      return true;
    case DType::kQ4K:
      visit(Q4K{});
      return true;
    case DType::kQ5K:
      visit(Q5K{});
      return true;
    default:
      return false;
  }
}

/// 256 codes of 6 bits with a scale for each 16: 128 bytes of low halves, 64 of upper two bits, 16
/// signed scales, the scale of scales. Each half of the codes is four runs of 32.
KVCAST_INLINE void dequantize_q6k(const std::byte* in, float* out) {
  constexpr int kCodes = 256, kRun = 32, kShared = 16;
  std::array<int8_t, kCodes> codes;
  for (int run = 0; run < kCodes / kRun; ++run) {
    const int half = run / 4, quarter = run % 4;
    const std::byte* const low = in + half * 64 + (quarter % 2) * kRun;
    const std::byte* const high = in + 128 + half * kRun;
    for (int i = 0; i < kRun; ++i) {
      const unsigned nibble = (byte_at(low, i) >> (quarter / 2 * 4)) & 0x0FU;
      const unsigned upper = (byte_at(high, i) >> (2 * quarter)) & 3U;
      codes[run * kRun + i] = static_cast<int8_t>(static_cast<int>(nibble | (upper << 4)) - 32);
    }
  }
  for (int i = 0; i < kCodes; ++i) out[i] = static_cast<float>(codes[i]);
  const float scale = half_at(in + 208);
  for (int group = 0; group < kCodes / kShared; ++group) {
    const auto own = static_cast<int8_t>(byte_at(in + 192, group));
    const float step = scale * static_cast<float>(own);
    for (int i = 0; i < kShared; ++i) out[group * kShared + i] *= step;
  }
}

}  // namespace

bool has_code_blocks(DType dtype) {
  return with_block_type(dtype, [](auto) {});
}

int code_bits(DType dtype) {
  int bits = 0;
  with_block_type(dtype, [&](auto type) KVCAST_LAMBDA_INLINE { bits = type.kBits; });
  assert(bits != 0);
  return bits;
}

KVCAST_CLONES void decode_blocks(DType dtype, std::span<const std::byte> bytes,
                                 std::span<CodeBlock> out) {
  with_block_type(dtype, [&](auto type) KVCAST_LAMBDA_INLINE {
    assert(bytes.size() / type.kBytes * type.kBlocks == out.size());
    const std::byte* in = bytes.data();
    for (size_t i = 0; i < out.size(); i += type.kBlocks, in += type.kBytes) {
      type.decode(in, &out[i]);
      if constexpr (type.kOffset != 0) out[i].minimum = -out[i].scale * type.kOffset;
    }
  });
}

KVCAST_CLONES void dequantize(DType dtype, std::span<const std::byte> bytes, std::span<float> out) {
  const std::byte* in = bytes.data();
  const std::byte* end = in + bytes.size();
  float* next = out.data();
  if (dtype == DType::kQ6K) {
    for (; in != end; in += 210, next += 256) dequantize_q6k(in, next);
    return;
  }
  const bool known = with_block_type(dtype, [&](auto type) KVCAST_LAMBDA_INLINE {
    for (; in != end; in += type.kBytes) {
      std::array<CodeBlock, type.kBlocks> blocks;
      type.decode(in, blocks.data());
      for (const CodeBlock& block : blocks) {
        for (const uint8_t code : block.codes) {
          *next++ = type.kOffset != 0 ? block.scale * static_cast<float>(int{code} - type.kOffset)
                                      : block.scale * static_cast<float>(code) + block.minimum;
        }
      }
    }
  });
  assert(known && next == out.data() + out.size());
  (void)known;
}

}  // namespace kvcast
