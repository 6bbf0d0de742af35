// What every error message is made to be, whatever it quotes.
#include "base/utf8.h"
#include "malformed/malformed.h"

namespace kvcast {
namespace {

TEST(ErrorMessage, ControlCharactersBecomeSpaces) {
  EXPECT_EQ(one_line("a\nb\r\tc\x1b[31m\x7f\u00e9"), "a b  c [31m \u00e9");
  EXPECT_EQ(one_line(std::string("a\0b", 3)), "a b");
  EXPECT_EQ(fail("a\nb").value().message, "a b");
}

TEST(ErrorMessage, LongTextKeepsBeginningAndEnd) {
  EXPECT_EQ(one_line(std::string(1000, 'x')), std::string(1000, 'x'));
  const std::string text =
      one_line("file: " + std::string(100'000, 'x') + ": expected something else");
  EXPECT_LE(text.size(), 1000U);
  EXPECT_THAT(text, testing::StartsWith("file: xxx"));
  EXPECT_THAT(text, testing::HasSubstr(" ... "));
  EXPECT_THAT(text, testing::EndsWith("x: expected something else"));
}

TEST(ErrorMessage, CharactersAreNotCutInHalf) {
  for (int shift = 0; shift < 4; ++shift) {
    std::string text(static_cast<size_t>(shift), 'x');
    for (int i = 0; i < 1000; ++i) text += "\U0001F600";
    EXPECT_TRUE(is_valid_utf8(one_line(text))) << shift;
  }
}

}  // namespace
}  // namespace kvcast
