#include "train/gradient_sum.h"

#include <algorithm>

namespace kvcast::train {

GradientSum::GradientSum(FlatParameters& parameters, Processes& processes, int64_t bucket_bytes)
    : parameters_(parameters),
      processes_(processes),
      totals_{at::zeros_like(parameters.matrices().detach()),
              at::zeros_like(parameters.vectors().detach())} {
  const TensorMap totals = parameters.split_by_name(totals_[0], totals_[1]);
  const int64_t capacity = std::max<int64_t>(1, bucket_bytes / 4);
  // From the last parameter to the first, as the backward pass goes. Norms are few and small: they
  // are all in the last bucket.
  for (const bool matrices : {true, false}) {
    const Tensor& flat = totals_[matrices ? 0 : 1];
    int64_t end = flat.numel(), begin = end;
    const auto close = [&] {
      if (begin == end) return;
      buckets_.back().total = flat.narrow(0, begin, end - begin);
      end = begin;
    };
    for (auto spec = parameters.specs().rbegin(); spec != parameters.specs().rend(); ++spec) {
      if (spec->is_matrix() != matrices) continue;
      const Tensor& total = totals.at(spec->name);
      if (begin == end || (matrices && end - total.storage_offset() > capacity)) {
        close();
        buckets_.emplace_back();
      }
      begin = total.storage_offset();
      ++buckets_.back().members;
      slots_[spec->name] = {.local = {}, .total = total, .bucket = buckets_.size() - 1};
    }
    close();
  }
}

TensorMap GradientSum::watched(const TensorMap& views) {
  const TensorMap gradients = parameters_.gradients();
  for (auto& bucket : buckets_) bucket.missing = bucket.members;
  next_ = 0;
  TensorMap result;
  for (const auto& [name, view] : views) {
    Slot& slot = slots_.at(name);
    slot.local = gradients.at(name);
    slot.arrived = false;
    // A node of its own in the graph: its gradient is whole before the flat buffers' is.
    const Tensor own = view.view(view.sizes());
    own.register_hook([this, &slot](const Tensor& gradient) { arrive(slot, gradient); });
    result.emplace(name, own);
  }
  return result;
}

void GradientSum::arrive(Slot& slot, const Tensor& gradient) {
  const at::NoGradGuard no_grad;
  slot.total.copy_(gradient).add_(slot.local);
  slot.arrived = true;
  --buckets_[slot.bucket].missing;
  send_whole_buckets();
}

void GradientSum::send_whole_buckets() {
  for (; next_ < buckets_.size() && buckets_[next_].missing == 0; ++next_) {
    buckets_[next_].pending = processes_.sum(buckets_[next_].total);
  }
}

void GradientSum::finish() {
  const at::NoGradGuard no_grad;
  // Parameters that no loss reached have what earlier passes left.
  const TensorMap gradients = parameters_.gradients();
  for (auto& [name, slot] : slots_) {
    if (slot.arrived) continue;
    slot.total.copy_(gradients.at(name));
    --buckets_[slot.bucket].missing;
  }
  send_whole_buckets();
  for (auto& bucket : buckets_) {
    bucket.pending->wait();
    bucket.pending.reset();
  }
  const Tensor* const leaves[2] = {&parameters_.matrices(), &parameters_.vectors()};
  for (int i = 0; i < 2; ++i) {
    Tensor& gradient = leaves[i]->mutable_grad();
    if (gradient.defined()) {
      gradient.copy_(totals_[i]);
    } else {
      gradient = totals_[i].clone();
    }
  }
}

}  // namespace kvcast::train
