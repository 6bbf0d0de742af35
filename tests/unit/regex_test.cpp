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
    const auto match = matcher.find(regex->for_text(text), text, at);
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

TEST(RegexTest, WhatNeverEndsIsRefused) {
  for (const std::string pattern :
       {"(a+)+b", "(\\s+)+x", "(?:\\p{L}|\\p{L}\\p{M}*)+!", "(.*)*.*,.*;$", "(\u00e9*)*\u00e8",
        "\\d*\\d*\\d*\\d*\\d*x", "(?:0|\\d)+x"}) {
    const auto regex = Regex::compile(pattern, "test");
    ASSERT_FALSE(regex) << pattern;
    EXPECT_NE(regex.error().message.find("test: regex \"" + pattern + "\": backtracks"),
              std::string::npos);
  }
}

/// Characters by number are none that compiling tries.
TEST(RegexTest, WhatNeverEndsAllTheSameGivesUpOnceInAText) {
  const auto regex = Regex::compile("(?:\\x{500}+)+\\x{501}", "test");
  ASSERT_TRUE(regex) << regex.error().message;
  std::string text;
  for (int i = 0; i < 60; ++i) text += "\u0500";
  RegexMatcher matcher;
  EXPECT_FALSE(matcher.find(*regex, text + "c\u0501", 0));
  EXPECT_TRUE(matcher.gave_up());
  EXPECT_FALSE(matcher.find(*regex, "\u0500\u0501", 0));
  EXPECT_TRUE(RegexMatcher().find(*regex, "\u0500\u0501", 0));
}

/// As `tokenizers` 0.23 splits with these patterns.
TEST(RegexTest, OnigurumasSyntaxIsUnderstood) {
  EXPECT_EQ(matches("^a", "a\na\nb"), "a|a|");
  EXPECT_EQ(matches("a$", "xa\na"), "a|a|");
  EXPECT_EQ(matches(".+", "a\nb"), "a|b|");
  EXPECT_EQ(matches("(?m).+", "a\nb"), "a\nb|");
  EXPECT_EQ(matches("(?mi:A.)", "a\nb"), "a\n|");
  EXPECT_EQ(matches("\\h+", "09afg \t"), "09af|");
  EXPECT_EQ(matches("[\\h]+", "09afg \t"), "09af|");
  EXPECT_EQ(matches("a{,2}", "aaa"), "aa|a|");
  EXPECT_EQ(matches("\\b\u00e9\\b", "\u00e9 \u00e9!\u00e9\u0301"), "\u00e9|\u00e9|");
  EXPECT_EQ(matches("\\w+", "a\u0301_\u203f\u24b6\u00b2-\u2160\u2070"),
            "a\u0301_\u203f\u24b6\u00b2|\u2160|");
  EXPECT_EQ(matches("\\W+", "a-b"), "-|");
  EXPECT_EQ(matches("\\p{^L}+", "ab12"), "12|");
  EXPECT_EQ(matches("[[:space:]]+", "a \u2003\u180e"), " \u2003|");
  EXPECT_EQ(matches("[]a]+", "]a]b"), "]a]|");
  EXPECT_EQ(matches("\\p{Han}+", "\u4e2d\u3001\u3005"), "\u4e2d|\u3005|");
}

/// Characters of Unicode 15 and 16, which PCRE2 10.42 does not know.
TEST(RegexTest, NewerCharactersHaveTheirClasses) {
  EXPECT_EQ(matches("\\p{L}+", "x\U00031350\u1c89 y"), "x\U00031350\u1c89|y|");
  EXPECT_EQ(matches("[^\\s\\p{L}\\p{N}]+", "a\U000105c0-\U00010d40\U0001fae8"), "-|\U0001fae8|");
  EXPECT_EQ(matches("\\p{Nd}+", "1\U00010d40\U0001d2c0"), "1\U00010d40|");
  EXPECT_EQ(matches("\\P{N}+", "a\U00010d40b"), "a|b|");
  EXPECT_EQ(matches("\\p{Lu}+|\\p{Ll}+", "A\ua7daa\ua7db"), "A\ua7da|a\ua7db|");
  EXPECT_EQ(matches("\\p{Han}+", "\U00031350\u4e2d"), "\U00031350\u4e2d|");
}

}  // namespace
}  // namespace kvcast
