#include "train/processes.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <optional>

#include "train/data/error.h"

// KVCAST_GLOO, KVCAST_NCCL: the backends of c10d that this libtorch has and whose headers are at
// hand (CMakeLists.txt).
#ifdef KVCAST_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#endif
#ifdef KVCAST_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif
#if defined(KVCAST_GLOO) || defined(KVCAST_NCCL)
#define KVCAST_C10D
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#endif

namespace kvcast::train {
namespace {

std::optional<int64_t> environment_number(const char* name, int64_t low, int64_t high) {
  const char* text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  int64_t value = 0;
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, value);
  if (error != std::errc() || stop != end || value < low || value > high) {
    throw TrainError(
        fmt::format("{}={}: expected a whole number in {}..{}", name, text, low, high));
  }
  return value;
}

struct NothingPending : Pending {
  void wait() override {}
};

}  // namespace

int64_t local_rank() { return environment_number("LOCAL_RANK", 0, 1 << 16).value_or(0); }

Processes::Processes() = default;
Processes::~Processes() = default;

#ifndef KVCAST_C10D

struct Processes::Group {};

std::unique_ptr<Processes> Processes::from_environment(const at::Device&) {
  if (environment_number("WORLD_SIZE", 1, 1 << 20).value_or(1) > 1) {
    throw TrainError("WORLD_SIZE: this build has neither Gloo nor NCCL: expected 1");
  }
  return std::make_unique<Processes>();
}
std::unique_ptr<Pending> Processes::sum(Tensor&) { return std::make_unique<NothingPending>(); }
std::unique_ptr<Pending> Processes::sum_shares(Tensor&, Tensor&) {
  return std::make_unique<NothingPending>();
}
std::unique_ptr<Pending> Processes::gather(Tensor&) { return std::make_unique<NothingPending>(); }
std::string Processes::agree(const std::string& text) { return text; }

#else

namespace {

using WorkPointer = c10::intrusive_ptr<c10d::Work>;

/// The tensors stay alive until the work is done.
struct WorkPending : Pending {
  WorkPending(WorkPointer work_, std::function<void()> then_)
      : work(std::move(work_)), then(std::move(then_)) {}
  void wait() override {
    work->wait();
    if (then) then();
  }
  WorkPointer work;
  std::function<void()> then;
};

std::unique_ptr<Pending> pending(WorkPointer work, std::function<void()> then = {}) {
  return std::make_unique<WorkPending>(std::move(work), std::move(then));
}

c10::intrusive_ptr<c10d::Store> connect(int64_t rank, int64_t count) {
  const char* address = std::getenv("MASTER_ADDR");
  const auto port = environment_number("MASTER_PORT", 1, 65535);
  if (address == nullptr || !port) {
    throw TrainError("WORLD_SIZE is set: expected MASTER_ADDR and MASTER_PORT too");
  }
  // torchrun may hold the store itself, and a run that it starts again needs keys of its own.
  const char* agent = std::getenv("TORCHELASTIC_USE_AGENT_STORE");
  const int64_t attempt = environment_number("TORCHELASTIC_RESTART_COUNT", 0, 1 << 20).value_or(0);
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(*port);
  options.isServer = rank == 0 && (agent == nullptr || std::strcmp(agent, "True") != 0);
  options.numWorkers = static_cast<size_t>(count);
  options.waitWorkers = false;
  return c10::make_intrusive<c10d::PrefixStore>(
      fmt::format("kvcast/{}", attempt),
      c10::make_intrusive<c10d::TCPStore>(std::string(address), options));
}

}  // namespace

struct Processes::Group {
  c10::intrusive_ptr<c10d::Store> store;
#ifdef KVCAST_GLOO
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
#endif
#ifdef KVCAST_NCCL
  c10::intrusive_ptr<c10d::ProcessGroupNCCL> nccl;
  ~Group() {
    if (nccl) nccl->shutdown();
  }
#endif

