#include "kernels/weight_blocks.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/clones.h"
#include "base/half.h"

namespace kvcast {
namespace {

constexpr float kLargestCode = 15.0F;
/// A weight of 100 times the largest f16 has a step; what is larger has not.
constexpr auto kLargestBits = std::bit_cast<uint32_t>(6550400.0F);
constexpr unsigned kInfiniteF16 = 0x7c00;
constexpr uint16_t kNanStep = 0x7e00;

/// To the nearest whole number for |x| < 2^22, in a form that compilers vectorise.
KVCAST_INLINE float round_to_whole(float x) {
  const float shifted = x + 12582912.0F;
  return shifted - 12582912.0F;
}

/// One feature's block.
struct QuantisedBlock {
  uint16_t step = 0;
  uint16_t minimum = 0;
  std::array<uint8_t, kWeightBlock> codes = {};
};

/// Sums that say which step and minimum fit codes best.
struct CodeSums {
  float codes = 0.0F, squares = 0.0F, weights = 0.0F, products = 0.0F;
};

/// The nearest codes for a step and a minimum, and what they sum to. Returns the sum of squared
/// errors.
float choose_codes(const float* weights, int64_t count, float step, float minimum, uint8_t* codes,
                   CodeSums& sums) {
  const float inverse = 1.0F / step;
  float error = 0.0F;
  sums = {};
  for (int64_t i = 0; i < count; ++i) {
    const float code =
        round_to_whole(std::min(std::max((weights[i] - minimum) * inverse, 0.0F), kLargestCode));
    const float difference = code * step + minimum - weights[i];
    error += difference * difference;
    sums.codes += code;
    sums.squares += code * code;
    sums.weights += weights[i];
    sums.products += code * weights[i];
    codes[i] = static_cast<uint8_t>(static_cast<int32_t>(code));
  }
  return error;
}

QuantisedBlock quantise_int4(const float* weights, int64_t count) {
  const auto [low, high] = std::minmax_element(weights, weights + count);
  const auto n = static_cast<float>(count);
  QuantisedBlock best{.step = kNanStep};  // where an f16 has no room for what the weights need
  float best_error = std::numeric_limits<float>::infinity();
  const auto consider = [&](float step, float minimum) {
    CodeSums sums;
    QuantisedBlock candidate{.step = float_to_f16(step), .minimum = float_to_f16(minimum)};
    step = f16_to_float(candidate.step);
    minimum = f16_to_float(candidate.minimum);
    if (!std::isfinite(step) || !std::isfinite(minimum)) return sums;
    if (step == 0.0F) {  // all weights are the same, or nearly
      float error = 0.0F;
      for (int64_t i = 0; i < count; ++i) {
        error += (minimum - weights[i]) * (minimum - weights[i]);
      }
      if (error < best_error) best = candidate;
      best_error = std::min(best_error, error);
      return sums;
    }
    const float error = choose_codes(weights, count, step, minimum, candidate.codes.data(), sums);
    if (error < best_error) {
      best_error = error;
      best = candidate;
    }
    return sums;
  };
  const float whole = (*high - *low) / kLargestCode;
  const float middle = (*high + *low) * 0.5F;
  // The largest weights may be cut if that serves the others; then the line of least squares
  // through the codes.
  for (const float factor : {1.0F, 0.95F, 0.9F, 0.85F, 0.8F}) {
    const float step = whole * factor;
    const CodeSums sums = consider(step, middle - 0.5F * kLargestCode * step);
    const float spread = n * sums.squares - sums.codes * sums.codes;
    if (spread <= 0.0F) continue;
    const float fitted = (n * sums.products - sums.codes * sums.weights) / spread;
    consider(fitted, (sums.weights - fitted * sums.codes) / n);
  }
  return best;
}

/// Of each block the bits of its largest magnitude: as whole numbers infinity and NaN are larger
/// than any other.
KVCAST_INLINE void largest_magnitudes(const float* weights, int64_t blocks, uint32_t* out) {
  for (int64_t b = 0; b < blocks; ++b) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < kWeightBlock; ++i) {
      const auto bits = std::bit_cast<uint32_t>(weights[b * kWeightBlock + i]);
      largest = std::max(largest, bits & 0x7fffffffU);
    }
    out[b] = largest;
  }
}

