// SentencePiece models as GGUF files hold them (tokenizer.ggml.model "llama"), beside the library.
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include <random>

#include "base/mapped_file.h"
#include "base/utf8.h"
#include "tokenizer/gguf_vocabulary.h"

namespace kvcast {
namespace {

/// What conversion scripts write.
struct Converted {
  sentencepiece::SentencePieceProcessor processor;
  std::vector<std::string> texts;
  GgufVocabulary vocabulary{.source = "test.gguf", .model = "llama"};

  explicit Converted(const std::filesystem::path& file) {
    EXPECT_TRUE(processor.Load(file.string()).ok());
    for (int id = 0; id < processor.GetPieceSize(); ++id) {
      texts.push_back(processor.IdToPiece(id));
      vocabulary.scores.push_back(processor.GetScore(id));
      vocabulary.token_types.push_back(processor.IsUnknown(id)   ? 2
                                       : processor.IsControl(id) ? 3
                                       : processor.IsUnused(id)  ? 5
                                       : processor.IsByte(id)    ? 6
                                                                 : 1);
    }
    vocabulary.tokens.assign(texts.begin(), texts.end());
    vocabulary.bos = processor.bos_id();
    vocabulary.eos = processor.eos_id();
    vocabulary.unknown = processor.unk_id();
    std::vector<std::string> pieces;
    EXPECT_TRUE(processor.Encode("a", &pieces).ok());
    vocabulary.add_space_prefix = pieces.front().starts_with(kSpaceSymbol);
  }
};

class GgufSentencePiece : public ::testing::TestWithParam<const char*> {};

TEST_P(GgufSentencePiece, IdsAndTextAreTheLibrarys) {
  const Converted converted(std::filesystem::path(KVCAST_SOURCE_DIR) / GetParam());
  const auto made = make_tokenizer(converted.vocabulary);
  ASSERT_TRUE(made) << made.error().message;
  std::mt19937_64 random(3);
  const std::vector<std::string> parts = {
      " ",          "  ",          "The",  " cache", "s",         "ing",
      "\n",         "\t",          "0",    "12",     "caf\u00e9", "\u65e5\u672c",
      "\U0001F600", "<s>",         "</s>", "<0x41>", "\u2581",    "if (x == y) {",
      "\u0301",     "Stra\u00dfe", "zzzz", "....",   "--"};
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (size_t count = random() % 30; count > 0; --count) text += parts[random() % parts.size()];
    std::vector<int> expected;
    ASSERT_TRUE(converted.processor.Encode(text, &expected).ok());
    const auto tokens = (*made)->encode(text, false);
    ASSERT_EQ(tokens, std::vector<int32_t>(expected.begin(), expected.end())) << text;
    std::string decoded;
    ASSERT_TRUE(converted.processor.Decode(expected, &decoded).ok());
    EXPECT_EQ((*made)->decode(tokens), decoded);
  }
}

TEST_P(GgufSentencePiece, LongTextIsTheLibrarys) {
  const Converted converted(std::filesystem::path(KVCAST_SOURCE_DIR) / GetParam());
  const auto made = make_tokenizer(converted.vocabulary);
  ASSERT_TRUE(made) << made.error().message;
  for (const char* file : {"README.md", "docs/ARCHITECTURE.md", "src/model/transformer.cpp"}) {
    const std::string text = *read_text_file(std::filesystem::path(KVCAST_SOURCE_DIR) / file);
    std::vector<int> expected;
    ASSERT_TRUE(converted.processor.Encode(text, &expected).ok());
    EXPECT_EQ((*made)->encode(text, false), std::vector<int32_t>(expected.begin(), expected.end()))
        << file;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GgufSentencePiece,
                         ::testing::Values("tests/data/tokenizer.model",
                                           "models/kvcast-65m/base/tokenizer.model"),
                         [](const auto& test) { return "Model" + std::to_string(test.index); });

}  // namespace
}  // namespace kvcast
