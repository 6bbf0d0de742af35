#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <new>
#include <stop_token>
#include <thread>
#include <utility>

namespace kvcast {

/// One thread that runs tasks in the order in which they came. post() may be called from any
/// thread. What is still waiting at the end is dropped, not run.
class WorkThread {
 public:
  void post(std::function<void()> task) {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    changed_.notify_one();
  }

 private:
  void run(const std::stop_token& stop) {
    while (true) {
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [this] { return !tasks_.empty(); })) return;
      if (stop.stop_requested()) return;
      const std::function<void()> task = std::exchange(tasks_.front(), {});
      tasks_.pop_front();
      lock.unlock();
      try {
        task();
      } catch (const std::bad_alloc&) {  // what it was for is gone with it
      }
    }
  }

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::function<void()>> tasks_;
  // Last: it is joined before the rest goes.
  std::jthread thread_{[this](const std::stop_token& stop) { run(stop); }};
};

}  // namespace kvcast
