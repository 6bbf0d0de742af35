// The fused distillation on a GPU in bf16 against the plain one on the CPU in f32. Skipped without
// a GPU.
#include <gtest/gtest.h>

#include "train/distillation.h"

namespace kvcast::train {
namespace {

TEST(CudaDistillation, EqualsThePlainOne) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no CUDA device";
  at::manual_seed(7);
  constexpr int64_t kRows = 37, kDim = 64, kVocab = 1000;
  const auto random = [](at::IntArrayRef shape) {
    return at::randn(shape).to(at::kBFloat16).to(at::kFloat);  // what both sides can hold
  };
  const Tensor student = random({kRows, kDim}), teacher = random({kRows, kDim});
  const Tensor lm_head = random({kVocab, kDim}) * 0.25;
  Tensor targets = at::randint(0, kVocab, {kRows}, at::kLong);
  targets[5] = -100;
  const auto run = [&](const at::Device& device, at::ScalarType dtype, int64_t chunk) {
    const Tensor leaf = student.to(device, dtype).detach().clone().set_requires_grad(true);
    const Distillation made = linear_distillation(
        leaf, teacher.to(device, dtype), lm_head.to(device, dtype), targets.to(device),
        {0.7, 1.3, {.z_loss = 1e-2, .chunk_elements = chunk}});
    made.total.backward();
    return std::vector<Tensor>{made.total.detach(), made.cross_entropy.z_loss, made.kl,
                               leaf.grad()};
  };
  const auto expected = run(at::kCPU, at::kFloat, 0);
  for (const int64_t chunk : {int64_t{0}, 10 * kVocab}) {
    const auto found = run({at::kCUDA, 0}, at::kBFloat16, chunk);
    for (size_t i = 0; i < expected.size(); ++i) {
      const Tensor difference = found[i].to(at::kCPU, at::kFloat) - expected[i];
      EXPECT_LT((difference.norm() / expected[i].norm()).item<double>(), 1e-2) << i;
    }
  }
}

}  // namespace
}  // namespace kvcast::train
