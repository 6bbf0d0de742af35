// Text to tokens and back, whatever the vocabulary was read from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kvcast/result.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/vocabulary.h"

namespace kvcast {

struct EncodeOptions {
  bool add_special = false;    ///< what the model wants around a text: BOS, for some EOS
  bool parse_special = false;  ///< names of control tokens become them; else they are plain text
  /// Byte positions in the text, ascending, that no control token's name may reach across: where a
  /// chat template put what a user wrote.
  std::span<const size_t> breaks;
};

/// What surrounds a text, and which tokens have a part of their own.
struct SpecialTokens {
  int32_t bos = -1, eos = -1;          ///< -1: there is none
  std::vector<int32_t> before, after;  ///< what add_special puts around a text
};

/// Immutable after loading; all methods may be called from any number of threads.
class Tokenizer {
 public:
  /// A tokenizer.json or a SentencePiece tokenizer.model, told apart by what is in it; its
  /// tokenizer_config.json beside it counts too. Errors name the file.
  static Result<std::unique_ptr<Tokenizer>> load(const std::filesystem::path& file);
  virtual ~Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// Bytes that are not UTF-8 become U+FFFD, one each.
  [[nodiscard]] std::vector<int32_t> encode(std::string_view text,
                                            const EncodeOptions& options) const;
  [[nodiscard]] std::vector<int32_t> encode(std::string_view text, bool add_special) const {
    return encode(text, EncodeOptions{.add_special = add_special, .breaks = {}});
  }

  /// Text of a whole sequence, valid UTF-8. Control tokens and ids outside the vocabulary give
  /// nothing; a space that the tokenizer puts before the first word is taken away again.
  [[nodiscard]] std::string decode(std::span<const int32_t> tokens) const;

  /// Bytes that one token adds in the middle of a text: its leading space kept, nothing for control
  /// tokens and ids outside the vocabulary.
  [[nodiscard]] std::string piece_bytes(int32_t token) const;

  /// SentencePiece's score of a piece: minus its rank in BPE models, a log probability in unigram
  /// ones. 0 where the vocabulary has none.
  [[nodiscard]] virtual float piece_score(int32_t /*token*/) const { return 0; }

  /// Name and id of every control token ("<s>", "<|im_end|>", ...), which no text encodes to unless
  /// parse_special is set.
  [[nodiscard]] std::vector<std::pair<std::string, int32_t>> control_tokens() const;

  [[nodiscard]] int64_t vocab_size() const { return vocabulary_.size(); }
  [[nodiscard]] const Vocabulary& vocabulary() const { return vocabulary_; }
  /// -1 if the model has none, as for eos_token().
  [[nodiscard]] int32_t bos_token() const { return special_.bos; }
  [[nodiscard]] int32_t eos_token() const { return special_.eos; }
  /// Whether encode() with add_special begins with BOS.
  [[nodiscard]] bool adds_bos() const;
  /// eos_token() and control tokens by which models are known to end an answer or a turn
  /// ("<|im_end|>", "<|eot_id|>", ...); ascending.
  [[nodiscard]] std::vector<int32_t> end_tokens() const;

  /// The file that it was read from, and what kind of vocabulary it is: "SentencePiece", "BPE".
  [[nodiscard]] const std::string& source() const { return source_; }
  [[nodiscard]] virtual std::string_view type() const = 0;
  /// Two tokenizers of equal digests give the same ids for the same text (unused ids at a
  /// vocabulary's end, and what surrounds a text, do not count).
  [[nodiscard]] uint64_t digest() const { return digest_; }

 protected:
  Tokenizer() = default;
  /// Appends the tokens of `segments`, those between added tokens included.
  virtual void encode_segments(std::span<const TextSegment> segments,
                               std::vector<int32_t>& tokens) const = 0;

  std::string source_;
  Vocabulary vocabulary_;
  SpecialTokens special_;
  AddedTokens added_;  // looked for in the text as it comes
  uint64_t digest_ = 0;
};

/// Turns generated tokens into text as they come; what push() and flush() return, concatenated,
/// equals Tokenizer::decode of all tokens, and no returned string ends inside a UTF-8 character.
/// One per sequence, one thread at a time; the tokenizer must outlive it.
class IncrementalDetokenizer {
 public:
  enum class Start {
    kNewText,        ///< the first word's leading space is dropped, as decode() does
    kContinuesText,  ///< the tokens follow a prompt: leading spaces are kept
  };
  explicit IncrementalDetokenizer(const Tokenizer& tokenizer, Start start = Start::kContinuesText);

  /// Text that `token` completes; empty while a character's bytes are still missing.
  [[nodiscard]] std::string push(int32_t token);

  /// What is still held back, as U+FFFD for each byte of an unfinished character. The next push()
  /// starts afresh in the middle of the text.
  [[nodiscard]] std::string flush();

 private:
  [[nodiscard]] std::string take_settled_bytes();
  [[nodiscard]] std::string_view without_leading_space(std::string_view text, TokenKind kind);

  const Vocabulary* vocabulary_;
  std::string pending_;           // bytes of a character that may still be completed
  bool at_start_;                 // nothing but dropped spaces so far
  bool dropped_a_space_ = false;  // the last token that is no byte lost its leading space
};

}  // namespace kvcast
