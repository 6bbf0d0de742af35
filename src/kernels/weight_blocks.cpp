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

/// u = 8 * code + zero is fitted to `weights` / step + 128. Returns the sum of squared errors.
float fit_int4(const float* weights, int64_t count, float step, int zero, uint8_t* codes) {
  const float inverse = 1.0F / (step * kInt4CodeStep);
  const float low = step * static_cast<float>(zero - 128);
  float error = 0.0F;
  for (int64_t i = 0; i < count; ++i) {
    const float code =
        round_to_whole(std::min(std::max((weights[i] - low) * inverse, 0.0F), kLargestCode));
    const float difference = code * step * kInt4CodeStep + low - weights[i];
    error += difference * difference;
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
  // u reaches from `zero`, at most 135, to zero + 120: the step that just holds all weights.
  const float whole =
      std::max({(range.high - range.low) / 120.0F, range.low / -128.0F, range.high / 127.0F});
  QuantisedBlock best;
  float best_error = std::numeric_limits<float>::infinity();
  const auto consider = [&](uint16_t step_bits, int shift) {
    const float step = f16_to_float(step_bits);
    if (step == 0.0F) return;
    const float middle = (range.low + range.high) / (2.0F * step);
    const int zero = static_cast<int>(round_to_whole(middle)) + 128 - 60 + shift;
    QuantisedBlock candidate{.step = step_bits};
    candidate.zero = static_cast<uint8_t>(std::clamp(zero, 0, 135));
    const float error = fit_int4(weights, count, step, candidate.zero, candidate.codes.data());
    if (error >= best_error) return;
    best_error = error;
    best = candidate;
  };
  // The largest weights may be cut if that serves the others.
  for (const float factor : {1.0F, 0.96F, 0.92F, 0.88F, 0.84F, 0.8F}) {
    consider(float_to_f16(whole * factor), 0);
  }
  const uint16_t step = best.step;
  for (const int shift : {-3, 3}) consider(step, shift);
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

/// Codes as they are; the minimum moves by at most a sixteenth of the scale.
bool keep_int4(const WeightBlock& block, QuantisedBlock& out) {
  out.step = float_to_f16(block.scale / kInt4CodeStep);
  const float step = f16_to_float(out.step);
  const float zero = block.minimum / step;
  if (step == 0.0F || !std::isfinite(step) || !(zero >= -128.0F && zero <= 7.0F)) return false;
  out.zero = static_cast<uint8_t>(static_cast<int>(round_to_whole(zero)) + 128);
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
  std::memcpy(panel_block + kInt4Zeros + column, &block.zero, 1);
}

void unpack_block(const std::byte* panel_block, WeightType type, int64_t column,
                  float (&out)[kWeightBlock]) {
  constexpr int64_t kRow = PackedMatrix::kGroupRowBytes;
  const bool int8 = type == WeightType::kInt8Blocks;
  uint16_t bits = 0;
  std::memcpy(&bits, panel_block + (int8 ? kInt8Steps : kInt4Steps) + column * 2, 2);
  const float step = f16_to_float(bits);
  const int zero = int8 ? 0 : static_cast<int>(panel_block[kInt4Zeros + column]);
  for (int64_t i = 0; i < kWeightBlock; ++i) {
    const int64_t group = i / 4;
    int u = 0;
    if (int8) {
      u = static_cast<int>(panel_block[group * kRow + column * 4 + i % 4]);
    } else {
      const auto both = static_cast<int>(panel_block[group / 2 * kRow + column * 4 + i % 4]);
      u = kInt4CodeStep * (group % 2 == 0 ? both & 15 : both >> 4) + zero;
    }
    out[i] = step * static_cast<float>(u - 128);
  }
}

}  // namespace kvcast
