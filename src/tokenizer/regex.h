// Regular expressions of pre-tokenizers, on valid UTF-8: PCRE2 behind the few things that a
// tokenizer needs.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "kvcast/result.h"

namespace kvcast {

/// Immutable; any number of threads, each with its own RegexMatcher. Copies share the program.
class Regex {
 public:
  /// Expressions are written for Oniguruma and Rust's regex; what PCRE2 would read otherwise is
  /// translated (\s, \S) or refused (sets of sets). `where` names the source in messages.
  static Result<Regex> compile(std::string_view pattern, std::string_view where);
  /// Matches `text` itself.
  static Result<Regex> literal(std::string_view text, std::string_view where);

  /// The pattern as it was given.
  [[nodiscard]] const std::string& pattern() const { return pattern_; }

 private:
  friend class RegexMatcher;
  struct Code;
  Regex(std::string pattern, std::shared_ptr<const Code> code)
      : pattern_(std::move(pattern)), code_(std::move(code)) {}
  std::string pattern_;
  std::shared_ptr<const Code> code_;
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

  /// The first match at or after `from`. None too where the expression exceeds its limits, which
  /// those of known tokenizers do on no text.
  [[nodiscard]] std::optional<RegexMatch> find(const Regex& regex, std::string_view text,
                                               size_t from);

 private:
  struct Memory;
  std::unique_ptr<Memory> memory_;
};

}  // namespace kvcast
