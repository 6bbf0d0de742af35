#include "runtime/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace kvcast {

StopMatcher::StopMatcher(std::span<const std::string> stop_strings) {
  for (const std::string& text : stop_strings) {
    if (text.empty()) continue;
    Pattern pattern{text, std::vector<size_t>(text.size(), 0)};
    for (size_t i = 1, border = 0; i < text.size(); ++i) {
      while (border > 0 && text[i] != text[border]) border = pattern.border[border - 1];
      if (text[i] == text[border]) ++border;
      pattern.border[i] = border;
    }
    patterns_.push_back(std::move(pattern));
  }
}

bool StopMatcher::Pattern::advance(char byte) {
  while (matched > 0 && byte != text[matched]) matched = border[matched - 1];
  if (byte == text[matched]) ++matched;
  return matched == text.size();
}

std::string StopMatcher::push(std::string_view text) {
  if (stopped_) return {};
  for (const char byte : text) {
    held_.push_back(byte);
    size_t completed = 0;  // length of the longest stop string that ends here
    for (Pattern& pattern : patterns_) {
      if (pattern.advance(byte)) completed = std::max(completed, pattern.text.size());
    }
    if (completed > 0) {
      stopped_ = true;
      held_.resize(held_.size() - completed);
      return std::exchange(held_, {});
    }
  }
  size_t undecided = 0;
  for (const Pattern& pattern : patterns_) undecided = std::max(undecided, pattern.matched);
  std::string certain = held_.substr(0, held_.size() - undecided);
  held_.erase(0, certain.size());
  return certain;
}

std::string StopMatcher::flush() { return std::exchange(held_, {}); }

}  // namespace kvcast
