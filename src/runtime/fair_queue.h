#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <list>
#include <string>
#include <utility>

namespace kvcast {

/// First in, first out for each client; clients take turns. Not thread-safe.
template <typename T>
class FairQueue {
 public:
  /// std::bad_alloc leaves everything as it was; only this one throws.
  void push(const std::string& client, T item) {
    auto at = std::ranges::find(clients_, client, &Client::first);
    if (at != clients_.end()) {
      at->second.push_back(std::move(item));
    } else {
      std::list<Client> added(1);
      added.front().first = client;
      added.front().second.push_back(std::move(item));
      clients_.splice(clients_.end(), added);
    }
    ++size_;
  }

  /// The next in turn; the queue must not be empty.
  [[nodiscard]] T& front() { return clients_.front().second.front(); }

  /// Removes front(); its client goes to the end of the line.
  T pop() {
    auto& items = clients_.front().second;
    T item = std::move(items.front());
    items.pop_front();
    --size_;
    if (items.empty()) {
      clients_.pop_front();
    } else {
      clients_.splice(clients_.end(), clients_, clients_.begin());
    }
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
  using Client = std::pair<std::string, std::deque<T>>;
  std::list<Client> clients_;
  size_t size_ = 0;
};

}  // namespace kvcast
