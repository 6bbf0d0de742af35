#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <utility>

namespace kvcast {

/// First in, first out for each client; clients take turns. Not thread-safe.
template <typename T>
class FairQueue {
 public:
  void push(const std::string& client, T item) {
    ++size_;
    for (auto& [name, items] : clients_) {
      if (name == client) return items.push_back(std::move(item));
    }
    clients_.emplace_back(client, std::deque<T>{});
    clients_.back().second.push_back(std::move(item));
  }

  /// The next in turn; the queue must not be empty.
  [[nodiscard]] T& front() { return clients_.front().second.front(); }

  /// Removes front(); its client goes to the end of the line.
  T pop() {
    auto [name, items] = std::move(clients_.front());
    clients_.pop_front();
    T item = std::move(items.front());
    items.pop_front();
    if (!items.empty()) clients_.emplace_back(std::move(name), std::move(items));
    --size_;
    return item;
  }

  /// Removes every item for which `dead(item)` holds.
  template <typename Predicate>
  void remove_if(const Predicate& dead) {
    for (auto& [name, items] : clients_) size_ -= std::erase_if(items, dead);
    std::erase_if(clients_, [](const auto& client) { return client.second.empty(); });
  }

  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }

 private:
  std::deque<std::pair<std::string, std::deque<T>>> clients_;
  size_t size_ = 0;
};

}  // namespace kvcast
