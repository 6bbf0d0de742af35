// Tokenizer files that are none, or not the model's.
#include <random>

#include "base/mapped_file.h"
#include "malformed/malformed.h"
#include "support/sparser.h"

namespace kvcast {
namespace {

class TokenizerFile : public MalformedTest {
 protected:
  void SetUp() override {
    model_.write(root_);
    good_ = *read_text_file(kTestTokenizer);
  }
  std::string good_;
};

constexpr std::string_view kTokenizerFile = "tokenizer.model";

TEST_F(TokenizerFile, TheTestTokenizerFitsTheTinyModel) {
  root_.write(kTokenizerFile, good_);
  const auto model = Model::load(root_.path(), {.threads = 1});
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_TRUE((*model)->has_tokenizer());
}

TEST_F(TokenizerFile, BytesThatAreNoSentencePieceModelAreRefused) {
  for (const std::string& bytes :
       {std::string(), std::string("nonsense"), std::string(1000, '\0'), std::string(1000, '\xff'),
        std::string("\x0a\x05\x0a\x03\xff\xfe\xfd", 7), good_.substr(0, 100)}) {
    root_.write(kTokenizerFile, bytes);
    expect_load_error(root_.path(), {kTokenizerFile, "expected a SentencePiece model"});
  }
}

TEST_F(TokenizerFile, CutOffAnywhereItLoadsFewerPiecesOrIsRefused) {
  for (size_t length = 0; length < good_.size(); length += 7 * kSparser) {
    root_.write(kTokenizerFile, std::string_view(good_).substr(0, length));
    const auto model = Model::load(root_.path(), {.threads = 1});
    if (!model) {
      expect_one_line(model.error().message);
      EXPECT_THAT(model.error().message, testing::HasSubstr(kTokenizerFile));
    }
  }
}

TEST_F(TokenizerFile, FlippedBitsLoadOrAreRefusedButNeverCrash) {
  std::mt19937_64 random(11);
  int refused = 0;
  for (int round = 0; round < 300; ++round) {
    std::string bytes = good_;
    for (int flips = 0; flips < 4; ++flips) {
      bytes[random() % bytes.size()] ^= static_cast<char>(1U << random() % 8);
    }
    root_.write(kTokenizerFile, bytes);
    const auto model = Model::load(root_.path(), {.threads = 1});
    if (!model) {
      ++refused;
      expect_one_line(model.error().message);
      continue;
    }
    const auto tokens = (*model)->tokenize("The caf\u00e9 is  open\n");
    ASSERT_TRUE(tokens);
    EXPECT_TRUE((*model)->detokenize(*tokens));
  }
  EXPECT_GT(refused, 0);
}

TEST_F(TokenizerFile, MoreTokensThanTheModelHasWordsAreRefused) {
  ModelConfig shape = tiny_base_shape();
  shape.vocab_size = 399;
  ModelFiles::of(shape, 0).write(root_);
  root_.write(kTokenizerFile, good_);
  expect_load_error(root_.path(), {kTokenizerFile, "400 tokens", "vocab_size is 399"});
}

TEST_F(TokenizerFile, AnExplicitFileThatIsNotThereIsNamed) {
  expect_load_error(root_.path(), {"no-such.model", "cannot open"},
                    {.threads = 1, .tokenizer = root_.path() / "no-such.model"});
}

TEST_F(TokenizerFile, WithoutOneTextIsRefusedAndTokensWork) {
  const auto model = Model::load(root_.path(), {.threads = 1});
  ASSERT_TRUE(model) << model.error().message;
  Session session(*model);
  const auto answer = session.generate("text");
  ASSERT_FALSE(answer);
  expect_one_line(answer.error().message);
  EXPECT_THAT(answer.error().message, testing::HasSubstr("no tokenizer.json or tokenizer.model"));
  const std::vector<int32_t> prompt = {1, 2, 3};
  EXPECT_TRUE(session.generate(prompt, {.max_tokens = 1}));
}

}  // namespace
}  // namespace kvcast
