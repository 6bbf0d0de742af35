#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "tokenizer/characters.h"

namespace kvcast {

void AddedTokens::add(AddedToken token) {
  if (token.text.empty()) return;
  uint32_t node = 0;
  for (const char c : token.text) {
    auto& next = nodes_[node].next;
    const auto found =
        std::find_if(next.begin(), next.end(), [c](const auto& edge) { return edge.first == c; });
    if (found != next.end()) {
      node = found->second;
      continue;
    }
    const auto made = static_cast<uint32_t>(nodes_.size());
    next.emplace_back(c, made);
    nodes_.emplace_back();  // `next` is gone now
    node = made;
  }
  if (nodes_[node].token < 0) nodes_[node].token = static_cast<int32_t>(tokens_.size());
  begins_[static_cast<uint8_t>(token.text[0])] = true;
  tokens_.push_back(std::move(token));
}

const AddedToken* AddedTokens::longest_at(std::string_view text) const {
  const AddedToken* longest = nullptr;
  uint32_t node = 0;
  for (const char c : text) {
    const auto& next = nodes_[node].next;
    const auto found =
        std::find_if(next.begin(), next.end(), [c](const auto& edge) { return edge.first == c; });
    if (found == next.end()) break;
    node = found->second;
    if (nodes_[node].token >= 0) longest = &tokens_[static_cast<size_t>(nodes_[node].token)];
  }
  return longest;
}

void AddedTokens::cut(std::string_view text, const MatchOptions& options,
                      const std::function<void(TextSegment)>& sink) const {
  size_t done = 0;  // all before it has been handed out
  const auto hand_out_text = [&](size_t end) {
    if (end > done) sink({text.substr(done, end - done), -1, done == 0});
  };
  auto next_break = options.breaks.begin();
  for (size_t at = 0; at < text.size();) {
    if (!begins_[static_cast<uint8_t>(text[at])]) {
      ++at;
      continue;
    }
    while (next_break != options.breaks.end() && *next_break <= at) ++next_break;
    const size_t limit =
        next_break == options.breaks.end() ? text.size() : std::min(*next_break, text.size());
    const AddedToken* token = longest_at(text.substr(at, limit - at));
    if (!token) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + token->text.size();
    at = end;
    if (token->special && !options.special) continue;
    if (token->single_word &&
        (ends_with_word(text.substr(0, begin)) || begins_with_word(text.substr(end)))) {
      continue;
    }
    if (token->lstrip) begin = std::max(done, trailing_space_begin(text.substr(0, begin)));
    if (token->rstrip) end += leading_space_bytes(text.substr(end));
    hand_out_text(begin);
    // As in the reference: white space that the token before took along may be (part of) a token
    // all the same, and what follows it is text again; a token of which nothing is left is none.
    if (begin < end) sink({text.substr(begin, end - begin), token->id, begin == 0});
    done = end;
  }
  hand_out_text(text.size());
}

}  // namespace kvcast
