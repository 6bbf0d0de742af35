// WordEncoder against its slow twin, Tokenizer::encode on whole texts.
#include "train/text/word_encoder.h"

#include <gtest/gtest.h>
#include <sentencepiece_trainer.h>

#include <random>

#include "base/mapped_file.h"
#include "train/text/train_tokenizer.h"
#include "train/train_test_support.h"

namespace kvcast::train {
namespace {

/// Prose and code with runs of spaces.
std::string some_text() {
  std::string text;
  for (int i = 0; i < 300; ++i) {
    text += "The cat number " + std::to_string(i) + " sat down, naïvely.  Then it got up.\n\n";
    text += "def f" + std::to_string(i % 7) + "(x):\n    if x > 1:\n        return \"a  b\"\n";
  }
  return text;
}

class WordEncoderTest : public testing::Test {
 protected:
  std::unique_ptr<Tokenizer> train(const std::string& algorithm, bool dummy_prefix) {
    write_file(directory_.path() / "text.txt", some_text());
    TokenizerRecipe recipe;
    recipe.output = directory_.path() / "tokenizer.model";
    recipe.algorithm = algorithm;
    recipe.vocab_size = algorithm == "bpe" ? 380 : 310;
    recipe.sample_fraction = 1.0;
    recipe.dummy_prefix = dummy_prefix;
    recipe.sources = {{directory_.path() / "text.txt", "text", 1.0}};
    train_tokenizer(recipe);
    return std::move(*Tokenizer::load(recipe.output));
  }

  /// As train(), with a SentencePiece option set to another value.
  std::unique_ptr<Tokenizer> train_with(const std::string& option, const std::string& value) {
    write_file(directory_.path() / "text.txt", some_text());
    std::string model;
    const std::unordered_map<std::string, std::string> options = {
        {"input", (directory_.path() / "text.txt").string()},
        {"model_type", "bpe"},
        {"vocab_size", "380"},
        {"byte_fallback", "true"},
        {"minloglevel", "2"},
        {option, value}};
    EXPECT_TRUE(sentencepiece::SentencePieceTrainer::Train(options, nullptr, &model).ok());
    const auto path = directory_.path() / "other.model";
    EXPECT_TRUE(write_file_atomically(path, model));
    return std::move(*Tokenizer::load(path));
  }

  static void expect_same(const Tokenizer& tokenizer, size_t line_break_tokens) {
    WordEncoder encoder(tokenizer, line_break_tokens);
    const auto check = [&](const std::string& text) {
      std::vector<int32_t> ids;
      encoder.encode(text, ids);
      EXPECT_EQ(ids, tokenizer.encode(text, false)) << testing::PrintToString(text);
    };
    check(some_text());
    const std::vector<std::string> parts = {
        " ", "  ",   "\n",   "\n\n",  "\t", "\r\n", "the",  "cat",  "def",    "(",      "7",
        "ï", "日本", "</s>", "<unk>", "▁",  "x y",  "\xff", "\xc3", "\u00a0", "e\u0301"};
    std::mt19937 random(1);
    for (int i = 0; i < 500; ++i) {
      std::string text;
      for (size_t n = random() % 12; n > 0; --n) text += parts[random() % parts.size()];
      check(text);
    }
  }

  TemporaryDirectory directory_;
};

TEST_F(WordEncoderTest, WordByWordEqualsWholeTexts) {
  for (const bool dummy_prefix : {true, false}) {
    SCOPED_TRACE(dummy_prefix ? "with dummy prefix" : "without");
    const auto tokenizer = train("bpe", dummy_prefix);
    const size_t breaks = line_break_tokens(*tokenizer);
    EXPECT_GT(breaks, 0U);
    expect_same(*tokenizer, breaks);
  }
}

TEST_F(WordEncoderTest, UnigramModelsEncodeTextsWhole) {
  const auto tokenizer = train("unigram", true);
  EXPECT_EQ(line_break_tokens(*tokenizer), 0U);
  expect_same(*tokenizer, 0);
}

TEST_F(WordEncoderTest, PiecesAcrossWordsAreNoticedAndTextsEncodedWhole) {
  const auto tokenizer = train_with("split_by_whitespace", "false");
  EXPECT_EQ(line_break_tokens(*tokenizer), 0U);
  expect_same(*tokenizer, 0);
}

TEST_F(WordEncoderTest, ANormaliserThatLooksBeyondAWordIsNoticed) {
  const auto tokenizer = train_with("normalization_rule_name", "nmt_nfkc");
  expect_same(*tokenizer, line_break_tokens(*tokenizer));
}

}  // namespace
}  // namespace kvcast::train
