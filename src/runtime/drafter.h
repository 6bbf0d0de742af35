// Guesses at how an answer goes on, from what its sequence says already, and what is known of an
// auxiliary's.
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
/// did. How often that was right is counted token by token, whether a guess was used or not; and
/// how often what an auxiliary would have said (run_auxiliaries). Not thread-safe.
class Drafter {
 public:
  /// `most`: guesses that are used at a time, or kDraftsAuto. `asks_auxiliary`: where the text has
  /// nothing to say, the auxiliary may guess (auxiliary_may_guess).
  explicit Drafter(int64_t most, bool asks_auxiliary = false)
      : most_(most), asks_auxiliary_(asks_auxiliary) {}

  /// GenerateOptions::drafts.
  [[nodiscard]] int64_t most() const { return most_; }
  [[nodiscard]] bool asks_auxiliary() const { return asks_auxiliary_; }
  /// Takes in what `tokens`, all of the sequence, has behind those that are known.
  void follow(std::span<const int32_t> tokens);
  /// Of what is known only the first `tokens` stay.
  void take_back(int64_t tokens);
  /// At most `most` guesses at what follows, valid until the next call.
  [[nodiscard]] std::span<const Guess> guesses(int64_t most);

  /// How likely a token is the answer's that the auxiliary gives this probability, its highest, as
  /// far as that is known of this answer; of one that it has yet to choose, without an argument.
  [[nodiscard]] double trust(double auxiliary_probability) const;
  [[nodiscard]] double trust() const { return probability(any_); }
  /// The auxiliary's choice was the answer's, or was not.
  void judge(double auxiliary_probability, bool right);
  /// A token was written about which the auxiliary was not asked: what is known of it grows old.
  void pass();

  /// Of `drafted` guesses that were run, so many were right.
  void count(int64_t drafted, int64_t accepted) {
    drafted_ += drafted;
    accepted_ += accepted;
  }
  [[nodiscard]] int64_t drafted() const { return drafted_; }
  [[nodiscard]] int64_t accepted() const { return accepted_; }

 private:
  /// How often guesses of one kind came true; what was long ago counts less.
  struct Experience {
    double expected = 0;  ///< before anything is known of an answer
    double right = 0, all = 0;

    void add(bool came_true);
  };
  static double probability(const Experience& experience);
  static constexpr size_t kLengths = 7;
  static size_t length_class(int64_t length);
  static size_t probability_class(double probability);

  int64_t most_;
  bool asks_auxiliary_;
  RepeatIndex text_;
  RepeatIndex::Match match_;  // of the text as it is
  /// What followed matches of 1, 2, 3, 4-5, 6-9, 10-19 and more tokens.
  std::array<Experience, kLengths> matches_ = {
      {{0.1}, {0.25}, {0.4}, {0.5}, {0.65}, {0.75}, {0.85}}};
  /// What the auxiliary gave a probability below 0.3, 0.5, 0.7, 0.9 and more, and all of that.
  std::array<Experience, 5> choices_ = {{{0.3}, {0.45}, {0.65}, {0.85}, {0.97}}};
  Experience any_ = {0.85};
  std::vector<Guess> guesses_;
  int64_t drafted_ = 0, accepted_ = 0;
};

}  // namespace kvcast
