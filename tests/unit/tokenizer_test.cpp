#include "tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/mapped_file.h"
#include "base/utf8.h"
#include "support/temporary_directory.h"

namespace kvcast {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using namespace std::string_literals;

// tests/data/make_tokenizer.sh: 400 pieces, byte fallback, BOS 1, EOS 2.
const std::filesystem::path kModel =
    std::filesystem::path(KVCAST_SOURCE_DIR) / "tests/data/tokenizer.model";

class TokenizerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto loaded = Tokenizer::load(kModel);
    ASSERT_TRUE(loaded) << loaded.error().message;
    tokenizer_ = std::move(*loaded);
  }
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(TokenizerTest, KnowsItsVocabularyAndSpecialTokens) {
  EXPECT_EQ(tokenizer_->vocab_size(), 400);
  EXPECT_EQ(tokenizer_->bos_token(), 1);
  EXPECT_EQ(tokenizer_->eos_token(), 2);
}

TEST_F(TokenizerTest, BosComesFirstOnlyWhenAskedFor) {
  const auto with = tokenizer_->encode("The cache", true);
  const auto without = tokenizer_->encode("The cache", false);
  ASSERT_FALSE(without.empty());
  EXPECT_EQ(with.front(), 1);
  EXPECT_EQ(std::vector<int32_t>(with.begin() + 1, with.end()), without);
  EXPECT_THAT(tokenizer_->encode("", true), ElementsAre(1));
  EXPECT_TRUE(tokenizer_->encode("", false).empty());
}

TEST_F(TokenizerTest, TextSurvivesTheRoundTrip) {
  for (const std::string& text :
       {"The cache is predicted."s, " leading space"s, "  two"s, "trailing  "s, "a  b   c"s,
        "line\nbreak\tand tab\n"s, "caf\u00e9 \u65e5\u672c\u8a9e \U0001F600!"s, "nul\0byte"s,
        "12345"s, "\n"s, " "s}) {
    EXPECT_EQ(tokenizer_->decode(tokenizer_->encode(text, true)), text);
  }
}

TEST_F(TokenizerTest, TextThatLooksLikeAControlTokenIsPlainText) {
  for (const std::string text : {"</s>", "<s>", "<unk>", "<0x41>"}) {
    const auto tokens = tokenizer_->encode(text, false);
    EXPECT_THAT(tokens, AllOf(Not(::testing::Contains(0)), Not(::testing::Contains(1)),
                              Not(::testing::Contains(2))));
    EXPECT_EQ(tokenizer_->decode(tokens), text);
  }
}

TEST_F(TokenizerTest, BytesThatAreNotUtf8BecomeReplacementCharacters) {
  const auto tokens = tokenizer_->encode("a\xFF\xC3z", false);
  EXPECT_EQ(tokenizer_->decode(tokens), "a\uFFFD\uFFFDz");
}

TEST_F(TokenizerTest, IdsOutsideTheVocabularyDecodeToNothing) {
  auto tokens = tokenizer_->encode("The cache", true);
  tokens.insert(tokens.begin() + 2, {-1, 400, INT32_MAX, INT32_MIN});
  EXPECT_EQ(tokenizer_->decode(tokens), "The cache");
  EXPECT_EQ(tokenizer_->piece_bytes(-1), "");
  EXPECT_EQ(tokenizer_->piece_bytes(400), "");
}

TEST_F(TokenizerTest, PieceBytesKeepSpacesAndSingleBytes) {
  EXPECT_EQ(tokenizer_->piece_bytes(1), "");
  EXPECT_EQ(tokenizer_->piece_bytes(3), "\0"s);  // <0x00> is the first byte piece
  EXPECT_EQ(tokenizer_->piece_bytes(3 + 0xE2), "\xE2");
  std::string joined;
  for (const int32_t token : tokenizer_->encode("The \U0001F600 cache", true)) {
    joined += tokenizer_->piece_bytes(token);
  }
  EXPECT_EQ(joined, " The \U0001F600 cache");
}

TEST_F(TokenizerTest, ThreadsMayShareIt) {
  const std::string text = "The weather in the mountains was fine.";
  const auto expected = tokenizer_->encode(text, true);
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const auto tokens = tokenizer_->encode(text, true);
        wrong[t] += tokens != expected || tokenizer_->decode(tokens) != text;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_THAT(wrong, ::testing::Each(0));
}

TEST(TokenizerLoad, FilesThatAreNoModelAreNamed) {
  TemporaryDirectory directory;
  const auto path = directory.path() / "tokenizer.model";
  EXPECT_THAT(Tokenizer::load(path).error().message, HasSubstr("tokenizer.model"));
  const std::string model = *read_text_file(kModel);
  for (const std::string& contents :
       {""s, "not a model"s, model.substr(0, model.size() / 2), "\0\0\0\0"s, model + "\xFF"}) {
    directory.write("tokenizer.model", contents);
    const auto loaded = Tokenizer::load(path);
    ASSERT_FALSE(loaded) << contents.size();
    EXPECT_THAT(loaded.error().message,
                AllOf(HasSubstr("tokenizer.model"), HasSubstr("SentencePiece model"),
                      Not(HasSubstr("\n"))));
  }
}

TEST(TokenizerLoad, FlippedBytesLoadOrFailButNeverCrash) {
  TemporaryDirectory directory;
  const std::string model = *read_text_file(kModel);
  int loaded_count = 0;
  for (size_t at = 0; at < model.size(); at += 13) {
    std::string broken = model;
    broken[at] = static_cast<char>(broken[at] ^ 0x55);
    directory.write("tokenizer.model", broken);
    const auto loaded = Tokenizer::load(directory.path() / "tokenizer.model");
    if (!loaded) continue;
    ++loaded_count;
    const auto tokens = (*loaded)->encode("The caf\u00e9 cache </s>", true);
    EXPECT_TRUE(is_valid_utf8((*loaded)->decode(tokens)));
  }
  EXPECT_GT(loaded_count, 0);  // or nothing past loading was tried
}

}  // namespace
}  // namespace kvcast
