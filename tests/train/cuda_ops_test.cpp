// The operations on a GPU in bf16 against the plain ones on the CPU in f32, gradients included.
// Skipped without a GPU.
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "model/config.h"
#include "train/cross_entropy.h"
#include "train/ops.h"
#include "train/optimizer.h"
#include "train/parameters.h"

namespace kvcast::train {
namespace {

using Tensors = std::vector<Tensor>;
/// From inputs to outputs; the RoPE table is on the inputs' device.
using Operation = std::function<Tensors(const Tensors&, const RopeTable&)>;

constexpr int64_t kPositions = 96, kHeadDim = 64;

class CudaOps : public testing::Test {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "no CUDA device";
    at::manual_seed(7);
  }

  static Tensor random(at::IntArrayRef shape) {
    return at::randn(shape).to(at::kBFloat16).to(at::kFloat);  // what both sides can hold
  }

  /// Outputs and gradients of both sides, each within `tolerance` of the reference's norm.
  static void compare(const Operation& operation, const Tensors& inputs, double tolerance = 8e-3) {
    const at::Device gpu(at::kCUDA, 0);
    Tensors outputs[2], gradients[2];
    for (int side = 0; side < 2; ++side) {
      const auto device = side == 0 ? at::Device(at::kCPU) : gpu;
      Tensors leaves;
      for (const Tensor& input : inputs) {
        leaves.push_back(input.to(device, side == 0 ? at::kFloat : at::kBFloat16)
                             .detach()
                             .clone()
                             .set_requires_grad(true));
      }
      const RopeTable rope = make_rope_table(kPositions, Rope{}.frequencies(kHeadDim), device);
      outputs[side] = operation(leaves, rope);
      at::manual_seed(11);
      Tensor total;
      for (const Tensor& output : outputs[side]) {
        const Tensor direction = at::randn(output.sizes()).to(at::kBFloat16).to(at::kFloat);
        const Tensor term = (output.to(at::kFloat) * direction.to(device)).sum();
        total = total.defined() ? total + term : term;
      }
      total.backward();
      for (const Tensor& leaf : leaves) gradients[side].push_back(leaf.grad());
    }
    for (size_t i = 0; i < outputs[0].size(); ++i) {
      EXPECT_LT(relative(outputs[1][i], outputs[0][i]), tolerance) << "output " << i;
    }
    for (size_t i = 0; i < gradients[0].size(); ++i) {
      ASSERT_TRUE(gradients[1][i].defined()) << "gradient " << i;
      EXPECT_LT(relative(gradients[1][i], gradients[0][i]), tolerance) << "gradient " << i;
    }
  }

  static double relative(const Tensor& found, const Tensor& expected) {
    const Tensor wide = expected.detach().to(at::kDouble);
    const Tensor difference = found.detach().to(at::kCPU).to(at::kDouble) - wide;
    return (difference.norm() / (wide.norm() + 1e-12)).item<double>();
  }
};

TEST_F(CudaOps, RmsNormMeetsThePlainOneAtOddRowsAndWidths) {
  for (const int64_t width : {8, 64, 280, 640, 1280, 2048, 3072, 4096}) {
    SCOPED_TRACE(width);
    compare([](const Tensors& in,
               const RopeTable&) -> Tensors { return {rms_norm(in[0], in[1], 1e-6)}; },
            {random({3, 37, width}), random({width})});
  }
}

TEST_F(CudaOps, RmsNormOfASumPassesTheResidualsGradientOn) {
  compare(
      [](const Tensors& in, const RopeTable&) -> Tensors {
        const auto [sum, normed] = add_rms_norm(in[0], in[1], in[2], 1e-6);
        return {normed, sum};
      },
      {random({5, 41, 640}), random({5, 41, 640}), random({640})});
  // The last norm of a model: nobody reads the sum.
  compare(
      [](const Tensors& in, const RopeTable&) -> Tensors {
        return {add_rms_norm(in[0], in[1], in[2], 1e-6).normed};
      },
      {random({5, 41, 640}), random({5, 41, 640}), random({640})});
}

TEST_F(CudaOps, HeadNormAndRopeReadSlicesOfAProjection) {
  const Tensor projection = random({2, 33, 9 * kHeadDim}), weight = random({kHeadDim});
  for (const int64_t first : {0, 50}) {
    compare(
        [first](const Tensors& in, const RopeTable& rope) -> Tensors {
          const auto heads = in[0].view({2, 33, 9, kHeadDim}).split_with_sizes({6, 2, 1}, 2);
          return {head_norm_rope(heads[0], in[1], 1e-6, &rope, first),
                  head_norm_rope(heads[1], in[1], 1e-6, nullptr),
                  apply_rope(heads[2], rope, first)};
        },
        {projection, weight});
  }
}

TEST_F(CudaOps, SwigluMeetsThePlainOne) {
  compare([](const Tensors& in, const RopeTable&) -> Tensors { return {swiglu(in[0])}; },
          {random({3, 29, 2 * 1280})});
}

TEST_F(CudaOps, AttentionHasGroupedHeadsAndKeysBeforeTheFirstQuery) {
  for (const int64_t queries : {1, 17, 61}) {
    SCOPED_TRACE(queries);
    compare([](const Tensors& in,
               const RopeTable&) -> Tensors { return {causal_attention(in[0], in[1], in[2])}; },
            {random({2, queries, 8, kHeadDim}), random({2, 61, 2, kHeadDim}),
             random({2, 61, 2, kHeadDim})},
            1.2e-2);
  }
}

TEST_F(CudaOps, CrossEntropyLeavesOutIgnoredRows) {
  const Tensor targets = at::randint(0, 1000, {130}, at::kLong);
  targets.narrow(0, 100, 7).fill_(-100);
  for (const int64_t chunk : {0, 50000}) {
    CrossEntropyOptions options;
    options.z_loss = 1e-2;
    options.chunk_elements = chunk;
    compare(
        [&](const Tensors& in, const RopeTable&) -> Tensors {
          return {linear_cross_entropy(in[0], in[1], targets.to(in[0].device()), options).total};
        },
        {random({130, 64}), random({1000, 64}) * 0.25});
  }
}

TEST_F(CudaOps, FusedAdamWTakesTheStepsOfThePlainOne) {
  const std::vector<ParameterSpec> specs = {{"matrix", {64, 48}}, {"vector", {64}, Init::kOnes}};
  const TensorMap values = initial_values(specs, 3);
  OptimizerRecipe recipe;
  FlatParameters on_cpu(specs, values, at::kCPU), on_gpu(specs, values, at::Device(at::kCUDA, 0));
  AdamW plain(on_cpu, recipe), fused(on_gpu, recipe);
  Gradients cpu_gradients(on_cpu), gpu_gradients(on_gpu);
  for (int step = 0; step < 5; ++step) {
    const double scale = step < 3 ? 1.0 : 1e-3;  // clipped, then not
    for (const size_t buffer : {0, 1}) {
      Tensor gradient = cpu_gradients.shares()[buffer];
      gradient.copy_(at::randn_like(gradient) * scale);
      Tensor(gpu_gradients.shares()[buffer]).copy_(gradient);
    }
    plain.step(cpu_gradients, 1e-2);
    fused.step(gpu_gradients, 1e-2);
  }
  for (const size_t buffer : {0, 1}) {
    EXPECT_LT(relative(on_gpu.compute()[buffer], on_cpu.compute()[buffer]), 1e-5);
  }
}

}  // namespace
}  // namespace kvcast::train
