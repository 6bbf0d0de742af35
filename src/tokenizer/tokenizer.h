// Text to tokens and back, through the SentencePiece library.
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

namespace kvcast {

/// A SentencePiece tokenizer.model. Immutable after loading; all methods may be called from any
/// number of threads.
class Tokenizer {
 public:
  static Result<std::unique_ptr<Tokenizer>> load(const std::filesystem::path& tokenizer_model);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// Tokens of `text` as Llama's tokenizer gives them: BOS first if asked for (and if the model has
  /// one), then SentencePiece's pieces. Text that looks like a control token ("</s>") is plain
  /// text; bytes that are not UTF-8 become U+FFFD.
  [[nodiscard]] std::vector<int32_t> encode(std::string_view text, bool add_bos) const;

  /// Text of a whole sequence, valid UTF-8. Control tokens and ids outside the vocabulary give
  /// nothing; the space that SentencePiece puts before the first word is taken away again.
  [[nodiscard]] std::string decode(std::span<const int32_t> tokens) const;

  /// Bytes that one token adds in the middle of a text: its leading space kept, a byte piece as its
  /// one byte, nothing for control tokens and ids outside the vocabulary.
  [[nodiscard]] std::string piece_bytes(int32_t token) const;

  /// The score of a token's piece: minus its rank in BPE models, a log probability in unigram ones.
  [[nodiscard]] float piece_score(int32_t token) const;

  /// Name and id of every control token ("<s>", "</s>", ...), which no text encodes to.
  [[nodiscard]] std::vector<std::pair<std::string, int32_t>> control_tokens() const;

  [[nodiscard]] int64_t vocab_size() const;
  /// -1 if the model has none, as for eos_token().
  [[nodiscard]] int32_t bos_token() const;
  [[nodiscard]] int32_t eos_token() const;

 private:
  friend class IncrementalDetokenizer;
  struct Implementation;
  explicit Tokenizer(std::unique_ptr<Implementation> implementation);
  std::unique_ptr<Implementation> implementation_;
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
  [[nodiscard]] std::string piece_text(int32_t token);

  const Tokenizer* tokenizer_;
  std::string pending_;           // bytes of a character that may still be completed
  bool at_start_;                 // nothing but dropped spaces so far
  bool dropped_a_space_ = false;  // the last non-byte piece lost its leading space
};

}  // namespace kvcast
