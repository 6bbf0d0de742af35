// What transformer.cpp and stepped_run.cpp share.
#pragma once

#include <algorithm>
#include <cstdint>

#include "model/transformer.h"

namespace kvcast {

/// Rows that go through the FFN together: bounds the scratch memory, and is large enough for the
/// weights' traffic from memory to be small beside the arithmetic.
inline constexpr int64_t kFfnRowBlock = 256;

/// Rows on their way into a product, in a buffer for as many rows of f32: bf16 where the product
/// takes them (rows of 32 and more, which then leave room for the longer stride).
struct ProductRows {
  float* f32 = nullptr;
  uint16_t* bf16 = nullptr;  // then f32 is null
  int64_t stride = 0;

  ProductRows(AlignedBuffer<float>& buffer, const PackedMatrix& weight, bool must_be_f32 = false) {
    if (!must_be_f32 && takes_bf16_rows(weight)) {
      bf16 = reinterpret_cast<uint16_t*>(buffer.data());
      stride = bf16_row_stride(weight.k());
    } else {
      f32 = buffer.data();
      stride = weight.k();
    }
  }
  void copy_row(int64_t from, int64_t to, int64_t width) const {
    if (bf16 != nullptr) {
      std::copy_n(bf16 + from * stride, width, bf16 + to * stride);
    } else {
      std::copy_n(f32 + from * stride, width, f32 + to * stride);
    }
  }
};

/// State of one run_layers call.
struct Transformer::Run {
  /// Which rows go through attention and the FFN in the layer being run.
  enum class Attending { kAllRows, kLastRows, kNone };

  float* rows;  // [attending_rows(), model_dim], or what all of them will be
  std::span<const SequenceRows> sequences;  // in the order of their rows
  const RunLayersOptions& options;
  Workspace& workspace;
  int threads;
  int64_t total_rows = 0;
  Attending attending = Attending::kAllRows;
  MatmulArgs products[3] = {};  // those that a step is about

  /// How many rows of a sequence go through attention and the FFN: its last ones.
  [[nodiscard]] int64_t attending_of(const SequenceRows& sequence) const {
    return attending == Attending::kLastRows ? sequence.outputs : sequence.rows;
  }
  [[nodiscard]] int64_t attending_rows() const {
    if (attending != Attending::kLastRows) return total_rows;
    int64_t outputs = 0;
    for (const SequenceRows& sequence : sequences) outputs += sequence.outputs;
    return outputs;
  }

  /// All that decoding does, and nothing else: what ThreadChoice compares.
  [[nodiscard]] bool is_whole(const ModelConfig& config) const {
    return options.first == 0 && options.last == config.n_layers() &&
           options.output != LastLayerOutput::kNothing && !options.key_values_cached &&
           !options.on_raw_key_values && !options.on_attention;
  }
  [[nodiscard]] ThreadChoice::Work work() const {
    ThreadChoice::Work work{.rows = total_rows, .sequences = std::ssize(sequences)};
    for (const SequenceRows& sequence : sequences) work.context += sequence.first_position();
    return work;
  }

  [[nodiscard]] Attending attending_in(int64_t layer) const {
    if (layer + 1 < options.last) return Attending::kAllRows;
    if (options.output == LastLayerOutput::kNothing) return Attending::kNone;
    const bool all = std::ranges::all_of(
        sequences, [](const SequenceRows& sequence) { return sequence.outputs == sequence.rows; });
    return options.output == LastLayerOutput::kAllRows || all ? Attending::kAllRows
                                                              : Attending::kLastRows;
  }
};

}  // namespace kvcast
