#include "base/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace kvcast {
namespace {

using namespace std::string_literals;

TEST(Utf8, AcceptsEveryCodePointAndNothingElse) {
  // Encodes all values up to 0x1FFFFF by the bit pattern alone; the standard allows some of them.
  for (uint32_t code = 0; code <= 0x1FFFFF; ++code) {
    std::string text;
    if (code < 0x80) {
      text = {static_cast<char>(code)};
    } else if (code < 0x800) {
      text = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
    } else if (code < 0x10000) {
      text = {static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 0x3F)),
              static_cast<char>(0x80 | (code & 0x3F))};
    } else {
      text = {static_cast<char>(0xF0 | code >> 18), static_cast<char>(0x80 | (code >> 12 & 0x3F)),
              static_cast<char>(0x80 | (code >> 6 & 0x3F)),
              static_cast<char>(0x80 | (code & 0x3F))};
    }
    const bool allowed = code < 0xD800 || (code > 0xDFFF && code <= 0x10FFFF);
    ASSERT_EQ(is_valid_utf8(text), allowed) << std::hex << code;
  }
}

TEST(Utf8, RefusesOverlongForms) {
  EXPECT_FALSE(is_valid_utf8("\xC0\x80"));
  EXPECT_FALSE(is_valid_utf8("\xC1\xBF"));
  EXPECT_FALSE(is_valid_utf8("\xE0\x9F\xBF"));
  EXPECT_FALSE(is_valid_utf8("\xF0\x8F\xBF\xBF"));
}

TEST(Utf8, HoldsBackOnlyWhatCanStillBecomeACharacter) {
  EXPECT_EQ(settled_utf8_prefix("caf\xC3"), 3U);
  EXPECT_EQ(settled_utf8_prefix("caf\xC3\xA9"), 5U);
  EXPECT_EQ(settled_utf8_prefix("a\xF0\x9F\x98"), 1U);
  EXPECT_EQ(settled_utf8_prefix("a\xF0\x9F"s + "b"), 4U);  // can no longer be completed
  EXPECT_EQ(settled_utf8_prefix("\xED\xA0"), 2U);          // a surrogate at its second byte already
  EXPECT_EQ(settled_utf8_prefix("\x80"), 1U);
  EXPECT_EQ(settled_utf8_prefix(""), 0U);
}

TEST(Utf8, ReplacesEachByteThatBelongsToNoCharacter) {
  const std::string replacement(kReplacementCharacter);
  EXPECT_EQ(replace_invalid_utf8("a\xFF\xC3\xA9"), "a" + replacement + "\xC3\xA9");
  EXPECT_EQ(replace_invalid_utf8("\xE2\x96"), replacement + replacement);
  EXPECT_EQ(replace_invalid_utf8("\xE2\x96z"), replacement + replacement + "z");
  EXPECT_EQ(replace_invalid_utf8("plain"), "plain");
}

}  // namespace
}  // namespace kvcast
