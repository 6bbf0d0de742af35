#include "train/distillation.h"

#include <algorithm>
#include <cmath>

namespace kvcast::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

/// Logits of each of the two models held at a time (256 MiB of f32), if no other number is asked
/// for.
constexpr int64_t kChunkElements = 1 << 26;

struct Terms {
  Tensor cross_entropy, z_loss, kl;  // scalars
  Tensor grad_student;               // of their weighted sum; undefined where not asked for
};

/// Log-probabilities [n, vocab] in f32 of hidden states [n, model_dim].
Tensor log_probabilities(const Tensor& hidden, const Tensor& lm_head, Tensor* logsumexp) {
  const Tensor logits = at::matmul(hidden, lm_head.t());
  const Tensor result = at::log_softmax(logits, -1, at::kFloat);
  // Any one column tells what was subtracted.
  if (logsumexp != nullptr) *logsumexp = logits.select(1, 0).to(at::kFloat) - result.select(1, 0);
  return result;
}

/// Losses and gradient chunk by chunk, as in cross_entropy.cpp.
Terms chunked_terms(const Tensor& student, const Tensor& teacher, const Tensor& lm_head,
                    const Tensor& targets, const DistillationOptions& options, bool want_grad) {
  const int64_t rows = student.size(0), vocab = lm_head.size(0);
  const double zeta = options.cross_entropy.z_loss;
  const Tensor counted = targets.ne(options.cross_entropy.ignore_index);
  const Tensor safe_targets = targets.masked_fill(counted.logical_not(), 0);
  const Tensor n_counted = counted.sum().clamp_min(1).to(at::kFloat);
  const Tensor row_weights = counted.to(at::kFloat) / n_counted;  // [rows], sums to 1

  Terms terms;
  terms.cross_entropy = zeros_f32({}, student.device());
  terms.z_loss = zeros_f32({}, student.device());
  terms.kl = zeros_f32({}, student.device());
  if (want_grad) terms.grad_student = at::empty_like(student);

  const int64_t wish = options.cross_entropy.chunk_elements;
  const int64_t step = std::clamp<int64_t>((wish > 0 ? wish : kChunkElements) / vocab, 1,
                                           std::max<int64_t>(rows, 1));
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t n = std::min(step, rows - first);
    const Tensor weights = row_weights.narrow(0, first, n);
    const Tensor target = safe_targets.narrow(0, first, n).unsqueeze(1);
    Tensor lse;
    Tensor log_q = log_probabilities(student.narrow(0, first, n), lm_head, &lse);  // [n, vocab]
    Tensor log_p = log_probabilities(teacher.narrow(0, first, n), lm_head, nullptr);
    const Tensor p = log_p.exp();
    terms.cross_entropy -= at::dot(log_q.gather(1, target).squeeze(1), weights);
    terms.z_loss += at::dot(lse.square(), weights);
    terms.kl += at::dot(log_p.sub_(log_q).mul_(p).sum(-1), weights);
    if (!want_grad) continue;
    // d/d logits = w (ce (q (1 + 2 zeta lse) - onehot) + kl (q - p)), q the student's probabilities
    const double ce = options.lambda_cross_entropy, kl = options.lambda_kl;
    Tensor grad = log_q.exp_().mul_((weights * (ce * (1.0 + 2.0 * zeta * lse) + kl)).unsqueeze(1));
    grad.addcmul_(p, weights.unsqueeze(1), -kl);
    grad.scatter_add_(1, target, (weights * -ce).unsqueeze(1));
    terms.grad_student.narrow(0, first, n).copy_(grad.to(student.scalar_type()).matmul(lm_head));
  }
  const Tensor ignored_share = (static_cast<double>(rows) - n_counted) / n_counted;
  terms.z_loss = (terms.z_loss + ignored_share * std::pow(std::log(vocab), 2)) * zeta;
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