/// A block's largest weight gets the code 127 on either side of 128.
KVCAST_CLONES void quantise_int8(const float* weights, int64_t blocks, ColumnBlocks& out) {
  std::array<uint32_t, kBlocksAtATime> largest = {};
  largest_magnitudes(weights, blocks, largest.data());
  std::array<float, kBlocksAtATime> steps;
  for (size_t b = 0; b < steps.size(); ++b) {
    const uint16_t step = float_to_f16(std::bit_cast<float>(largest[b]) / 127.0F);
    const bool fits = largest[b] <= kLargestBits;
    out.steps[b] = fits ? step : kNanStep;
    steps[b] = fits ? f16_to_float(step) : 0.0F;
  }
  for (int64_t b = 0; b < blocks; ++b) {
    uint8_t* const codes = &out.codes[static_cast<size_t>(b * kWeightBlock)];
    const float step = steps[static_cast<size_t>(b)];
    if (step == 0.0F) {
      std::fill_n(codes, kWeightBlock, uint8_t{0});
      continue;
    }
    for (int64_t i = 0; i < kWeightBlock; ++i) {
      const float code = round_to_whole(weights[b * kWeightBlock + i] / step);
      const float low = code < -128.0F ? -128.0F : code;
      const float clamped = low > 127.0F ? 127.0F : low;
      codes[i] = static_cast<uint8_t>(static_cast<int32_t>(clamped) + 128);
    }
  }
}

/// At most one block of weights, quantised into block `b` of `out`.
void quantise_block(const float* weights, int64_t count, WeightType type, int64_t b,
                    ColumnBlocks& out) {
  float padded[kWeightBlock] = {};
  std::copy_n(weights, count, padded);
  uint32_t largest = 0;
  largest_magnitudes(padded, 1, &largest);
  QuantisedBlock block{.step = kNanStep};
  if (type == WeightType::kInt8Blocks) {
    ColumnBlocks one;
    quantise_int8(padded, 1, one);
    block.step = one.steps.front();
    std::copy_n(one.codes.begin(), count, block.codes.begin());
  } else if (largest <= kLargestBits) {
    block = quantise_int4(weights, count);
  }
  out.steps[static_cast<size_t>(b)] = block.step;
  out.minimums[static_cast<size_t>(b)] = block.minimum;
  std::ranges::copy(block.codes, out.codes.begin() + b * kWeightBlock);
}

/// Whether blocks are kept as they are: one bit each.
using Kept = uint32_t;
static_assert(kBlocksAtATime == 32);

KVCAST_CLONES Kept keep_int4(const CodeBlock* blocks, int64_t count, ColumnBlocks& out) {
  std::array<float, kBlocksAtATime> scales = {}, minimums = {};
  for (int64_t b = 0; b < count; ++b) {
    scales[static_cast<size_t>(b)] = blocks[b].scale;
    minimums[static_cast<size_t>(b)] = blocks[b].minimum;
    std::ranges::copy(blocks[b].codes, out.codes.begin() + b * kWeightBlock);
  }
  Kept kept = 0;
  for (size_t b = 0; b < kBlocksAtATime; ++b) {
    const uint16_t step = float_to_f16(scales[b]);
    const uint16_t minimum = float_to_f16(minimums[b]);
    out.steps[b] = step;
    out.minimums[b] = minimum;
    const unsigned size = step & 0x7fffU;
    const bool fits = size != 0 && size < kInfiniteF16 && (minimum & 0x7fffU) < kInfiniteF16;
    kept |= static_cast<Kept>(fits) << b;
  }
  return kept;
}

/// A minimum that is a whole number of times the scale moves the codes.
KVCAST_CLONES Kept keep_int8(const CodeBlock* blocks, int64_t count, ColumnBlocks& out) {
  Kept kept = 0;
  for (int64_t b = 0; b < count; ++b) {
    const CodeBlock& block = blocks[b];
    const uint16_t step = float_to_f16(block.scale);
    const float zero = block.minimum / block.scale;  // not finite where the scale is zero
    if (!(std::fabs(zero) < 1024.0F) || round_to_whole(zero) != zero) continue;
    if ((step & 0x7fffU) >= kInfiniteF16 || f16_to_float(step) != block.scale) continue;
    const int32_t shift = static_cast<int32_t>(zero) + 128;
    uint32_t beyond = 0;
    for (int64_t i = 0; i < kWeightBlock; ++i) {
      const auto code = static_cast<uint32_t>(block.codes[static_cast<size_t>(i)] + shift);
      beyond |= code;
      out.codes[static_cast<size_t>(b * kWeightBlock + i)] = static_cast<uint8_t>(code);
    }
    out.steps[static_cast<size_t>(b)] = step;
    kept |= static_cast<Kept>(beyond <= 255) << b;
  }
  return kept;
}

