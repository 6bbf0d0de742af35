#include "train/batch_loader.h"

namespace kvcast::train {

Tensor read_samples(const WindowSampler& sampler, int64_t first, int64_t n, bool pinned) {
  const int64_t width = sampler.sequence_tokens() + 1;
  Tensor ids = at::empty({n, width}, at::TensorOptions().dtype(at::kLong).pinned_memory(pinned));
  for (int64_t row = 0; row < n; ++row) {
    sampler.read(first + row, ids.data_ptr<int64_t>() + row * width);
  }
  return ids;
}

BatchLoader::BatchLoader(const WindowSampler& sampler, int64_t sequences, int64_t first,
                         int64_t stride, const at::Device& device)
    : sampler_(sampler),
      sequences_(sequences),
      next_to_read_(first),
      stride_(stride),
      device_(device) {
  thread_ = std::thread([this] { fill(); });
}

BatchLoader::~BatchLoader() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void BatchLoader::fill() {
  try {
    while (true) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stop_ || ready_.size() < kAhead; });
        if (stop_) return;
      }
      Tensor ids =
          read_samples(sampler_, next_to_read_ * sequences_, sequences_, device_.is_cuda());
      next_to_read_ += stride_;
      const std::lock_guard lock(mutex_);
      ready_.push_back(std::move(ids));
      changed_.notify_all();
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    failure_ = std::current_exception();
    changed_.notify_all();
  }
}

Batch BatchLoader::next() {
  Tensor ids;
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return failure_ || !ready_.empty(); });
    if (ready_.empty()) std::rethrow_exception(failure_);
    ids = std::move(ready_.front());
    ready_.pop_front();
  }
  changed_.notify_all();
  const Tensor on_device = ids.to(device_, /*non_blocking=*/true);
  const int64_t tokens = ids.size(1) - 1;
  return {on_device.narrow(1, 0, tokens), on_device.narrow(1, 1, tokens)};
}

}  // namespace kvcast::train
