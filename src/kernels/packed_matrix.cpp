#include "kernels/packed_matrix.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "base/checked.h"
#include "base/half.h"
#include "base/team.h"
#include "kernels/memory.h"
#include "kernels/weight_blocks.h"

namespace kvcast {
namespace {

constexpr int64_t kColumns = PackedMatrix::kPanelColumns;
constexpr int64_t kRowBytes = PackedMatrix::kGroupRowBytes;

template <typename T>
T load_unaligned(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

size_t source_size(SourceType type) { return type == SourceType::kF32 ? 4 : 2; }

/// One row of the source as f32.
void row_to_float(const std::byte* row, SourceType type, int64_t k, float* out) {
  switch (type) {
    case SourceType::kF32:
      std::memcpy(out, row, static_cast<size_t>(k) * sizeof(float));
      return;
    case SourceType::kF16:
      for (int64_t i = 0; i < k; ++i) out[i] = f16_to_float(load_unaligned<uint16_t>(row + 2 * i));
      return;
    case SourceType::kBf16:
      for (int64_t i = 0; i < k; ++i) out[i] = bf16_to_float(load_unaligned<uint16_t>(row + 2 * i));
      return;
  }
}

struct QuantisedRow {
  float scale = 0.0F;
  int32_t sum = 0;
};

/// Symmetric per-channel quantisation of one row of W. A row that is not finite has no scale: its
/// column of every product is NaN, as it would be in f32.
QuantisedRow quantise_row(const float* row, int64_t k, int8_t* out) {
  float largest = 0.0F;
  bool finite = true;
  for (int64_t i = 0; i < k; ++i) {
    largest = std::max(largest, std::fabs(row[i]));
    finite &= std::isfinite(row[i]);
  }
  if (!finite) {
    std::fill_n(out, k, int8_t{0});
    return {std::numeric_limits<float>::quiet_NaN(), 0};
  }
  QuantisedRow result{largest / 127.0F, 0};
  const float inverse = largest >= kSmallestLargest ? 127.0F / largest : 0.0F;
  for (int64_t i = 0; i < k; ++i) {
    const auto q = static_cast<int32_t>(std::nearbyint(row[i] * inverse));
    out[i] = static_cast<int8_t>(std::clamp(q, -127, 127));
    result.sum += out[i];
  }
  return result;
}

/// Rows of W as they go into a panel: 4-byte groups in k order, zero-padded. [columns, groups]
class PanelRows {
 public:
  PanelRows(int64_t k, int64_t groups)
      : k_(k), groups_(groups), rows_(static_cast<size_t>(kColumns * groups)) {}

  void clear() { std::fill(rows_.begin(), rows_.end(), 0U); }
  [[nodiscard]] const uint32_t* row(int64_t column) const {
    return rows_.data() + column * groups_;
  }

  /// A row that is held as it is.
  void copy(int64_t column, const std::byte* source, size_t bytes) {
    std::memcpy(rows_.data() + column * groups_, source, bytes);
  }
  QuantisedRow convert(int64_t column, const float* values, WeightType type) {
    uint32_t* const out = rows_.data() + column * groups_;
    if (type == WeightType::kF32) {
      std::memcpy(out, values, static_cast<size_t>(k_) * sizeof(float));
      return {};
    }
    if (type == WeightType::kBf16) {
      auto* const halves = reinterpret_cast<uint16_t*>(out);
      for (int64_t i = 0; i < k_; ++i) halves[i] = float_to_bf16(values[i]);
      return {};
    }
    return quantise_row(values, k_, reinterpret_cast<int8_t*>(out));
  }

 private:
  int64_t k_, groups_;
  std::vector<uint32_t> rows_;
};

/// [columns, groups] -> [groups, columns], in squares that stay in the first-level cache.
void transpose_panel(const PanelRows& rows, int64_t groups, std::byte* panel) {
  constexpr int64_t kSquare = 16;
  auto* const out = reinterpret_cast<uint32_t*>(panel);
  for (int64_t g0 = 0; g0 < groups; g0 += kSquare) {
    for (int64_t c = 0; c < kColumns; ++c) {
      const uint32_t* const row = rows.row(c) + g0;
      for (int64_t g = 0; g < kSquare; ++g) out[(g0 + g) * kColumns + c] = row[g];
    }
  }
}

/// What a thread needs to pack panels.
struct PackingScratch {
  PanelRows rows;
  std::vector<float> floats;          // [k], of blocks: [elements at a time]
  std::vector<CodeBlock> blocks;      // [kBlocksAtATime]
  std::vector<ColumnBlocks> columns;  // [kColumnsAtATime]
};

/// A panel of f32, bf16 or int8. `source` writes row `row` as column `column`.
template <typename Source>
void pack_panel(const PackedMatrix& shape, int64_t p, PackingScratch& scratch, std::byte* panel,
                const Source& source) {
  const int64_t columns = std::min(kColumns, shape.n() - p * kColumns);
  if (columns < kColumns) scratch.rows.clear();
  float scales[kColumns] = {};
  int32_t sums[kColumns] = {};
  for (int64_t c = 0; c < columns; ++c) {
    const QuantisedRow quantised = source(p * kColumns + c, c);
    scales[c] = quantised.scale;
    sums[c] = quantised.sum;
  }
  transpose_panel(scratch.rows, shape.groups(), panel);
  if (shape.type() == WeightType::kInt8) {
    std::memcpy(panel + shape.groups() * kRowBytes, scales, sizeof(scales));
    std::memcpy(panel + (shape.groups() + 1) * kRowBytes, sums, sizeof(sums));
  }
}

/// Elements [begin, end) of row `row` in blocks.
void read_blocks(const WeightRows& source, int64_t row, int64_t begin, int64_t end, WeightType type,
                 PackingScratch& scratch, ColumnBlocks& out) {
  const int64_t count = end - begin;
  if (source.blocks) {
    const auto blocks = static_cast<size_t>((count + kWeightBlock - 1) / kWeightBlock);
    source.blocks(row, begin / kWeightBlock, std::span(scratch.blocks).first(blocks));
    convert_blocks(scratch.blocks.data(), count, type, out);
  } else {
    source.floats(row, begin, std::span(scratch.floats).first(static_cast<size_t>(count)));
    quantise_blocks(scratch.floats.data(), count, type, out);
  }
}

/// A panel of blocks, a line of columns and as many blocks as stay in the first-level cache at a
/// time.
void pack_block_panel(const PackedMatrix& shape, int64_t p, PackingScratch& scratch,
                      std::byte* panel, const WeightRows& source) {
  constexpr int64_t kElements = kBlocksAtATime * kWeightBlock;
  const int64_t columns = std::min(kColumns, shape.n() - p * kColumns);
  const int64_t block_bytes = PackedMatrix::unit_bytes(shape.type());
  for (int64_t begin = 0; begin < shape.padded_k(); begin += kElements) {
    const int64_t end = std::min(begin + kElements, shape.k());
    const int64_t blocks = std::min(kElements, shape.padded_k() - begin) / kWeightBlock;
    for (int64_t first = 0; first < kColumns; first += kColumnsAtATime) {
      for (int64_t c = 0; c < kColumnsAtATime; ++c) {
        ColumnBlocks& out = scratch.columns[static_cast<size_t>(c)];
        if (first + c < columns) {
          read_blocks(source, p * kColumns + first + c, begin, end, shape.type(), scratch, out);
        } else {
          out = {};
        }
      }
      store_blocks(std::span<const ColumnBlocks, kColumnsAtATime>(scratch.columns), blocks,
                   shape.type(), first, panel + begin / kWeightBlock * block_bytes);
    }
  }
}

}  // namespace

PackedMatrix::PackedMatrix(int64_t n, int64_t k, WeightType type) : n_(n), k_(k), type_(type) {
  const int64_t multiple = kGroupMultiple * group_size(type);
  padded_k_ = (k + multiple - 1) / multiple * multiple;
  panel_bytes_ = static_cast<size_t>(groups() / kUnitGroups * unit_bytes(type));
  if (type == WeightType::kInt8) panel_bytes_ += 2 * kRowBytes;
  bytes_ = panel_bytes_ * static_cast<size_t>(panels());
}

std::optional<size_t> PackedMatrix::packed_bytes(int64_t n, int64_t k, WeightType type) {
  constexpr int64_t kLargest = int64_t{1} << 40;
  if (n <= 0 || k <= 0 || n > kLargest || k > kLargest) return std::nullopt;
  // The padded matrix is at most this large; below the bound nothing in the constructor overflows.
  const auto bound = checked_multiply<int64_t>(n + kColumns, (k + 64) * 4 + 2 * 4);
  if (!bound) return std::nullopt;
  return PackedMatrix(n, k, type).bytes_;
}

template <typename PackPanel>
PackedMatrix PackedMatrix::pack_panels(int64_t n, int64_t k, WeightType type, int threads,
                                       const PackPanel& pack_one) {
  assert(n > 0 && k > 0 && threads > 0);
  PackedMatrix result(n, k, type);
  const std::shared_ptr<std::byte> data = allocate_weights(result.bytes_);
  if (data == nullptr) return {};
  std::vector<PackingScratch> workers;  // asked for here: nothing may throw among threads
  try {
    const bool blocks = is_blocks(type);
    const int64_t floats = blocks ? kBlocksAtATime * kWeightBlock : k;
    for (int i = 0; i < threads; ++i) {
      workers.push_back({PanelRows(k, blocks ? 0 : result.groups()),
                         std::vector<float>(static_cast<size_t>(floats)),
                         std::vector<CodeBlock>(blocks ? kBlocksAtATime : 0),
                         std::vector<ColumnBlocks>(blocks ? kColumnsAtATime : 0)});
    }
  } catch (const std::bad_alloc&) {
    return {};
  }
  parallel_for(result.panels(), threads, [&](int64_t p, int worker) {
    pack_one(result, p, workers[static_cast<size_t>(worker)],
             data.get() + static_cast<size_t>(p) * result.panel_bytes_);
  });
  result.data_ = data;
  return result;
}

PackedMatrix PackedMatrix::pack_rows(const WeightRows& rows, int64_t n, int64_t k, WeightType type,
                                     int threads) {
  const auto pack = [&](const PackedMatrix& shape, int64_t p, PackingScratch& scratch,
                        std::byte* panel) {
    if (is_blocks(type)) return pack_block_panel(shape, p, scratch, panel, rows);
    pack_panel(shape, p, scratch, panel, [&](int64_t row, int64_t column) {
      rows.floats(row, 0, scratch.floats);
      return scratch.rows.convert(column, scratch.floats.data(), type);
    });
  };
  return pack_panels(n, k, type, threads, pack);
}

PackedMatrix PackedMatrix::pack(const std::byte* source, SourceType source_type, int64_t n,
                                int64_t k, WeightType type, int threads) {
  const size_t row_bytes = static_cast<size_t>(k) * source_size(source_type);
  const bool same_bits = (type == WeightType::kF32 && source_type == SourceType::kF32) ||
                         (type == WeightType::kBf16 && source_type == SourceType::kBf16);
  if (!same_bits) {
    const auto floats = [=](int64_t row, int64_t begin, std::span<float> out) {
      const size_t offset = static_cast<size_t>(begin) * source_size(source_type);
      row_to_float(source + static_cast<size_t>(row) * row_bytes + offset, source_type,
                   static_cast<int64_t>(out.size()), out.data());
    };
    return pack_rows({.floats = floats}, n, k, type, threads);
  }
  const auto copy = [&](const PackedMatrix& shape, int64_t p, PackingScratch& scratch,
                        std::byte* panel) {
    pack_panel(shape, p, scratch, panel, [&](int64_t row, int64_t column) {
      scratch.rows.copy(column, source + static_cast<size_t>(row) * row_bytes, row_bytes);
      return QuantisedRow{};
    });
  };
  return pack_panels(n, k, type, threads, copy);
}

PackedMatrix PackedMatrix::adopt(std::shared_ptr<const std::byte> data, int64_t n, int64_t k,
                                 WeightType type) {
  assert(n > 0 && k > 0 && reinterpret_cast<uintptr_t>(data.get()) % 64 == 0);
  PackedMatrix result(n, k, type);
  result.data_ = std::move(data);
  return result;
}

void PackedMatrix::unpack_rows(std::span<const int32_t> indices, float* out, int threads) const {
  // A row is a line of memory for every group: waiting for them is what takes the time.
  parallel_for(
      static_cast<int64_t>(indices.size()), indices.size() < 4 ? 1 : threads, [&](int64_t i, int) {
        unpack_row(indices[static_cast<size_t>(i)], {out + i * k_, static_cast<size_t>(k_)});
      });
}

void PackedMatrix::unpack_row(int64_t index, std::span<float> out) const {
  assert(index >= 0 && index < n_ && static_cast<int64_t>(out.size()) == k_);
  const int64_t p = index / kColumns;
  const int64_t c = index % kColumns;
  const std::byte* const column = panel(p) + c * 4;
  switch (type_) {
    case WeightType::kF32:
      for (int64_t i = 0; i < k_; ++i) out[i] = load_unaligned<float>(column + i * kRowBytes);
      return;
    case WeightType::kBf16:
      for (int64_t i = 0; i < k_; ++i) {
        out[i] = bf16_to_float(load_unaligned<uint16_t>(column + i / 2 * kRowBytes + i % 2 * 2));
      }
      return;
    case WeightType::kInt8: {
      const float scale = scales(p)[c];
      for (int64_t i = 0; i < k_; ++i) {
        out[i] =
            scale * static_cast<float>(load_unaligned<int8_t>(column + i / 4 * kRowBytes + i % 4));
      }
      return;
    }
    case WeightType::kInt4Blocks:
    case WeightType::kInt8Blocks:
      for (int64_t i = 0; i < k_; i += kWeightBlock) {
        float weights[kWeightBlock];
        unpack_block(panel(p) + i / kWeightBlock * unit_bytes(type_), type_, c, weights);
        std::copy_n(weights, std::min(kWeightBlock, k_ - i), out.begin() + i);
      }
      return;
  }
}

}  // namespace kvcast
