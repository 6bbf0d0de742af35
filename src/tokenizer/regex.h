// Regular expressions of pre-tokenizers, on valid UTF-8: PCRE2 behind the few things that a
// tokenizer needs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "kvcast/result.h"

namespace kvcast {

/// Immutable; any number of threads, each with its own RegexMatcher. Copies share the program.
class Regex {
 public:
  /// Expressions are Oniguruma's (regex_syntax.h); one that takes ages on a short text is an error.
  /// `where` names the source in messages.
  static Result<Regex> compile(std::string_view pattern, std::string_view where);
  /// Matches `text` itself.
  static Result<Regex> literal(std::string_view text, std::string_view where);

  /// What to match `text`, valid UTF-8, with: this, or, where the text has characters that PCRE2's
  /// tables do not, the same with larger classes. Those take twice the time.
  [[nodiscard]] const Regex& for_text(std::string_view text) const;

  /// The pattern as it was given.
  [[nodiscard]] const std::string& pattern() const { return pattern_; }

 private:
  friend class RegexMatcher;
  struct Code;
  static bool ends_soon(const Regex& regex);
  static Result<std::shared_ptr<const Code>> compile_translated(std::string_view translated,
                                                                std::string_view pattern,
                                                                std::string_view where);
  Regex(std::string pattern, std::shared_ptr<const Code> code)
      : pattern_(std::move(pattern)), code_(std::move(code)) {}
  std::string pattern_;
  std::shared_ptr<const Code> code_;
  std::shared_ptr<const Regex> newer_;  // null if no class would be larger
};

struct RegexMatch {
  size_t begin = 0, end = 0;
};

/// The memory that matching takes; one per thread.
class RegexMatcher {
 public:
  RegexMatcher();
  ~RegexMatcher();
  RegexMatcher(RegexMatcher&&) noexcept;
  RegexMatcher& operator=(RegexMatcher&&) = delete;

  /// The first match at or after `from`, of `regex` as it is (see for_text). None too where the
  /// expression exceeds its limits, which those of known tokenizers do on no text; from then on
  /// there are no more matches, so that a text takes bounded time.
  [[nodiscard]] std::optional<RegexMatch> find(const Regex& regex, std::string_view text,
                                               size_t from);
  /// Calls `sink` with the matches of `regex` in `text` from left to right, which do not overlap.
  /// An empty one directly after another is none, as in `tokenizers`.
  template <typename Sink>
  void for_each(const Regex& regex, std::string_view text, Sink sink) {
    const Regex& program = regex.for_text(text);
    size_t last_end = std::string_view::npos;
    for (size_t at = 0; at <= text.size();) {
      const auto match = find(program, text, at);
      if (!match) return;
      at = match->end;
      if (match->begin == match->end) {  // on to the next character
        do ++at;
        while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80);
        if (match->end == last_end) continue;
      }
      last_end = match->end;
      sink(*match);
    }
  }
  [[nodiscard]] bool gave_up() const { return gave_up_; }

 private:
  friend class Regex;
  explicit RegexMatcher(uint32_t match_limit);
  struct Memory;
  std::unique_ptr<Memory> memory_;
  bool gave_up_ = false;
};

}  // namespace kvcast
