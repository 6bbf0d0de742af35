#include "base/thread_choice.h"

#include <algorithm>

namespace kvcast {
namespace {

/// What another number of threads must bring before it is taken.
constexpr double kWorthIt = 0.97;
/// So much slower in its first round, it is not tried further.
constexpr double kHopeless = 1.05;
constexpr int64_t kFirstCalm = 32;
constexpr int64_t kLongestCalm = 1024;
/// Fewer are not tried: then each brings something.
constexpr int kFewest = 4;

}  // namespace

ThreadChoice::ThreadChoice(int most) : wait_(kFirstCalm), calm_(kFirstCalm) {
  numbers_.push_back(most);
  for (int n = most * 3 / 4; n >= std::max(kFewest, most / 4); n = n * 3 / 4) numbers_.push_back(n);
  choose_other();
}

int ThreadChoice::threads() const {
  const std::lock_guard lock(mutex_);
  return numbers_[trying_ ? other_ : best_];
}

void ThreadChoice::took(int64_t kind, double ms) {
  const std::lock_guard lock(mutex_);
  if (other_ == best_) return;
  if (kind != kind_) {  // what was begun cannot be compared
    kind_ = kind;
    in_a_row_ = 0;
    trying_ = false;
  }
  if (wait_ > 0) {
    --wait_;
    return;
  }
  ++in_a_row_;
  if (in_a_row_ == 1) return;
  least_ms_ = in_a_row_ == 2 ? ms : std::min(least_ms_, ms);
  const bool hopeless = trying_ && rounds_ == 0 && least_ms_ > kHopeless * best_ms_;
  if (in_a_row_ < kInARow && !hopeless) return;
  in_a_row_ = 0;
  if (trying_) {
    compare(least_ms_ / best_ms_);
  } else {
    best_ms_ = least_ms_;
  }
  trying_ = !trying_ && wait_ == 0;
}

void ThreadChoice::compare(double ratio) {
  ratios_[static_cast<size_t>(rounds_++)] = ratio;
  if (rounds_ == 1 && ratio > kHopeless) return end_of_rounds(false);
  if (rounds_ < kRounds) return;
  std::ranges::sort(ratios_);
  end_of_rounds(ratios_[kRounds / 2] < kWorthIt);
}

void ThreadChoice::end_of_rounds(bool moves) {
  rounds_ = 0;
  if (moves) {
    const bool down = other_ > best_;
    best_ = other_;
    calm_ = kFirstCalm;
    // Further in the same direction.
    if (down && best_ + 1 < numbers_.size()) {
      other_ = best_ + 1;
    } else if (!down && best_ > 0) {
      other_ = best_ - 1;
    } else {
      choose_other();
    }
    return;  // without waiting
  }
  choose_other();
  wait_ = calm_;
  calm_ = std::min(2 * calm_, kLongestCalm);
}

void ThreadChoice::choose_other() {
  const bool below = best_ + 1 < numbers_.size();
  if (best_ > 0 && (other_ > best_ || !below)) {
    other_ = best_ - 1;
  } else {
    other_ = below ? best_ + 1 : best_;
  }
}

}  // namespace kvcast
