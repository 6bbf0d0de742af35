// What every tokenizer knows about its tokens: their bytes and what they are for.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvcast {

enum class TokenKind : uint8_t {
  kText,     ///< whole characters, unless the vocabulary is byte-level
  kByte,     ///< one byte of a character that has no token of its own
  kControl,  ///< steers the model and shows nothing: BOS, ends of turns
  kUnknown,  ///< stands for what the vocabulary cannot spell
  kUnused,   ///< a hole or padding: no text gives it, and it shows nothing
};

/// How a text's first space is treated: SentencePiece puts one before the first word.
enum class LeadingSpace {
  kKept,
  kFirstDropped,  ///< the first token of a text loses one leading space
  kAllDropped,    ///< so do the following ones until there is text
};

/// More tokens than any model has; a limit for hostile files.
inline constexpr int64_t kMaxVocabulary = int64_t{1} << 22;

/// Tokens by id.
class Vocabulary {
 public:
  void reserve(size_t tokens, size_t bytes);
  void add(std::string_view bytes, TokenKind kind);

  [[nodiscard]] int64_t size() const { return static_cast<int64_t>(kinds_.size()); }
  [[nodiscard]] bool contains(int32_t id) const { return id >= 0 && id < size(); }
  /// What a token adds to a text; nothing for ids outside the vocabulary.
  [[nodiscard]] std::string_view bytes(int32_t id) const {
    if (!contains(id)) return {};
    const auto at = static_cast<size_t>(id);
    return std::string_view(bytes_).substr(ends_[at], ends_[at + 1] - ends_[at]);
  }
  [[nodiscard]] TokenKind kind(int32_t id) const {
    return contains(id) ? kinds_[static_cast<size_t>(id)] : TokenKind::kUnused;
  }

  bool byte_level = false;  ///< a text token may begin or end inside a character
  LeadingSpace leading_space = LeadingSpace::kKept;

 private:
  std::string bytes_;
  std::vector<size_t> ends_{0};
  std::vector<TokenKind> kinds_;
};

/// How SentencePiece and its heirs write a space inside tokens: U+2581.
inline constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";

/// `text` with every `from` (not empty) replaced.
[[nodiscard]] std::string replace_all(std::string_view text, std::string_view from,
                                      std::string_view to);

}  // namespace kvcast
