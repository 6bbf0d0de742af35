// Where a text says again what it ends with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kvcast {

/// A text of tokens, found again by its end: chains of earlier places with the same last two
/// tokens, and with the same last one, as LZ77 has them. A token more or less costs the same at any
/// length. Not thread-safe.
class RepeatIndex {
 public:
  /// Tokens that are compared at most, from the end backwards.
  static constexpr int64_t kLongest = 32;

  /// An earlier place whose last `length` tokens are those that the text ends with.
  struct Match {
    int64_t next = 0;    ///< place of the token that followed there
    int64_t length = 0;  ///< 0: there is none
  };

  void push(int32_t token);
  /// Only the first `size` tokens stay.
  void truncate(int64_t size);
  [[nodiscard]] int64_t size() const { return std::ssize(tokens_); }

  /// The longest match among the last places of the chain, of equal ones the last. `known`: a match
  /// that is at least as good as any shorter or equal one.
  [[nodiscard]] Match find(const Match& known) const;
  [[nodiscard]] Match find() const { return find({}); }

  /// What followed a match, token `i` of it. Behind the end of the text it goes on with itself.
  [[nodiscard]] int32_t following(const Match& match, int64_t i) const {
    return tokens_[static_cast<size_t>(match.next + i % (size() - match.next))];
  }

 private:
  /// Places by a hash of the tokens that end there, the last place first.
  class Chain {
   public:
    /// Of the last `order` tokens.
    explicit Chain(int64_t order) : order_(order) {}
    void push(std::span<const int32_t> tokens);
    void pop(std::span<const int32_t> tokens);
    /// The place before `place` in its chain, -1 if that is the first.
    [[nodiscard]] int32_t before(int64_t place) const {
      return previous_[static_cast<size_t>(place)];
    }

   private:
    [[nodiscard]] size_t slot(std::span<const int32_t> tokens) const;
    void append(std::span<const int32_t> tokens);

    int64_t order_;
    std::vector<int32_t> heads_;     // [a power of two]; -1: none
    std::vector<int32_t> previous_;  // [tokens]; -1: none
  };
  /// Tokens that the text's end and its beginning up to and with `place` end with alike, at most
  /// kLongest.
  [[nodiscard]] int64_t common(int64_t place) const;

  std::vector<int32_t> tokens_;
  Chain pairs_{2}, singles_{1};
};

}  // namespace kvcast
