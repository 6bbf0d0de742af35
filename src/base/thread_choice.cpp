#include "base/thread_choice.h"

#include <algorithm>
#include <cstdlib>

namespace kvcast {
namespace {

/// What another number of threads must bring before it is taken.
constexpr double kWorthIt = 0.97;
/// So much slower, it is not tried further: after a round, and after a call.
constexpr double kHopeless = 1.05;
constexpr double kHopelessAtOnce = 1.25;
constexpr int64_t kFirstCalm = 32;
/// With all threads, and with fewer, where more may be wanted soon.
constexpr int64_t kLongestCalm = 256;
constexpr int64_t kLongestCalmBelow = 64;
/// Where nothing can be compared any more, all threads are taken.
constexpr int64_t kLongestInVain = 512;
/// Rows of context that make no difference.
constexpr int64_t kLikeContext = 64;
/// Fewer are not tried: then each brings something.
constexpr int kFewest = 4;

}  // namespace

ThreadChoice::ThreadChoice(int most) : wait_(kFirstCalm), calm_(kFirstCalm) {
  numbers_.push_back(most);
  for (int n = most * 3 / 4; n >= std::max(kFewest, most / 4); n = n * 3 / 4) {
    numbers_.push_back(n);
  }
  choose_other();
}

int ThreadChoice::threads() const {
  const std::lock_guard lock(mutex_);
  return numbers_[best_];
}

ThreadChoice::Call ThreadChoice::begin() {
  const std::lock_guard lock(mutex_);
  return {numbers_[trying_ ? other_ : best_], ++begun_};
}

void ThreadChoice::end(const Call& call, const Work& work, double ms) {
  const std::lock_guard lock(mutex_);
  if (other_ == best_) return;
  const Work last = last_;
  last_ = work;
  const bool comparable = call.number == begun_ && work.rows == last.rows &&
                          work.sequences == last.sequences &&
                          std::abs(work.context - last.context) <= kLikeContext;
  if (++in_vain_ > kLongestInVain && best_ != 0) {
    best_ = 0;
    choose_other();
    in_vain_ = 0;
    return break_off();  // its times are of others than these two
  }
  if (!comparable || call.threads != numbers_[trying_ ? other_ : best_]) return break_off();
  if (wait_ > 0) {
    --wait_;
    return;
  }
  if (++in_a_row_ == 1) return;
  least_ms_ = in_a_row_ == 2 ? ms : std::min(least_ms_, ms);
  if (trying_ && least_ms_ > kHopelessAtOnce * best_ms_) return keep();
  if (in_a_row_ < kInARow) return;
  in_a_row_ = 0;
  if (!trying_) {
    best_ms_ = least_ms_;
    trying_ = true;
  } else {
    trying_ = false;
    compare(least_ms_ / best_ms_);
  }
}

/// What was begun cannot be compared.
void ThreadChoice::break_off() {
  in_a_row_ = 0;
  if (!trying_ && rounds_ == 0) return;
  trying_ = false;
  rounds_ = 0;
  wait_ = calm_;
  calm_ = std::min(2 * calm_, kLongestCalm);
}

void ThreadChoice::compare(double ratio) {
  ratios_[static_cast<size_t>(rounds_++)] = ratio;
  if (ratio > kHopeless) return keep();
  if (rounds_ < kRounds) return;
  std::ranges::sort(ratios_);
  if (ratios_[kRounds / 2] < kWorthIt) {
    move();
  } else {
    keep();
  }
}

void ThreadChoice::keep() {
  trying_ = false;
  in_a_row_ = rounds_ = 0;
  in_vain_ = 0;
  choose_other();
  wait_ = calm_;
  calm_ = std::min(2 * calm_, best_ == 0 ? kLongestCalm : kLongestCalmBelow);
}

/// And further in the same direction without waiting.
void ThreadChoice::move() {
  const bool down = other_ > best_;
  best_ = other_;
  rounds_ = 0;
  in_vain_ = 0;
  calm_ = kFirstCalm;
  if (down && best_ + 1 < numbers_.size()) {
    other_ = best_ + 1;
  } else if (!down && best_ > 0) {
    other_ = best_ - 1;
  } else {
    choose_other();
  }
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
