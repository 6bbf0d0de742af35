#include "train/parameters.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>

#include "train/data/error.h"
#include "train/data/random.h"

namespace kvcast::train {
namespace {

/// Every tensor starts on a multiple of this, so that bf16 views stay aligned for matrix products.
constexpr int64_t kAlignment = 64;

int64_t rounded_up(int64_t size, int64_t multiple) {
  return (size + multiple - 1) / multiple * multiple;
}

}  // namespace

int64_t ParameterSpec::size() const {
  int64_t product = 1;
  for (int64_t dimension : shape) product *= dimension;
  return product;
}

std::vector<ParameterSpec> with_prefix(std::string_view prefix, std::vector<ParameterSpec> specs) {
  for (auto& spec : specs) spec.name.insert(0, prefix);
  return specs;
}

TensorMap initial_values(const std::vector<ParameterSpec>& specs, uint64_t seed) {
  TensorMap values;
  for (const auto& spec : specs) {
    auto generator = at::make_generator<at::CPUGeneratorImpl>(mix(seed, hash_text(spec.name)));
    Tensor value = at::empty(spec.shape, at::kFloat);
    switch (spec.init) {
      case Init::kOnes:
        value.fill_(1.0);
        break;
      case Init::kZeros:
        value.zero_();
        break;
      case Init::kNormal:
        value.normal_(0.0, spec.scale, generator);
        break;
      case Init::kUniform:
        value.uniform_(-spec.scale, spec.scale, generator);
        break;
    }
    values.emplace(spec.name, value);
  }
  return values;
}

ParameterLayout::ParameterLayout(std::vector<ParameterSpec> specs, int64_t shares,
                                 int64_t bucket_bytes)
    : specs_(std::move(specs)), shares_(shares) {
  const int64_t capacity = std::max<int64_t>(1, bucket_bytes / 4);
  for (const size_t buffer : {0, 1}) {
    std::vector<Bucket> buckets;
    std::vector<std::string> open;  // the last bucket's parameters
    const auto close = [&] {
      if (buckets.empty()) return;
      Bucket& bucket = buckets.back();
      bucket.length = rounded_up(sizes_[buffer] - bucket.offset, kAlignment * shares_);
      sizes_[buffer] = bucket.offset + bucket.length;
    };
    for (const auto& spec : specs_) {
      if (spec.is_matrix() != (buffer == 0)) continue;
      const int64_t size = rounded_up(spec.size(), kAlignment);
      const bool full = buffer == 0 && !buckets.empty() &&
                        sizes_[buffer] - buckets.back().offset + size > capacity;
      if (buckets.empty() || full) {
        close();
        buckets.push_back({buffer, sizes_[buffer], 0, 0});
      }
      ++buckets.back().members;
      slots_[spec.name] = {buffer, sizes_[buffer], buckets.size() - 1, spec.shape};
      sizes_[buffer] += size;
    }
    close();
    // Norms are few and small and come last; matrices from the last to the first.
    const size_t before = buckets_.size();
    buckets_.insert(buckets_.end(), buckets.rbegin(), buckets.rend());
    for (auto& [name, slot] : slots_) {
      if (slot.buffer == buffer) slot.bucket = before + buckets.size() - 1 - slot.bucket;
    }
  }
}

Tensor ParameterLayout::part(const Buffers& buffers, const Slot& slot) {
  int64_t size = 1;
  for (const int64_t dimension : slot.shape) size *= dimension;
  return buffers[slot.buffer].narrow(0, slot.offset, size).view(slot.shape);
}

Tensor ParameterLayout::part(const Buffers& buffers, const Bucket& bucket) {
  return buffers[bucket.buffer].narrow(0, bucket.offset, bucket.length);
}

Tensor ParameterLayout::share_part(const Buffers& shares, const Bucket& bucket) const {
  return shares[bucket.buffer].narrow(0, bucket.offset / shares_, bucket.length / shares_);
}

TensorMap ParameterLayout::split(const Buffers& buffers) const {
  TensorMap result;
  for (const auto& [name, slot] : slots_) result.emplace(name, part(buffers, slot));
  return result;
}

FlatParameters::FlatParameters(std::vector<ParameterSpec> specs, const TensorMap& values,
                               const at::Device& device, const ParameterOptions& options)
    : processes_(options.processes != nullptr ? *options.processes : alone_),
      layout_(std::move(specs), processes_.count(), options.bucket_bytes) {
  for (const size_t buffer : {0, 1}) {
    const int64_t size = layout_.size(buffer);
    compute_[buffer] = at::zeros({size}, at::TensorOptions().dtype(options.compute).device(device));
    master_[buffer] = zeros_f32({size / processes_.count()}, device);
  }
  assign(values);
}

Tensor FlatParameters::own_share(const Tensor& bucket) const {
  const int64_t length = bucket.size(0) / processes_.count();
  return bucket.narrow(0, processes_.rank() * length, length);
}

void FlatParameters::assign(const TensorMap& values) {
  take_shares(values, master_);
  publish();
}

void FlatParameters::publish() {
  const at::NoGradGuard no_grad;
  std::vector<std::unique_ptr<Pending>> pending;
  for (const auto& bucket : layout_.buckets()) {
    Tensor whole = ParameterLayout::part(compute_, bucket);
    own_share(whole).copy_(layout_.share_part(master_, bucket));
    pending.push_back(processes_.gather(whole));
  }
  for (const auto& one : pending) one->wait();
}

void FlatParameters::take_shares(const TensorMap& values, const Buffers& shares) const {
  const at::NoGradGuard no_grad;
  for (const auto& bucket : layout_.buckets()) {
    Buffers whole;  // of this bucket alone
    whole[bucket.buffer] = zeros_f32({bucket.length}, at::kCPU);
    for (const auto& [name, slot] : layout_.slots()) {
      if (&layout_.buckets()[slot.bucket] != &bucket) continue;
      const auto value = values.find(name);
      if (value == values.end() || value->second.sizes() != at::IntArrayRef(slot.shape)) {
        throw TrainError("no fitting value for parameter " + name);
      }
      auto here = slot;
      here.offset -= bucket.offset;
      ParameterLayout::part(whole, here).copy_(value->second);
    }
    layout_.share_part(shares, bucket).copy_(own_share(whole[bucket.buffer]));
  }
}

TensorMap FlatParameters::gathered(const Buffers& shares) const {
  const at::NoGradGuard no_grad;
  if (processes_.count() == 1) return layout_.split(shares);
  TensorMap result;
  for (const auto& bucket : layout_.buckets()) {  // one at a time: a GPU has no room for all
    Buffers whole;
    whole[bucket.buffer] = zeros_f32({bucket.length}, shares[bucket.buffer].device());
    own_share(whole[bucket.buffer]).copy_(layout_.share_part(shares, bucket));
    processes_.gather(whole[bucket.buffer])->wait();
    if (!processes_.first()) continue;
    for (const auto& [name, slot] : layout_.slots()) {
      if (&layout_.buckets()[slot.bucket] != &bucket) continue;
      auto here = slot;
      here.offset -= bucket.offset;
      result.emplace(name, ParameterLayout::part(whole, here)
                               .to(at::kCPU, /*non_blocking=*/false,
                                   /*copy=*/true));
    }
  }
  return result;
}

Buffers FlatParameters::zero_shares() const {
  return {at::zeros_like(master_[0]), at::zeros_like(master_[1])};
}

int64_t FlatParameters::count() const {
  int64_t total = 0;
  for (const auto& spec : layout_.specs()) total += spec.size();
  return total;
}

}  // namespace kvcast::train
