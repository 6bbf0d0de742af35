// Small helpers of the command line.
#include <gmock/gmock.h>

#include <array>

#include "base/nearest_word.h"
#include "base/paired_ratio.h"
#include "base/text_input.h"

namespace kvcast {
namespace {

TEST(NearestWord, FindsTypingErrorsAndNothingElse) {
  const std::vector<std::string> words = {"run", "chat", "serve", "bench", "eval", "info"};
  EXPECT_EQ(nearest_word("rnu", words), "run");
  EXPECT_EQ(nearest_word("cht", words), "chat");
  EXPECT_EQ(nearest_word("sevre", words), "serve");
  EXPECT_EQ(nearest_word("benchmark", words), "");
  EXPECT_EQ(nearest_word("", words), "");
  EXPECT_EQ(nearest_word(std::string(100'000, 'x'), words), "");
}

TEST(PairedRatio, ClaimsADifferenceOnlyIfEveryRoundShowsIt) {
  const std::vector<double> slow = {4, 4.2, 4.1, 3.9, 4, 4.3, 4};
  const std::vector<double> fast = {1, 1, 1, 1, 1, 1, 1};
  EXPECT_TRUE(paired_ratio(slow, fast).is_certain);
  EXPECT_DOUBLE_EQ(paired_ratio(slow, fast).median, 4);
  EXPECT_TRUE(paired_ratio(fast, slow).is_certain);
  std::vector<double> once = slow;
  once[3] = 0.9;
  EXPECT_FALSE(paired_ratio(once, fast).is_certain);
  const std::vector<double> hardly(7, 1.02);
  EXPECT_FALSE(paired_ratio(hardly, fast).is_certain);
  EXPECT_FALSE(paired_ratio(std::vector<double>{4, 4}, std::vector<double>{1, 1}).is_certain);
  EXPECT_FALSE(paired_ratio({}, {}).is_certain);
}

TEST(TextInput, SaysWhereUtf8Ends) {
  EXPECT_EQ(*check_text_input("\xEF\xBB\xBFtext", "it"), "text");
  for (const std::string text : {"ab\xFF", "ab\xC3", "ab\xED\xA0\x80"}) {
    const auto checked = check_text_input(text, "it");
    ASSERT_FALSE(checked);
    EXPECT_THAT(checked.error().message, testing::HasSubstr("offset 2")) << text;
  }
}

}  // namespace
}  // namespace kvcast
