// Work on a stream in parallel whose results are wanted in the stream's order.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace kvcast::train {

/// Calls consume(work(item)) for every item that produce() gives until it gives none. `work` runs
/// on `threads` threads at once; `produce` and `consume` each run on one at a time and see the
/// items in order. At most four items a thread are between the two, so memory is bounded. Rethrows
/// the first exception after all threads have stopped.
template <typename Item, typename Output>
void in_order(int64_t threads, const std::function<std::optional<Item>()>& produce,
              const std::function<std::function<Output(Item&&)>()>& make_work,
              const std::function<void(Output&&)>& consume) {
  std::mutex produce_mutex, consume_mutex;
  std::condition_variable consumed;
  std::map<int64_t, Output> waiting;  // done, but an earlier one is not
  int64_t next_in = 0, next_out = 0;  // guarded by the mutexes in this order
  bool ended = false;                 // no more items, or a failure; guarded by consume_mutex
  std::exception_ptr failure;

  const auto take = [&](int64_t& number) -> std::optional<Item> {
    const std::lock_guard producing(produce_mutex);
    {
      std::unique_lock lock(consume_mutex);
      consumed.wait(lock, [&] { return ended || next_in < next_out + 4 * threads; });
      if (ended) return std::nullopt;
    }
    auto item = produce();
    if (item) {
      number = next_in++;
    } else {
      const std::lock_guard lock(consume_mutex);
      ended = true;
    }
    return item;
  };
  const auto give = [&](int64_t number, Output&& output) {
    const std::lock_guard lock(consume_mutex);
    waiting.emplace(number, std::move(output));
    while (!failure && !waiting.empty() && waiting.begin()->first == next_out) {
      consume(std::move(waiting.begin()->second));
      waiting.erase(waiting.begin());
      ++next_out;
    }
    consumed.notify_all();
  };
  const auto worker = [&] {
    try {
      const auto work = make_work();
      int64_t number = 0;
      while (auto item = take(number)) give(number, work(std::move(*item)));
    } catch (...) {
      const std::lock_guard lock(consume_mutex);
      if (!failure) failure = std::current_exception();
      ended = true;
      consumed.notify_all();
    }
  };
  {
    std::vector<std::jthread> pool;
    for (int64_t t = 1; t < threads; ++t) pool.emplace_back(worker);
    worker();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace kvcast::train
