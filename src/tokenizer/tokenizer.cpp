#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <array>

#include "base/utf8.h"

namespace kvcast {

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::string mended;
  if (!is_valid_utf8(text)) {
    mended = replace_invalid_utf8(text);
    text = mended;
  }
  std::vector<TextSegment> segments;
  added_.cut(text, {.special = options.parse_special, .breaks = options.breaks},
             [&](TextSegment segment) { segments.push_back(segment); });
  std::vector<int32_t> tokens;
  tokens.reserve(text.size() / 4 + special_.before.size() + special_.after.size());
  if (options.add_special) tokens = special_.before;
  encode_segments(segments, tokens);
  if (options.add_special) {
    tokens.insert(tokens.end(), special_.after.begin(), special_.after.end());
  }
  return tokens;
}

std::string Tokenizer::piece_bytes(int32_t token) const {
  return std::string(vocabulary_.bytes(token));
}

std::vector<std::pair<std::string, int32_t>> Tokenizer::control_tokens() const {
  std::vector<std::pair<std::string, int32_t>> tokens;
  for (const AddedToken& token : added_.tokens()) {
    if (token.special) tokens.emplace_back(token.text, token.id);
  }
  std::sort(tokens.begin(), tokens.end(),
            [](const auto& a, const auto& b) { return a.second < b.second; });
  return tokens;
}

bool Tokenizer::adds_bos() const {
  return special_.bos >= 0 && !special_.before.empty() && special_.before.front() == special_.bos;
}

std::vector<int32_t> Tokenizer::end_tokens() const {
  // Files name one end token at best; chat models end turns with one and texts with another.
  static constexpr std::array<std::string_view, 11> kEnds = {
      "</s>",           "<|endoftext|>", "<|im_end|>",      "<|eot_id|>", "<|eom_id|>",
      "<|end|>",        "<end_of_turn>", "<|end_of_text|>", "<eos>",      "<|END_OF_TURN_TOKEN|>",
      "<|end_of_turn|>"};
  std::vector<int32_t> ends;
  if (special_.eos >= 0) ends.push_back(special_.eos);
  for (const auto& [name, id] : control_tokens()) {
    if (std::find(kEnds.begin(), kEnds.end(), name) != kEnds.end()) ends.push_back(id);
  }
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  return ends;
}

}  // namespace kvcast
