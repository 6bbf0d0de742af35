// The rows of a weight, wherever a file keeps its parts and as whatever it stores them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "io/tensor.h"
#include "kernels/packed_matrix.h"
#include "model/layout.h"

namespace kvcast {

/// The less rounded of two types: what holds both.
WeightType finer(WeightType a, WeightType b);

/// Does not own the tensors, nor the entry.
class StoredRows {
 public:
  /// `tensors` are those of entry.parts, of the shapes that the parts say.
  StoredRows(const LayoutEntry& entry, std::vector<TensorView> tensors)
      : entry_(entry), tensors_(std::move(tensors)) {}

  /// Elements of row `row` from `begin` on, whole stored blocks of them; a vector's rows have one.
  void floats(int64_t row, int64_t begin, std::span<float> out) const;

  /// What holds them as they are stored: f32, bf16 for the 16-bit types, GGUF's blocks of 4 bits as
  /// blocks of 4 bits, its others as blocks of 8.
  [[nodiscard]] WeightType type() const;

  /// empty() if memory runs out.
  [[nodiscard]] PackedMatrix pack(WeightType type, int threads) const;

 private:
  struct Piece {
    DType dtype;
    std::span<const std::byte> bytes;
  };
  /// `count` elements of a row, as they are stored.
  [[nodiscard]] Piece piece(int64_t row, int64_t begin, int64_t count) const;
  /// They lie one after the other in a type that PackedMatrix reads.
  [[nodiscard]] bool is_plain() const;
  /// Blocks of 32 can be had without loss.
  [[nodiscard]] bool has_blocks() const;

  const LayoutEntry& entry_;
  std::vector<TensorView> tensors_;
};

}  // namespace kvcast
