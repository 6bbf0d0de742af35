#include "train/distillation.h"

#include <algorithm>
#include <cmath>

#ifdef KVCAST_CUDA_KERNELS
#include "train/cuda/autograd.h"
#endif

namespace kvcast::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

struct Terms {
  Tensor cross_entropy, z_loss, kl;  // scalars
  Tensor grad_student;               // of their weighted sum; undefined where not asked for
};

/// Without a wish, 2^28 logits of each model on a GPU (512 MiB of bf16) and 2^26 on a CPU.
int64_t rows_per_chunk(const Tensor& hidden, int64_t vocab, int64_t chunk_elements) {
  if (chunk_elements == 0) chunk_elements = int64_t{1} << (hidden.is_cuda() ? 28 : 26);
  return std::clamp<int64_t>(chunk_elements / vocab, 1, std::max<int64_t>(hidden.size(0), 1));
}

/// One chunk's rows.
struct RowLosses {
  Tensor nll, log_sum_exp, kl;  // f32 [rows]
  Tensor grad_logits;           // [rows, vocab] in the logits' dtype, of the weighted sum
};

RowLosses row_losses(Tensor student, const Tensor& teacher, const Tensor& targets,
                     const Tensor& weights, const DistillationOptions& options, bool want_grad) {
  const double ce = options.lambda_cross_entropy, kl = options.lambda_kl;
  const double zeta = options.cross_entropy.z_loss;
#ifdef KVCAST_CUDA_KERNELS
  if (cuda::takes(student)) {
    const auto rows =
        cuda::distillation_(student, teacher, targets, weights, ce, zeta, kl, want_grad);
    return {rows.nll, rows.log_sum_exp, rows.kl, student};
  }
#endif
  const auto dtype = student.scalar_type();
  const Tensor target = targets.unsqueeze(1);
  student = student.to(at::kFloat);
  const Tensor lse = student.logsumexp(-1);
  Tensor log_q = student.sub_(lse.unsqueeze(1));
  Tensor log_p = teacher.log_softmax(-1, at::kFloat);
  const Tensor p = log_p.exp();
  RowLosses rows{-log_q.gather(1, target).squeeze(1), lse, {}, {}};
  rows.kl = log_p.sub_(log_q).mul_(p).sum(-1);
  if (!want_grad) return rows;
  // d/d logits = w (ce (q (1 + 2 zeta lse) - onehot) + kl (q - p)), q the student's probabilities
  Tensor grad = log_q.exp_().mul_((weights * (ce * (1.0 + 2.0 * zeta * lse) + kl)).unsqueeze(1));
  grad.addcmul_(p, weights.unsqueeze(1), -kl);
  grad.scatter_add_(1, target, (weights * -ce).unsqueeze(1));
  rows.grad_logits = grad.to(dtype);
  return rows;
}

/// Losses and gradient chunk by chunk, as in cross_entropy.cpp.
Terms chunked_terms(const Tensor& student, const Tensor& teacher, const Tensor& lm_head,
                    const Tensor& targets, const DistillationOptions& options, bool want_grad) {
  const int64_t rows = student.size(0), vocab = lm_head.size(0);
  const Tensor counted = targets.ne(options.cross_entropy.ignore_index);
  const Tensor safe_targets = targets.masked_fill(counted.logical_not(), 0);
  const Tensor n_counted = counted.sum().clamp_min(1).to(at::kFloat);
  Tensor row_weights = counted.to(at::kFloat);  // [rows], sums to 1
  if (options.row_weights.defined()) row_weights = row_weights * options.row_weights;
  row_weights = row_weights / row_weights.sum().clamp_min(1e-20);

  Terms terms;
  terms.cross_entropy = zeros_f32({}, student.device());
  terms.z_loss = zeros_f32({}, student.device());
  terms.kl = zeros_f32({}, student.device());
  if (want_grad) terms.grad_student = at::empty_like(student);

  const int64_t step = rows_per_chunk(student, vocab, options.cross_entropy.chunk_elements);
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t n = std::min(step, rows - first);
    const Tensor weights = row_weights.narrow(0, first, n);
    const auto logits = [&](const Tensor& hidden) {
      return at::matmul(hidden.narrow(0, first, n), lm_head.t());  // [n, vocab]
    };
    const RowLosses chunk =
        row_losses(logits(student), logits(teacher), safe_targets.narrow(0, first, n), weights,
                   options, want_grad);
    terms.cross_entropy += at::dot(chunk.nll, weights);
    terms.z_loss += at::dot(chunk.log_sum_exp.square(), weights);
    terms.kl += at::dot(chunk.kl, weights);
    if (!want_grad) continue;
    Tensor rows_grad = terms.grad_student.narrow(0, first, n);
    at::mm_out(rows_grad, chunk.grad_logits, lm_head);
  }
  const Tensor ignored_share = (static_cast<double>(rows) - n_counted) / n_counted;
  terms.z_loss =
      (terms.z_loss + ignored_share * std::pow(std::log(vocab), 2)) * options.cross_entropy.z_loss;
  return terms;
}

struct LinearDistillation : Function<LinearDistillation> {
  static variable_list forward(AutogradContext* ctx, const Tensor& student, const Tensor& teacher,
                               const Tensor& lm_head, const Tensor& targets,
                               const DistillationOptions* options, bool grad_enabled) {
    TORCH_CHECK(!lm_head.requires_grad(), "distillation is through a frozen LM head");
    const Terms terms = chunked_terms(student, teacher, lm_head, targets, *options,
                                      grad_enabled && student.requires_grad());
    ctx->save_for_backward({terms.grad_student});
    ctx->mark_non_differentiable({terms.cross_entropy, terms.z_loss, terms.kl});
    const Tensor total = options->lambda_cross_entropy * (terms.cross_entropy + terms.z_loss) +
                         options->lambda_kl * terms.kl;
    return {total, terms.cross_entropy, terms.z_loss, terms.kl};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const Tensor saved = ctx->get_saved_variables()[0];
    Tensor grad_student;
    if (saved.defined()) grad_student = saved * grads[0].to(saved.scalar_type());
    return {grad_student, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

Distillation linear_distillation(const Tensor& student, const Tensor& teacher,
                                 const Tensor& lm_head, const Tensor& targets,
                                 const DistillationOptions& options) {
  const auto terms = LinearDistillation::apply(student, teacher, lm_head, targets, &options,
                                               at::GradMode::is_enabled());
  return {terms[0], {terms[1] + terms[2], terms[1], terms[2]}, terms[3]};
}

}  // namespace kvcast::train
