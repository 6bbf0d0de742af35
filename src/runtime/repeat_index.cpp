#include "runtime/repeat_index.h"

#include <algorithm>

namespace kvcast {
namespace {

/// Places of a chain that are looked at.
constexpr int kTries = 32;
constexpr size_t kFewestSlots = 256;

}  // namespace

size_t RepeatIndex::Chain::slot(std::span<const int32_t> tokens) const {
  uint64_t hash = 0;
  for (int64_t i = std::ssize(tokens) - order_; i < std::ssize(tokens); ++i) {
    hash = (hash ^ static_cast<uint32_t>(tokens[static_cast<size_t>(i)])) * 0x9E3779B97F4A7C15U;
  }
  return (hash >> 32) & (heads_.size() - 1);
}

void RepeatIndex::Chain::append(std::span<const int32_t> tokens) {
  if (std::ssize(tokens) < order_) {
    previous_.push_back(-1);
    return;
  }
  int32_t& head = heads_[slot(tokens)];
  previous_.push_back(head);
  head = static_cast<int32_t>(tokens.size() - 1);
}

void RepeatIndex::Chain::push(std::span<const int32_t> tokens) {
  if (tokens.size() > heads_.size()) {
    heads_.assign(std::max(kFewestSlots, 2 * heads_.size()), -1);
    previous_.clear();
    previous_.reserve(heads_.size());
    for (size_t size = 1; size < tokens.size(); ++size) append(tokens.first(size));
  }
  append(tokens);
}

void RepeatIndex::Chain::pop(std::span<const int32_t> tokens) {
  if (std::ssize(tokens) >= order_) heads_[slot(tokens)] = previous_.back();
  previous_.pop_back();
}

void RepeatIndex::push(int32_t token) {
  tokens_.push_back(token);
  pairs_.push(tokens_);
  singles_.push(tokens_);
}

void RepeatIndex::truncate(int64_t size) {
  while (this->size() > size) {
    pairs_.pop(tokens_);
    singles_.pop(tokens_);
    tokens_.pop_back();
  }
}

int64_t RepeatIndex::common(int64_t place) const {
  const int64_t most = std::min(kLongest, place + 1);
  const int64_t back = size() - 1 - place;
  int64_t length = 0;
  while (length < most && tokens_[static_cast<size_t>(place - length)] ==
                              tokens_[static_cast<size_t>(place + back - length)]) {
    ++length;
  }
  return length;
}

RepeatIndex::Match RepeatIndex::find(const Match& known) const {
  if (tokens_.empty()) return {};
  Match best = known;
  const auto look_through = [&](const Chain& chain) {
    int32_t place = chain.before(size() - 1);
    for (int i = 0; i < kTries && place >= 0 && best.length < kLongest; ++i) {
      const int64_t length = common(place);
      if (length > best.length) best = {.next = place + 1, .length = length};
      place = chain.before(place);
    }
  };
  look_through(pairs_);
  if (best.length == 0) look_through(singles_);
  return best;
}

}  // namespace kvcast
