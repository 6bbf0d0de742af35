// Guesses at how an answer goes on, from what its sequence says already.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/repeat_index.h"

namespace kvcast {

/// A token that may come next, after those guessed before it.
struct Guess {
  int32_t token = 0;
  double probability = 0;  ///< that it and all before it do
};

/// One answer's guesses: where prompt and answer end as they did before, they may go on as they
/// did. How often that was right is counted token by token, whether a guess was used or not. Not
/// thread-safe.
class Drafter {
 public:
  /// `most`: guesses that are used at a time, or kDraftsAuto.
  explicit Drafter(int64_t most) : most_(most) {}

  /// GenerateOptions::drafts.
  [[nodiscard]] int64_t most() const { return most_; }
  /// Takes in what `tokens`, all of the sequence, has behind those that are known.
  void follow(std::span<const int32_t> tokens);
  /// Of what is known only the first `tokens` stay.
  void take_back(int64_t tokens);
  /// At most `most` guesses at what follows, valid until the next call.
  [[nodiscard]] std::span<const Guess> guesses(int64_t most);

  /// Of `drafted` guesses that were run, so many were right.
  void count(int64_t drafted, int64_t accepted) {
    drafted_ += drafted;
    accepted_ += accepted;
  }
  [[nodiscard]] int64_t drafted() const { return drafted_; }
  [[nodiscard]] int64_t accepted() const { return accepted_; }

 private:
  /// How often what followed matches of about one length came again; what was long ago counts less.
  struct Experience {
    double right = 0, all = 0;
  };
  static constexpr size_t kLengths = 7;
  static size_t length_class(int64_t length);
  [[nodiscard]] double probability(int64_t length) const;

  int64_t most_;
  RepeatIndex text_;
  RepeatIndex::Match match_;  // of the text as it is
  std::array<Experience, kLengths> experience_;
  std::vector<Guess> guesses_;
  int64_t drafted_ = 0, accepted_ = 0;
};

}  // namespace kvcast
