#include "runtime/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace kvcast {
namespace {

using Strings = std::vector<std::string>;

// The slow twin on the whole text: cut before the match that ends first, the longest if several do.
std::string cut(const std::string& text, const Strings& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (!stop.empty() && std::string_view(text).substr(0, end).ends_with(stop)) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return text.substr(0, end - longest);
  }
  return text;
}

TEST(StopMatcher, CutsAtAStopStringSpreadOverPushes) {
  StopMatcher matcher(Strings{"\n\nQ:"});
  EXPECT_EQ(matcher.push("Paris.\n"), "Paris.");
  EXPECT_EQ(matcher.push("\nQ"), "");
  EXPECT_FALSE(matcher.stopped());
  EXPECT_EQ(matcher.push(": next"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.push("more"), "");
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopMatcher, HeldBackTextComesOutWhenItIsNoStopString) {
  StopMatcher matcher(Strings{"END"});
  EXPECT_EQ(matcher.push("the EN"), "the ");
  EXPECT_EQ(matcher.push("Dive"), "");  // "END" is complete
  StopMatcher other(Strings{"END"});
  EXPECT_EQ(other.push("the EN"), "the ");
  EXPECT_EQ(other.push("TRY"), "ENTRY");
  EXPECT_EQ(other.push(" E"), " ");
  EXPECT_EQ(other.flush(), "E");
  EXPECT_FALSE(other.stopped());
}

TEST(StopMatcher, WithoutStopStringsTextPassesThrough) {
  for (const Strings& stops : {Strings{}, Strings{"", ""}}) {
    StopMatcher matcher(stops);
    EXPECT_EQ(matcher.push("anything"), "anything");
    EXPECT_FALSE(matcher.stopped());
  }
}

TEST(StopMatcher, TheFirstCompletedWinsAndTheLongerOfTwo) {
  StopMatcher first(Strings{"abcd", "b"});
  EXPECT_EQ(first.push("xabcd"), "xa");
  StopMatcher longer(Strings{"c", "abc"});
  EXPECT_EQ(longer.push("xabc"), "x");
}

TEST(StopMatcher, CharactersAreNeverSplit) {
  StopMatcher matcher(Strings{"\u00e9\u00e8"});  // the first bytes of both are equal
  EXPECT_EQ(matcher.push("caf\u00e9"), "caf");
  EXPECT_EQ(matcher.push("\u00e9!"), "\u00e9\u00e9!");
}

TEST(StopMatcher, HowTheTextIsCutMakesNoDifference) {
  std::mt19937_64 random(3);
  int stopped_count = 0;
  for (int round = 0; round < 20000; ++round) {
    const auto random_string = [&](size_t longest) {
      std::string text(random() % (longest + 1), 'a');
      for (char& c : text) c = static_cast<char>('a' + random() % 2);
      return text;
    };
    Strings stops(random() % 3 + 1);
    for (std::string& stop : stops) stop = random_string(6);
    const std::string text = random_string(24);
    StopMatcher matcher(stops);
    std::string result;
    for (size_t at = 0; at < text.size();) {
      const size_t length = 1 + random() % 4;
      result += matcher.push(std::string_view(text).substr(at, length));
      at += length;
      // Nothing that has come out may turn out to be part of a stop string.
      ASSERT_TRUE(cut(text, stops).starts_with(result));
    }
    result += matcher.flush();
    ASSERT_EQ(result, cut(text, stops)) << text << ' ' << ::testing::PrintToString(stops);
    stopped_count += matcher.stopped();
  }
  EXPECT_GT(stopped_count, 1000);
  EXPECT_LT(stopped_count, 19000);
}

}  // namespace
}  // namespace kvcast
