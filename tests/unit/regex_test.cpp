#include "tokenizer/regex.h"

#include <gtest/gtest.h>

namespace kvcast {
namespace {

/// All matches, with '|' between them.
std::string matches(std::string_view pattern, std::string_view text) {
  const auto regex = Regex::compile(pattern, "test");
  EXPECT_TRUE(regex) << regex.error().message;
  RegexMatcher matcher;
  std::string found;
  for (size_t at = 0; at < text.size();) {
    const auto match = matcher.find(*regex, text, at);
    if (!match) break;
    found += std::string(text.substr(match->begin, match->end - match->begin)) + "|";
    at = std::max(match->end, at + 1);
  }
  return found;
}

TEST(RegexTest, WhiteSpaceIsUnicodes) {
  EXPECT_EQ(matches("\\s", "a\u0085b\u00a0c\u3000d\u180ee\u200bf"), "\u0085|\u00a0|\u3000|");
  EXPECT_EQ(matches("[^\\s]+", "a\u00a0b\u180ec"), "a|b\u180ec|");
  EXPECT_EQ(matches("\\S+", "a\u2028b"), "a|b|");
}

TEST(RegexTest, ClassesAndCaseAreUnicodes) {
  EXPECT_EQ(matches("\\p{L}+", "Stra\u00dfe \u65e5\u672c1"), "Stra\u00dfe|\u65e5\u672c|");
  EXPECT_EQ(matches("(?i:'s)", "'S '\u017f"), "'S|'\u017f|");
  EXPECT_EQ(matches("[[:alpha:]]+", "ab1c"), "ab|c|");
}

TEST(RegexTest, ALiteralIsItself) {
  for (const std::string text : {"a.b", "[x]", "\\s", "(?i:", "$^", "\u2581", "|", "a-b", "#"}) {
    const auto regex = Regex::literal(text, "test");
    ASSERT_TRUE(regex) << regex.error().message;
    RegexMatcher matcher;
    const auto match = matcher.find(*regex, "xx" + text, 0);
    ASSERT_TRUE(match) << text;
    EXPECT_EQ(match->begin, 2U);
    EXPECT_EQ(match->end, 2 + text.size());
  }
}

TEST(RegexTest, LongRunsAreMatchedWhole) {
  const std::string run(5 << 20, ' ');
  const auto regex = Regex::compile("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", "test");
  ASSERT_TRUE(regex);
  RegexMatcher matcher;
  const auto match = matcher.find(*regex, run + "x", 0);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->end, run.size() - 1);
  const auto groups = Regex::compile("(?:\\p{L}\\p{M}*)+", "test");
  ASSERT_TRUE(groups);
  const std::string letters(1 << 15, 'a');
  const auto word = matcher.find(*groups, letters, 0);
  ASSERT_TRUE(word);
  EXPECT_EQ(word->end, letters.size());
}

TEST(RegexTest, WhatNeverEndsGivesUp) {
  const auto regex = Regex::compile("(a+)+b", "test");
  ASSERT_TRUE(regex);
  RegexMatcher matcher;
  EXPECT_FALSE(matcher.find(*regex, std::string(60, 'a') + "c", 0));
}

}  // namespace
}  // namespace kvcast
