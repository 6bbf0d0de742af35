#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvcast {

/// Cuts streamed text at a stop string. Text that may be the beginning of one is held back until
/// that is decided, so nothing has to be taken back. How the text is cut into pushes makes no
/// difference. Of several stop strings the one that is completed first counts; if two end
/// together, the longer. Given whole characters it returns whole characters. Not thread-safe.
class StopMatcher {
 public:
  /// Empty stop strings are ignored.
  explicit StopMatcher(std::span<const std::string> stop_strings);

  /// Text that is now certain to come before any stop string; nothing after a match.
  [[nodiscard]] std::string push(std::string_view text);

  /// What was held back, when no more text comes.
  [[nodiscard]] std::string flush();

  /// True once a stop string has appeared. Neither it nor anything after it is returned.
  [[nodiscard]] bool stopped() const { return stopped_; }

 private:
  /// Knuth-Morris-Pratt: after each byte, how much of the stop string the text ends with.
  struct Pattern {
    std::string text;
    std::vector<size_t> border;  // [length] longest proper prefix of text[0..i] that is its suffix
    size_t matched = 0;
    bool advance(char byte);  // true: complete
  };

  std::vector<Pattern> patterns_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace kvcast
