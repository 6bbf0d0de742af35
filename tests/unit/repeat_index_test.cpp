#include "runtime/repeat_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace kvcast {
namespace {

int64_t common(const std::vector<int32_t>& text, int64_t place) {
  int64_t length = 0;
  while (length < RepeatIndex::kLongest && length <= place &&
         text[static_cast<size_t>(place - length)] == text[text.size() - 1 - length]) {
    ++length;
  }
  return length;
}

/// The length of the longest match by comparing with every place.
int64_t slow_longest(const std::vector<int32_t>& text) {
  int64_t longest = 0;
  for (int64_t place = 0; place + 1 < std::ssize(text); ++place) {
    longest = std::max(longest, common(text, place));
  }
  return longest;
}

TEST(RepeatIndex, FindsWhatASearchOfTheWholeTextFinds) {
  std::mt19937 random(1);
  for (const int32_t vocabulary : {20, 300}) {
    RepeatIndex index;
    std::vector<int32_t> text;
    int64_t found = 0;
    for (int i = 0; i < 3000; ++i) {
      // Now and then a piece of the text again, or a part of it is taken back.
      if (!text.empty() && random() % 16 == 0) {
        const size_t from = random() % text.size();
        for (size_t k = 0; k < 12; ++k) {
          text.push_back(text[from + k]);
          index.push(text.back());
        }
      } else if (text.size() > 40 && random() % 32 == 0) {
        text.resize(text.size() - random() % 40);
        index.truncate(std::ssize(text));
      } else {
        text.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(vocabulary)));
        index.push(text.back());
      }
      ASSERT_EQ(index.size(), std::ssize(text));
      const RepeatIndex::Match match = index.find();
      const int64_t longest = slow_longest(text);
      if (match.length > 0) {
        ASSERT_EQ(common(text, match.next - 1), match.length);
        ASSERT_EQ(index.following(match, 0), text[static_cast<size_t>(match.next)]);
      }
      // Of common tokens only the last places are looked at.
      if (vocabulary == 300) {
        ASSERT_EQ(match.length, longest) << "after " << text.size();
      }
      found += match.length == longest ? 1 : 0;
    }
    EXPECT_GT(found, 2800);
  }
}

TEST(RepeatIndex, OfEqualMatchesTheLastOneCounts) {
  RepeatIndex index;
  for (const int32_t token : {1, 2, 3, 1, 2, 4, 1, 2}) index.push(token);
  EXPECT_EQ(index.find().length, 2);
  EXPECT_EQ(index.following(index.find(), 0), 4);
  index.push(3);  // as at the beginning
  EXPECT_EQ(index.find().length, 3);
  EXPECT_EQ(index.following(index.find(), 0), 1);
}

TEST(RepeatIndex, BehindTheEndATextGoesOnWithItself) {
  RepeatIndex index;
  for (const int32_t token : {9, 1, 2, 3, 1, 2, 3}) index.push(token);
  const RepeatIndex::Match match = index.find();
  ASSERT_EQ(match.length, 3);
  std::vector<int32_t> follows;
  for (int64_t i = 0; i < 7; ++i) follows.push_back(index.following(match, i));
  EXPECT_EQ(follows, (std::vector<int32_t>{1, 2, 3, 1, 2, 3, 1}));
}

TEST(RepeatIndex, NothingIsFoundWhereNothingRepeats) {
  RepeatIndex index;
  EXPECT_EQ(index.find().length, 0);
  for (int32_t token = 0; token < 5000; ++token) index.push(token);
  EXPECT_EQ(index.find().length, 0);
  index.truncate(0);
  EXPECT_EQ(index.find().length, 0);
  index.push(7);
  EXPECT_EQ(index.find().length, 0);
  index.push(7);
  EXPECT_EQ(index.find().length, 1);
}

}  // namespace
}  // namespace kvcast
