#include "kernels/weight_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/half.h"

namespace kvcast {
namespace {

constexpr float kLargestCode = 15.0F;
constexpr float kLargestF16 = 65504.0F;
constexpr uint16_t kNanStep = 0x7e00;

/// To the nearest whole number for |x| < 2^22, in a form that compilers vectorise.
float round_to_whole(float x) {
  const float shifted = x + 12582912.0F;
  return shifted - 12582912.0F;
}

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

struct Range {
  float low = 0.0F, high = 0.0F;
  bool finite = true;
};

Range range_of(const float* weights, int64_t count) {
  Range range{weights[0], weights[0], true};
  for (int64_t i = 0; i < count; ++i) {
    range.low = std::min(range.low, weights[i]);
    range.high = std::max(range.high, weights[i]);
    range.finite &= std::isfinite(weights[i]);
  }
  return range;
}

QuantisedBlock quantise_int4(const float* weights, int64_t count, const Range& range) {
  const auto n = static_cast<float>(count);
  QuantisedBlock best;
  float best_error = std::numeric_limits<float>::infinity();
  const auto consider = [&](float step, float minimum) {
    CodeSums sums;
    QuantisedBlock candidate{.step = float_to_f16(step), .minimum = float_to_f16(minimum)};
    step = f16_to_float(candidate.step);
    minimum = f16_to_float(candidate.minimum);
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
  const float whole = (range.high - range.low) / kLargestCode;
  const float middle = (range.high + range.low) * 0.5F;
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

QuantisedBlock quantise_int8(const float* weights, int64_t count, const Range& range) {
  QuantisedBlock block;
  block.step = float_to_f16(std::max(range.high, -range.low) / 127.0F);
  const float step = f16_to_float(block.step);
  if (step == 0.0F) return {};
  for (int64_t i = 0; i < count; ++i) {
    const float code = std::clamp(round_to_whole(weights[i] / step), -128.0F, 127.0F);
    block.codes[i] = static_cast<uint8_t>(static_cast<int32_t>(code) + 128);
  }
  return block;
}

/// Whether `value` is a whole number, which then is `whole`.
bool is_whole(float value, int& whole) {
  if (!(std::fabs(value) < 1024.0F)) return false;
  whole = static_cast<int>(round_to_whole(value));
  return static_cast<float>(whole) == value;
}

bool keep_int4(const WeightBlock& block, QuantisedBlock& out) {
  out.step = float_to_f16(block.scale);
  out.minimum = float_to_f16(block.minimum);
  const float step = f16_to_float(out.step);
  if (step == 0.0F || !std::isfinite(step) || !std::isfinite(f16_to_float(out.minimum))) {
    return false;
  }
  std::copy_n(block.codes, kWeightBlock, out.codes.begin());
  return true;
}

bool keep_int8(const WeightBlock& block, int64_t count, QuantisedBlock& out) {
  int zero = 0;
  if (block.scale == 0.0F || !is_whole(block.minimum / block.scale, zero)) return false;
  out.step = float_to_f16(block.scale);
  if (f16_to_float(out.step) != block.scale || !std::isfinite(block.scale)) return false;
  for (int64_t i = 0; i < count; ++i) {
    const int code = block.codes[i] + zero + 128;
    if (code < 0 || code > 255) return false;
    out.codes[static_cast<size_t>(i)] = static_cast<uint8_t>(code);
  }
  return true;
}

}  // namespace

QuantisedBlock quantise_block(const float* weights, int64_t count, WeightType type) {
  const Range range = range_of(weights, count);
  const float largest = std::max(range.high, -range.low);
  if (!range.finite || largest > kLargestF16 * 100.0F) return {.step = kNanStep};
  return type == WeightType::kInt4Blocks ? quantise_int4(weights, count, range)
                                         : quantise_int8(weights, count, range);
}

QuantisedBlock convert_block(const WeightBlock& block, int64_t count, WeightType type) {
  QuantisedBlock kept;
  const bool keeps =
      type == WeightType::kInt4Blocks ? keep_int4(block, kept) : keep_int8(block, count, kept);
  if (keeps) return kept;
  float weights[kWeightBlock];
  for (int64_t i = 0; i < kWeightBlock; ++i) {
    weights[i] = block.scale * static_cast<float>(block.codes[i]) + block.minimum;
  }
  return quantise_block(weights, count, type);
}

void store_block(const QuantisedBlock& block, WeightType type, int64_t column,
                 std::byte* panel_block) {
  constexpr int64_t kRow = PackedMatrix::kGroupRowBytes;
  if (type == WeightType::kInt8Blocks) {
    for (int64_t g = 0; g < kBlockGroups; ++g) {
      std::memcpy(panel_block + g * kRow + column * 4, &block.codes[static_cast<size_t>(4 * g)], 4);
    }
    std::memcpy(panel_block + kInt8Steps + column * 2, &block.step, 2);
    return;
  }
  for (int64_t pair = 0; pair < kBlockGroups / 2; ++pair) {
    uint32_t even = 0;
    uint32_t odd = 0;
    std::memcpy(&even, &block.codes[static_cast<size_t>(8 * pair)], 4);
    std::memcpy(&odd, &block.codes[static_cast<size_t>(8 * pair + 4)], 4);
    const uint32_t both = even | odd << 4;
    std::memcpy(panel_block + pair * kRow + column * 4, &both, 4);
  }
  std::memcpy(panel_block + kInt4Steps + column * 2, &block.step, 2);
  std::memcpy(panel_block + kInt4Minimums + column * 2, &block.minimum, 2);
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
