#include "train/loss_monitor.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <chrono>
#include <cmath>
#include <thread>

namespace kvcast::train {
namespace {

constexpr double kMeanMemory = 0.9;  // share of the mean that a new loss leaves

/// Polls, so that the host sleeps while the device works.
void wait_for(const std::optional<c10::Event>& event) {
  while (event && !event->query()) std::this_thread::sleep_for(std::chrono::microseconds(50));
}

}  // namespace

void LossMonitor::add(int64_t step, const Tensor& loss, const Tensor& gradient_norm) {
  const Tensor values = at::stack({loss.detach().to(at::kFloat), gradient_norm.to(at::kFloat)});
  // Pinned, or the copy would wait.
  Entry entry{step,
              at::empty({2}, at::TensorOptions().dtype(at::kFloat).pinned_memory(values.is_cuda())),
              std::nullopt};
  entry.values.copy_(values, /*non_blocking=*/true);
  if (values.is_cuda()) {
    entry.ready.emplace(values.device().type());
    entry.ready->record(
        c10::impl::VirtualGuardImpl(values.device().type()).getStream(values.device()));
  }
  entries_.push_back(std::move(entry));
}

std::optional<BadStep> LossMonitor::check(size_t steps_in_flight) {
  while (entries_.size() > steps_in_flight) {
    const Entry& entry = entries_.front();
    wait_for(entry.ready);
    BadStep found{.step = entry.step,
                  .loss = entry.values[0].item<float>(),
                  .gradient_norm = entry.values[1].item<float>(),
                  .mean_loss = std::nullopt};
    entries_.pop_front();
    if (!std::isfinite(found.loss) || !std::isfinite(found.gradient_norm)) return found;
    if (max_jump_ > 0 && mean_ && found.loss > *mean_ + max_jump_) {
      found.mean_loss = mean_;
      return found;
    }
    mean_ = mean_ ? kMeanMemory * *mean_ + (1.0 - kMeanMemory) * found.loss : found.loss;
  }
  return std::nullopt;
}

}  // namespace kvcast::train
