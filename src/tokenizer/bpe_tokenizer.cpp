#include "tokenizer/bpe_tokenizer.h"

namespace kvcast {

void BpeTokenizer::encode_segments(std::span<const TextSegment> segments,
                                   std::vector<int32_t>& tokens) const {
  size_t text_bytes = 0;
  for (const TextSegment& segment : segments) text_bytes += segment.text.size();
  BpeScratch scratch(text_bytes);
  RegexMatcher matcher;
  std::string buffer;
  const PreTokenizer::Sink append_word = [&](std::string_view word) {
    model_.encode(word, scratch, tokens);
  };
  for (const TextSegment& segment : segments) {
    if (segment.id >= 0) {
      tokens.push_back(segment.id);
      continue;
    }
    const std::string_view normal = normalizer_.apply(segment.text, matcher, buffer);
    added_after_normalizing_.cut(normal, {}, [&](TextSegment part) {
      if (part.id >= 0) {
        tokens.push_back(part.id);
      } else {
        pre_tokenizer_.apply(part.text, segment.at_start && part.at_start, matcher, append_word);
      }
    });
  }
}

}  // namespace kvcast
