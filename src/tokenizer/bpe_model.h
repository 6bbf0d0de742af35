// Byte pair encoding: which two neighbours of a word become one token, and in which order.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tokenizer/token_index.h"

namespace kvcast {

/// Immutable once filled; any number of threads, each with its own BpeScratch.
class BpeModel {
 public:
  void reserve_merges(size_t merges);
  /// Of two rules for the same pair the first counts. Lower ranks are merged first, of equal ones
  /// the leftmost. Ids are not negative.
  void add_merge(int32_t left, int32_t right, int32_t result, uint32_t rank);

  TokenIndex characters;             ///< tokens of one character; unused if byte_level
  TokenIndex words;                  ///< tokens that a whole word may be at once
  std::array<int32_t, 256> bytes{};  ///< byte_level: the token of each byte; else its byte token
  bool byte_level = false;
  bool byte_fallback = false;
  bool fuse_unknown = false;
  int32_t unknown = -1;

  BpeModel() { bytes.fill(-1); }

  /// Appends the tokens of one word.
  void encode(std::string_view word, class BpeScratch& scratch, std::vector<int32_t>& tokens) const;

 private:
  struct Merge {
    int32_t left = -1, right = -1, result = -1;
    uint32_t rank = 0;
  };
  [[nodiscard]] const Merge* find_merge(int32_t left, int32_t right) const;
  [[nodiscard]] size_t slot_of(int32_t left, int32_t right) const;
  void grow_merges(size_t slots);
  void spell(std::string_view word, BpeScratch& scratch) const;
  void merge(BpeScratch& scratch) const;

  std::vector<Merge> merges_;  // open addressing, a power of two
  size_t merge_count_ = 0;
};

/// Memory of an encoder, and the words that it met lately: text repeats them.
class BpeScratch {
 public:
  /// `text_bytes`: how much text will be encoded, which decides whether words are remembered.
  explicit BpeScratch(size_t text_bytes);

 private:
  friend class BpeModel;
  static constexpr size_t kMaxWordBytes = 39;
  struct KnownWord {
    char text[kMaxWordBytes];
    uint8_t length = 0;
    uint32_t count = 0;
    size_t first = 0;  // where its tokens were put
  };
  struct Symbol {
    int32_t token = -1;
    uint32_t rank = 0;  // of merging it with the next one
    size_t previous = 0, next = 0;
  };

  std::vector<KnownWord> known_;
  std::vector<Symbol> symbols_;
  /// Possible merges, rank before place, the lowest on top.
  std::vector<std::pair<uint32_t, size_t>> heap_;
};

}  // namespace kvcast
