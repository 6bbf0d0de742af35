// The layers of run_layers, cut at their products.
#include <cassert>

#include "model/transformer_run.h"

namespace kvcast {

SteppedRun::SteppedRun(const Transformer& model, float* rows,
                       std::span<const SequenceRows> sequences, Workspace& workspace)
    : model_(model),
      run_(new Transformer::Run{rows, sequences, options_, workspace, model.threads()}) {
  model.begin(*run_);
  workspace.gate_up.ensure(static_cast<size_t>(run_->total_rows * 2 * model.widest_.ffn));
  assert(run_->total_rows <= kFfnRowBlock);
}

SteppedRun::~SteppedRun() = default;

std::span<const MatmulArgs> SteppedRun::step() {
  Transformer::Run& run = *run_;
  Workspace& w = run.workspace;
  const LayerWeights& weights = model_.weights().layers[layer_];
  const int64_t rows = run.total_rows;
  const auto one = [&](const MatmulArgs& product) {
    run.products[0] = product;
    return std::span<const MatmulArgs>(run.products, 1);
  };
  switch (products_) {
    case Products::kNone:
      products_ = Products::kProjections;
      return model_.projections(run, layer_);
    case Products::kProjections:
      model_.store_key_values(run, layer_);
      products_ = Products::kOutput;
      return one(model_.attend(run, layer_));
    case Products::kOutput: {
      model_.norm_for_feed_forward(run, layer_, 0, rows);
      const ProductRows normed(w.normed, weights.proj_1);
      products_ = Products::kGateUp;
      return one({.a = normed.f32,
                  .a_bf16 = normed.bf16,
                  .a_stride = normed.stride,
                  .rows = rows,
                  .weight = &weights.proj_1,
                  .out = w.gate_up.data(),
                  .out_stride = weights.proj_1.n()});
    }
    case Products::kGateUp: {
      const ProductRows hidden(w.hidden, weights.proj_2);
      silu_mul({.gate_up = w.gate_up.data(),
                .gate_up_stride = weights.proj_1.n(),
                .out = hidden.f32,
                .out_bf16 = hidden.bf16,
                .out_stride = hidden.stride,
                .rows = rows,
                .ffn_dim = weights.proj_2.k()},
               model_.threads());
      products_ = Products::kDown;
      return one(model_.down_projection(run, layer_, 0, rows));
    }
    case Products::kDown:
      break;
  }
  ++layer_;
  products_ = Products::kNone;
  return {};
}

}  // namespace kvcast