  void join(const at::Device& device, int rank, int count) {
#ifdef KVCAST_NCCL
    if (device.is_cuda()) {
      nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, count);
      return;
    }
#endif
#ifdef KVCAST_GLOO
    if (device.is_cpu()) {
      const std::string address = std::getenv("MASTER_ADDR");
      const bool one_host = address == "localhost" || address.starts_with("127.");
      auto options = c10d::ProcessGroupGloo::Options::create();
      options->devices.push_back(one_host
                                     ? c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1")
                                     : c10d::ProcessGroupGloo::createDefaultDevice());
      gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, count, options);
      return;
    }
#endif
    throw TrainError(fmt::format("WORLD_SIZE: this build cannot connect processes on {} devices",
                                 device.is_cuda() ? "CUDA" : "CPU"));
  }

  WorkPointer sum(std::vector<Tensor>& tensors) {
#ifdef KVCAST_NCCL
    if (nccl) return nccl->allreduce(tensors, c10d::AllreduceOptions());
#endif
#ifdef KVCAST_GLOO
    if (gloo) return gloo->allreduce(tensors, c10d::AllreduceOptions());
#endif
    return {};
  }

  /// `own`: this process's part of `whole`.
  std::unique_ptr<Pending> sum_shares(Tensor& whole, Tensor& share, const Tensor& own) {
#ifdef KVCAST_NCCL
    if (nccl) return pending(nccl->_reduce_scatter_base(share, whole));
#endif
#ifdef KVCAST_GLOO
    if (gloo) {  // which has no such operation
      std::vector<Tensor> tensors{whole};
      return pending(gloo->allreduce(tensors), [share, own] { Tensor(share).copy_(own); });
    }
#endif
    return {};
  }

  std::unique_ptr<Pending> gather(Tensor& whole, Tensor own, int64_t count) {
#ifdef KVCAST_NCCL
    if (nccl) return pending(nccl->_allgather_base(whole, own));
#endif
#ifdef KVCAST_GLOO
    if (gloo) {
      std::vector<std::vector<Tensor>> parts{whole.chunk(count)};
      std::vector<Tensor> given{own.clone()};
      return pending(gloo->allgather(parts, given), [parts, given] {});
    }
#endif
    return {};
  }
};

std::unique_ptr<Processes> Processes::from_environment(const at::Device& device) {
  auto processes = std::make_unique<Processes>();
  const int64_t count = environment_number("WORLD_SIZE", 1, 1 << 20).value_or(1);
  if (count == 1) return processes;
  const auto rank = environment_number("RANK", 0, count - 1);
  if (!rank) throw TrainError("WORLD_SIZE is set: expected RANK too");
  processes->rank_ = *rank;
  processes->count_ = count;
  processes->group_ = std::make_unique<Group>();
  processes->group_->store = connect(*rank, count);
  processes->group_->join(device, static_cast<int>(*rank), static_cast<int>(count));
  return processes;
}

std::unique_ptr<Pending> Processes::sum(Tensor& tensor) {
  if (!group_) return std::make_unique<NothingPending>();
  std::vector<Tensor> tensors{tensor};
  return pending(group_->sum(tensors));
}

std::unique_ptr<Pending> Processes::sum_shares(Tensor& whole, Tensor& share) {
  if (!group_) return std::make_unique<NothingPending>();
  return group_->sum_shares(whole, share, whole.chunk(count_)[static_cast<size_t>(rank_)]);
}

std::unique_ptr<Pending> Processes::gather(Tensor& whole) {
  if (!group_) return std::make_unique<NothingPending>();
  return group_->gather(whole, whole.chunk(count_)[static_cast<size_t>(rank_)], count_);
}

std::string Processes::agree(const std::string& text) {
  if (!group_) return text;
  const auto key = [](int64_t turn) { return fmt::format("turn/{}", turn); };
  const int64_t turn = turn_++;
  if (!first()) {
    const auto bytes = group_->store->get(key(turn));  // waits for it
    return {bytes.begin(), bytes.end()};
  }
  group_->store->set(key(turn), std::vector<uint8_t>(text.begin(), text.end()));
  // All processes have long read this one: each of its turns ends with sums of gradients.
  constexpr int64_t kKept = 64;
  if (turn >= kKept) group_->store->deleteKey(key(turn - kKept));
  return text;
}

#endif

}  // namespace kvcast::train
