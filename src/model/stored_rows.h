// The rows of a weight, wherever a file keeps its parts and as whatever it stores them.
#pragma once

#include <cstdint>
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

  /// Row `index`: [columns], of a vector [1].
  [[nodiscard]] TensorView row(int64_t index) const;

  /// What holds them as they are stored: f32, bf16 for the 16-bit types, GGUF's blocks of 4 bits as
  /// blocks of 4 bits, its others as blocks of 8.
  [[nodiscard]] WeightType type() const;

  /// empty() if memory runs out.
  [[nodiscard]] PackedMatrix pack(WeightType type, int threads) const;

 private:
  /// They lie one after the other in a type that PackedMatrix reads.
  [[nodiscard]] bool is_plain() const;
  /// Blocks of 32 can be had without loss.
  [[nodiscard]] bool has_blocks() const;

  const LayoutEntry& entry_;
  std::vector<TensorView> tensors_;
};

}  // namespace kvcast