/// What is no weight of the first `count` becomes zero.
void clear_beyond(int64_t count, ColumnBlocks& out) {
  const int64_t blocks = (count + kWeightBlock - 1) / kWeightBlock;
  std::fill(out.codes.begin() + count, out.codes.end(), uint8_t{0});
  std::fill(out.steps.begin() + blocks, out.steps.end(), uint16_t{0});
  std::fill(out.minimums.begin() + blocks, out.minimums.end(), uint16_t{0});
}

}  // namespace

void quantise_blocks(const float* weights, int64_t count, WeightType type, ColumnBlocks& out) {
  int64_t b = 0;
  if (type == WeightType::kInt8Blocks) {
    b = count / kWeightBlock;
    quantise_int8(weights, b, out);
  }
  for (; b * kWeightBlock < count; ++b) {
    const int64_t begin = b * kWeightBlock;
    quantise_block(weights + begin, std::min(kWeightBlock, count - begin), type, b, out);
  }
  clear_beyond(count, out);
}

void convert_blocks(const CodeBlock* blocks, int64_t count, WeightType type, ColumnBlocks& out) {
  const int64_t n = (count + kWeightBlock - 1) / kWeightBlock;
  const Kept kept =
      type == WeightType::kInt4Blocks ? keep_int4(blocks, n, out) : keep_int8(blocks, n, out);
  for (int64_t b = 0; b < n; ++b) {
    if ((kept >> b & 1U) != 0) continue;
    const CodeBlock& block = blocks[b];
    float weights[kWeightBlock];
    for (size_t i = 0; i < kWeightBlock; ++i) {
      weights[i] = block.scale * static_cast<float>(block.codes[i]) + block.minimum;
    }
    quantise_block(weights, std::min(kWeightBlock, count - b * kWeightBlock), type, b, out);
  }
  clear_beyond(count, out);
}

void store_blocks(std::span<const ColumnBlocks, kColumnsAtATime> columns, int64_t blocks,
                  WeightType type, int64_t column, std::byte* panel_block) {
  constexpr int64_t kRow = PackedMatrix::kGroupRowBytes;
  const bool int8 = type == WeightType::kInt8Blocks;
  for (int64_t b = 0; b < blocks; ++b, panel_block += PackedMatrix::unit_bytes(type)) {
    const auto block = static_cast<size_t>(b);
    std::array<uint16_t, kColumnsAtATime> steps, minimums;
    for (size_t c = 0; c < kColumnsAtATime; ++c) {
      steps[c] = columns[c].steps[block];
      minimums[c] = columns[c].minimums[block];
    }
    std::memcpy(panel_block + (int8 ? kInt8Steps : kInt4Steps) + column * 2, &steps, sizeof steps);
    if (!int8) {
      std::memcpy(panel_block + kInt4Minimums + column * 2, &minimums, sizeof minimums);
    }
    const int64_t rows = int8 ? kBlockGroups : kBlockGroups / 2;
    for (int64_t row = 0; row < rows; ++row) {
      std::array<uint32_t, kColumnsAtATime> line;
      for (size_t c = 0; c < kColumnsAtATime; ++c) {
        const uint8_t* const codes = &columns[c].codes[block * kWeightBlock];
        std::array<uint32_t, 2> groups;  // with 4 bits the second one's codes are the upper halves
        if (int8) {
          std::memcpy(&line[c], codes + 4 * row, 4);
        } else {
          std::memcpy(&groups, codes + 8 * row, 8);
          line[c] = groups[0] | groups[1] << 4;
        }
      }
      std::memcpy(panel_block + row * kRow + column * 4, &line, sizeof line);
    }
  }
}

void unpack_block(const std::byte* panel_block, WeightType type, int64_t column,
                  float (&out)[kWeightBlock]) {
  constexpr int64_t kRow = PackedMatrix::kGroupRowBytes;
  const bool int8 = type == WeightType::kInt8Blocks;
  const auto f16_at = [&](int64_t offset) {
    uint16_t bits = 0;
    std::memcpy(&bits, panel_block + offset + column * 2, 2);
    return f16_to_float(bits);
  };
  const float step = f16_at(int8 ? kInt8Steps : kInt4Steps);
  const float minimum = int8 ? -128.0F * step : f16_at(kInt4Minimums);
  for (int64_t i = 0; i < kWeightBlock; ++i) {
    const int64_t group = i / 4;
    const auto byte =
        static_cast<int>(panel_block[(int8 ? group : group / 2) * kRow + column * 4 + i % 4]);
    const int code = int8 ? byte : group % 2 == 0 ? byte & 15 : byte >> 4;
    out[i] = step * static_cast<float>(code) + minimum;
  }
}

}  // namespace kvcast
