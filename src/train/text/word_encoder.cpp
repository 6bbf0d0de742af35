#include "train/text/word_encoder.h"

#include <cmath>
#include <set>

namespace kvcast::train {
namespace {

constexpr size_t kMaxCachedBytes = 32;               // longer words hardly repeat
constexpr size_t kMaxCachedWords = size_t{1} << 17;  // some 20 MB a thread
/// What SentencePiece puts for an unknown character; not a piece of text.
constexpr std::string_view kUnknown = "\xe2\x81\x87";

/// SentencePiece's own sign for a space means the same when a text holds it.
constexpr std::string_view kSpaceSign = "\xe2\x96\x81";

/// Length of the space at text[at], 0 if there is none.
size_t space_bytes(std::string_view text, size_t at) {
  if (at >= text.size()) return 0;
  if (text[at] == ' ') return 1;
  return text.substr(at, kSpaceSign.size()) == kSpaceSign ? kSpaceSign.size() : 0;
}

/// The word that begins at text[0]: a line break, or spaces and what follows them.
std::string_view first_word(std::string_view text) {
  if (text.front() == '\n') return text.substr(0, 1);
  size_t end = 0;
  while (const size_t space = space_bytes(text, end)) end += space;
  while (end < text.size() && text[end] != '\n' && space_bytes(text, end) == 0) ++end;
  return text.substr(0, end);
}

/// Whether a piece's text lies inside one word.
bool fits_in_a_word(std::string_view piece) {
  return piece.empty() || piece == "\n" || first_word(piece).size() == piece.size();
}

}  // namespace

size_t line_break_tokens(const Tokenizer& tokenizer) {
  if (tokenizer.type() != "SentencePiece") return 0;  // which remember their words themselves
  const auto line_break = tokenizer.encode("\n", false);
  if (line_break.empty() || tokenizer.piece_bytes(line_break.back()) != "\n") return 0;
  std::set<int32_t> control;
  for (const auto& [name, id] : tokenizer.control_tokens()) control.insert(id);
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string piece = tokenizer.piece_bytes(id);
    if (control.contains(id) || piece.find(kUnknown) != std::string::npos) continue;
    // Scores that are no ranks: a unigram model, which rounds sums over the whole text.
    const float score = tokenizer.piece_score(id);
    if (score != std::floor(score) || !fits_in_a_word(piece)) return 0;
  }
  // Normalisers change white space and letters; these show whether they look beyond a word.
  for (const std::string_view text :
       {"  two  words \n here ", "\n\n \n", "tab\t space\t\tx",
        "\xef\xac\x81 \xef\xbc\xa1 e\xcc\x81", "wide\xe3\x80\x80 space", "\xc2\xa0 nbsp \xc2\xa0",
        "a\r\nb \r\n", "x = 10  # 3.5", " ", "\n"}) {
    std::vector<int32_t> by_words;
    WordEncoder(tokenizer, line_break.size()).encode(text, by_words);
    if (by_words != tokenizer.encode(text, false)) return 0;
  }
  return line_break.size();
}

void WordEncoder::encode(std::string_view text, std::vector<int32_t>& ids) {
  if (text.empty()) return;
  // SentencePiece may put a space before the first word.
  const std::string_view first = line_break_tokens_ == 0 ? text : first_word(text);
  const auto first_ids = tokenizer_.encode(first, false);
  ids.insert(ids.end(), first_ids.begin(), first_ids.end());
  text.remove_prefix(first.size());
  while (!text.empty()) {
    const std::string_view word = first_word(text);
    encode_word(word, ids);
    text.remove_prefix(word.size());
  }
}

void WordEncoder::encode_word(std::string_view word, std::vector<int32_t>& ids) {
  if (const auto found = cache_.find(word); found != cache_.end()) {
    const auto from = cached_ids_.begin() + static_cast<std::ptrdiff_t>(found->second.first);
    ids.insert(ids.end(), from, from + static_cast<std::ptrdiff_t>(found->second.count));
    return;
  }
  // After a line break, which no piece crosses, a word is encoded as it is.
  after_line_break_.assign("\n").append(word);
  const auto encoded = tokenizer_.encode(after_line_break_, false);
  const auto from = encoded.begin() + static_cast<std::ptrdiff_t>(line_break_tokens_);
  if (word.size() <= kMaxCachedBytes && cache_.size() < kMaxCachedWords) {
    const auto count = static_cast<size_t>(encoded.end() - from);
    cache_.emplace(word, Span{cached_ids_.size(), count});
    cached_ids_.insert(cached_ids_.end(), from, encoded.end());
  }
  ids.insert(ids.end(), from, encoded.end());
}

}  // namespace kvcast::train
