#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include <random>

#include "base/utf8.h"
#include "tokenizer/tokenizer.h"

namespace kvcast {
namespace {

using Start = IncrementalDetokenizer::Start;

class DetokenizerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto loaded =
        Tokenizer::load(std::filesystem::path(KVCAST_SOURCE_DIR) / "tests/data/tokenizer.model");
    ASSERT_TRUE(loaded) << loaded.error().message;
    tokenizer_ = std::move(*loaded);
  }

  // All pushes and the flush; checks that every part is whole characters.
  std::string push_all(std::span<const int32_t> tokens, Start start) {
    IncrementalDetokenizer detokenizer(*tokenizer_, start);
    std::string text;
    for (const int32_t token : tokens) {
      const std::string part = detokenizer.push(token);
      EXPECT_TRUE(is_valid_utf8(part));
      text += part;
    }
    return text + detokenizer.flush();
  }

  static int32_t byte_token(uint8_t byte) { return 3 + byte; }

  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(DetokenizerTest, PushesOfRandomTokensEqualTheLibrarysText) {
  sentencepiece::SentencePieceProcessor library;
  ASSERT_TRUE(library.Load(tokenizer_->source()).ok());
  std::mt19937_64 random(5);
  for (int round = 0; round < 20000; ++round) {
    // Ids just outside the vocabulary too. Spaces, UTF-8 first bytes and continuation bytes are
    // frequent, so that characters are completed, broken and resumed.
    std::vector<int32_t> tokens(random() % 12);
    for (int32_t& token : tokens) {
      switch (random() % 4) {
        case 0:
          token = static_cast<int32_t>(random() % 404) - 2;
          break;
        case 1:
          token = byte_token(static_cast<uint8_t>(0xC0 + random() % 64));
          break;
        case 2:
          token = byte_token(static_cast<uint8_t>(0x80 + random() % 64));
          break;
        default:
          token = 259 + static_cast<int32_t>(random() % 141);
          break;
      }
    }
    std::vector<int> known;
    for (const int32_t token : tokens) {
      if (token >= 0 && token < library.GetPieceSize()) known.push_back(token);
    }
    std::string expected;
    ASSERT_TRUE(library.Decode(known, &expected).ok());
    ASSERT_EQ(push_all(tokens, Start::kNewText), expected) << ::testing::PrintToString(tokens);
    ASSERT_EQ(tokenizer_->decode(tokens), expected);
  }
}

TEST_F(DetokenizerTest, PushesOfEncodedTextGiveTheTextBack) {
  for (const std::string text : {"The cache is predicted.", "  two spaces",
                                 "caf\u00e9 \u65e5\u672c", "\U0001F600\U0001F601 smiles\n", " "}) {
    EXPECT_EQ(push_all(tokenizer_->encode(text, true), Start::kNewText), text);
  }
}

TEST_F(DetokenizerTest, ContinuationKeepsTheLeadingSpace) {
  const auto tokens = tokenizer_->encode("The cache is predicted from a smaller model", true);
  for (size_t split = 2; split < tokens.size(); ++split) {
    const std::span<const int32_t> all(tokens);
    const std::string prompt = tokenizer_->decode(all.first(split));
    const std::string answer = push_all(all.subspan(split), Start::kContinuesText);
    EXPECT_EQ(prompt + answer, tokenizer_->decode(tokens)) << split;
  }
}

TEST_F(DetokenizerTest, BytesAreHeldBackUntilTheCharacterIsComplete) {
  IncrementalDetokenizer detokenizer(*tokenizer_);
  EXPECT_EQ(detokenizer.push(byte_token(0xF0)), "");
  EXPECT_EQ(detokenizer.push(byte_token(0x9F)), "");
  EXPECT_EQ(detokenizer.push(byte_token(0x98)), "");
  EXPECT_EQ(detokenizer.push(byte_token(0x80)), "\U0001F600");
  EXPECT_EQ(detokenizer.flush(), "");
}

TEST_F(DetokenizerTest, BytesThatCannotCompleteBecomeReplacementsAtOnce) {
  IncrementalDetokenizer detokenizer(*tokenizer_);
  EXPECT_EQ(detokenizer.push(byte_token(0x80)), "\uFFFD");
  EXPECT_EQ(detokenizer.push(byte_token(0xE2)), "");
  EXPECT_EQ(detokenizer.push(byte_token('a')), "\uFFFDa");
  EXPECT_EQ(detokenizer.push(byte_token(0xE2)), "");
  EXPECT_EQ(detokenizer.push(byte_token(0xC3)), "\uFFFD");  // the new first byte is still open
  EXPECT_EQ(detokenizer.push(byte_token(0xA9)), "\u00e9");
}

TEST_F(DetokenizerTest, AnUnfinishedCharacterEndsAsReplacements) {
  IncrementalDetokenizer detokenizer(*tokenizer_);
  EXPECT_EQ(detokenizer.push(byte_token(0xE2)), "");
  EXPECT_EQ(detokenizer.push(byte_token(0x82)), "");
  EXPECT_EQ(detokenizer.flush(), "\uFFFD\uFFFD");
  EXPECT_EQ(detokenizer.flush(), "");
}

}  // namespace
}  // namespace kvcast
