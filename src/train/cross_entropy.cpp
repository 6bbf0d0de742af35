#include "train/cross_entropy.h"

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
  Tensor cross_entropy, z_loss;      // scalars
  Tensor grad_hidden, grad_lm_head;  // of their sum; undefined where not asked for
};

/// Without a wish, 2^28 logits on a GPU (512 MiB of bf16) and 2^26 on a CPU (256 MiB of f32).
int64_t rows_per_chunk(const Tensor& hidden, int64_t vocab, int64_t chunk_elements) {
  if (chunk_elements == 0) chunk_elements = int64_t{1} << (hidden.is_cuda() ? 28 : 26);
  return std::clamp<int64_t>(chunk_elements / vocab, 1, std::max<int64_t>(hidden.size(0), 1));
}

/// One chunk's rows.
struct RowLosses {
  Tensor nll, log_sum_exp;  // f32 [rows]
  Tensor grad_logits;  // [rows, vocab] in the logits' dtype: d sum(weights * (nll + z_loss lse^2))
};

RowLosses row_losses(Tensor logits, const Tensor& targets, const Tensor& weights, double z_loss,
                     bool want_gradient) {
#ifdef KVCAST_CUDA_KERNELS
  if (cuda::takes(logits)) {
    const auto [nll, lse] = cuda::cross_entropy_(logits, targets, weights, z_loss, want_gradient);
    return {nll, lse, logits};
  }
#endif
  const auto dtype = logits.scalar_type();
  const Tensor target = targets.unsqueeze(1);
  logits = logits.to(at::kFloat);
  const Tensor lse = logits.logsumexp(-1);
  const Tensor nll = lse - logits.gather(1, target).squeeze(1);
  if (!want_gradient) return {nll, lse, {}};
  // d/d logits = w (softmax (1 + 2 zeta lse) - onehot)
  logits.sub_(lse.unsqueeze(1)).exp_();
  logits.mul_((weights * (1.0 + 2.0 * z_loss * lse)).unsqueeze(1));
  logits.scatter_add_(1, target, weights.neg().unsqueeze(1));
  return {nll, lse, logits.to(dtype)};
}

/// Losses and gradients chunk by chunk: a backward pass that recomputed the logits would cost one
/// more matrix product of that size, one that kept them rows * vocab * 4 bytes.
Terms chunked_terms(const Tensor& hidden, const Tensor& lm_head, const Tensor& targets,
                    const CrossEntropyOptions& options, bool want_grad_hidden,
                    bool want_grad_lm_head) {
  const int64_t rows = hidden.size(0), vocab = lm_head.size(0);
  const Tensor counted = targets.ne(options.ignore_index);
  const Tensor safe_targets = targets.masked_fill(counted.logical_not(), 0);
  const Tensor n_counted = counted.sum().clamp_min(1).to(at::kFloat);
  const Tensor row_weights = counted.to(at::kFloat) / n_counted;  // [rows], sums to 1

  Terms terms;
  terms.cross_entropy = zeros_f32({}, hidden.device());
  terms.z_loss = zeros_f32({}, hidden.device());
  if (want_grad_hidden) terms.grad_hidden = at::empty_like(hidden);
  if (want_grad_lm_head) terms.grad_lm_head = zeros_f32(lm_head.sizes(), lm_head.device());

  const int64_t step = rows_per_chunk(hidden, vocab, options.chunk_elements);
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t n = std::min(step, rows - first);
    const Tensor h = hidden.narrow(0, first, n);
    const Tensor weights = row_weights.narrow(0, first, n);
    const RowLosses losses =
        row_losses(at::matmul(h, lm_head.t()), safe_targets.narrow(0, first, n), weights,
                   options.z_loss, want_grad_hidden || want_grad_lm_head);
    terms.cross_entropy += at::dot(losses.nll, weights);
    terms.z_loss += at::dot(losses.log_sum_exp.square(), weights);
    const Tensor& grad_logits = losses.grad_logits;
    if (want_grad_hidden) {
      Tensor rows_grad = terms.grad_hidden.narrow(0, first, n);
      at::mm_out(rows_grad, grad_logits, lm_head);
    }
    if (want_grad_lm_head) terms.grad_lm_head.add_(grad_logits.t().matmul(h));
  }
  const Tensor ignored_share = (static_cast<double>(rows) - n_counted) / n_counted;
  terms.z_loss = (terms.z_loss + ignored_share * std::pow(std::log(vocab), 2)) * options.z_loss;
  return terms;
}

struct LinearCrossEntropy : Function<LinearCrossEntropy> {
  static variable_list forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& lm_head,
                               const Tensor& targets, const CrossEntropyOptions* options,
                               bool grad_enabled) {
    const Terms terms =
        chunked_terms(hidden, lm_head, targets, *options, grad_enabled && hidden.requires_grad(),
                      grad_enabled && lm_head.requires_grad());
    ctx->saved_data["lm_head_dtype"] = static_cast<int64_t>(lm_head.scalar_type());
    ctx->save_for_backward({terms.grad_hidden, terms.grad_lm_head});
    ctx->mark_non_differentiable({terms.cross_entropy, terms.z_loss});
    return {terms.cross_entropy + terms.z_loss, terms.cross_entropy, terms.z_loss};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto dtype = static_cast<at::ScalarType>(ctx->saved_data["lm_head_dtype"].toInt());
    Tensor grad_hidden, grad_lm_head;
    if (saved[0].defined()) grad_hidden = saved[0] * grads[0].to(saved[0].scalar_type());
    if (saved[1].defined()) grad_lm_head = (saved[1] * grads[0]).to(dtype);
    return {grad_hidden, grad_lm_head, Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

CrossEntropy linear_cross_entropy(const Tensor& hidden, const Tensor& lm_head,
                                  const Tensor& targets, const CrossEntropyOptions& options) {
  const auto terms =
      LinearCrossEntropy::apply(hidden, lm_head, targets, &options, at::GradMode::is_enabled());
  return {terms[0], terms[1], terms[2]};
}

Tensor target_nll(const Tensor& hidden, const Tensor& lm_head, const Tensor& targets) {
  const at::NoGradGuard no_grad;
  const int64_t rows = hidden.size(0);
  const int64_t step = rows_per_chunk(hidden, lm_head.size(0), 0);
  std::vector<Tensor> parts;
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t n = std::min(step, rows - first);
    parts.push_back(row_losses(at::matmul(hidden.narrow(0, first, n), lm_head.t()),
                               targets.narrow(0, first, n), /*weights=*/{}, 0.0, false)
                        .nll);
  }
  return at::cat(parts);
}

}  // namespace kvcast::train
