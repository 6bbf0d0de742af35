// Tokens that are looked for in the text itself, before anything else is done with it: control
// tokens and words that were added to a vocabulary.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvcast {

struct AddedToken {
  std::string text;
  int32_t id = -1;
  bool special = false;      ///< a control token: found only when asked for
  bool single_word = false;  ///< not inside a word
  bool lstrip = false;       ///< takes the white space before it along
  bool rstrip = false;       ///< and after it
  bool normalized = false;   ///< looked for in the normalized text
};

/// A piece of a text: an added token, or (id < 0) text between them.
struct TextSegment {
  std::string_view text;
  int32_t id = -1;
  bool at_start = false;  ///< nothing of the whole text comes before it
};

struct MatchOptions {
  bool special = false;            ///< control tokens too
  std::span<const size_t> breaks;  ///< see EncodeOptions
};

class AddedTokens {
 public:
  /// Empty texts are left out: they would be everywhere. Of two tokens of one text the first is
  /// found.
  void add(AddedToken token);
  [[nodiscard]] const std::vector<AddedToken>& tokens() const { return tokens_; }

  /// Cuts `text` at the leftmost tokens, the longest of several. No segment is empty.
  void cut(std::string_view text, const MatchOptions& options,
           const std::function<void(TextSegment)>& sink) const;

 private:
  struct Node {
    std::vector<std::pair<char, uint32_t>> next;
    int32_t token = -1;  // index into tokens_
  };
  [[nodiscard]] const AddedToken* longest_at(std::string_view text) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_ = std::vector<Node>(1);
  bool begins_[256] = {};  // bytes that some token begins with
};

}  // namespace kvcast
