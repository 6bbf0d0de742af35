#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "eval/interval.h"
#include "eval/text_score.h"

namespace kvcast {
namespace {

TEST(Strip, TakesWhiteSpaceFromBothEndsOnly) {
  EXPECT_EQ(strip(" \t\n a b \r\n"), "a b");
  EXPECT_EQ(strip("\u00A0\u3000x\u2003"), "x");
  EXPECT_EQ(strip("é "), "é");
  EXPECT_EQ(strip(""), "");
  EXPECT_EQ(strip(" \n"), "");
}

TEST(NormaliseAnswer, IsLowerCaseWithoutAsciiPunctuation) {
  EXPECT_EQ(normalise_answer("The U.S.A.!"), "the usa");
  EXPECT_EQ(normalise_answer("ÉMILE Zola"), "émile zola");
  EXPECT_EQ(normalise_answer("ΑΘΗΝΑ"), "αθηνα");
  EXPECT_EQ(normalise_answer("a  b"), "a  b") << "white space inside stays";
  EXPECT_EQ(normalise_answer("“quoted”"), "“quoted”") << "only ASCII punctuation goes";
}

TEST(MatchesAny, ComparesTheStrippedAnswerWithEveryAlias) {
  const std::vector<std::string> aliases = {"David Seville", "Ross Bagdasarian, Sr."};
  EXPECT_TRUE(matches_any(" david seville", aliases));
  EXPECT_TRUE(matches_any(" Ross Bagdasarian Sr", aliases));
  EXPECT_FALSE(matches_any(" David", aliases));
  EXPECT_FALSE(matches_any("", aliases));
}

TEST(EditSimilarity, IsOneMinusTheShareOfChangedCharacters) {
  EXPECT_DOUBLE_EQ(edit_similarity("kitten", "sitting"), 1 - 3.0 / 7);
  EXPECT_DOUBLE_EQ(edit_similarity("é", "e"), 0) << "characters, not bytes";
  EXPECT_DOUBLE_EQ(edit_similarity("", ""), 1);
  EXPECT_DOUBLE_EQ(edit_similarity("", "abc"), 0);
}

double choose(int64_t n, int64_t k) {
  double product = 1;
  for (int64_t i = 0; i < k; ++i) {
    product *= static_cast<double>(n - i) / static_cast<double>(i + 1);
  }
  return product;
}

TEST(PassAtK, IsTheShareOfDrawsWithACorrectCompletion) {
  for (int64_t n = 1; n <= 12; ++n) {
    for (int64_t c = 0; c <= n; ++c) {
      for (int64_t k = 1; k <= n; ++k) {
        const double none = n - c < k ? 0 : choose(n - c, k) / choose(n, k);
        EXPECT_NEAR(pass_at_k(n, c, k), 1 - none, 1e-12) << n << " " << c << " " << k;
      }
    }
  }
}

TEST(BootstrapMean, CoversTheMeanAndRepeats) {
  std::vector<double> values;
  for (int i = 0; i < 400; ++i) values.push_back(i % 4 == 0 ? 1 : 0);
  const Interval interval = bootstrap_mean(values, 1), again = bootstrap_mean(values, 1);
  EXPECT_DOUBLE_EQ(interval.value, 0.25);
  // The normal approximation: 1.96 * sqrt(0.25 * 0.75 / 400) = 0.0424.
  EXPECT_NEAR(interval.value - interval.low, 0.0424, 0.008);
  EXPECT_NEAR(interval.high - interval.value, 0.0424, 0.008);
  EXPECT_EQ(interval.low, again.low);
  EXPECT_EQ(interval.high, again.high);
}

TEST(BootstrapMean, OfEqualValuesHasNoWidth) {
  const Interval interval = bootstrap_mean(std::vector<double>(7, 3.5), 0);
  EXPECT_DOUBLE_EQ(interval.low, 3.5);
  EXPECT_DOUBLE_EQ(interval.high, 3.5);
}

}  // namespace
}  // namespace kvcast
