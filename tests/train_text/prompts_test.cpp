// Prompts made of text for a base to answer.
#include "train/text/prompts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "io/safetensors.h"
#include "model/model_text.h"
#include "support/bundle_files.h"
#include "train/data/error.h"

namespace kvcast::train {
namespace {

using ::testing::HasSubstr;

class Prompts : public ::testing::Test {
 protected:
  Prompts() {
    ModelFiles::of(tiny_base_shape(), 0).write(files_, "base");
    std::filesystem::copy_file(kTestTokenizer, files_.path() / "base/tokenizer.model");
    files_.write("text.txt",
                 "a first line of words\nand a second line of more words\n<|endoftext|>\n"
                 "another text with some words in it\n<|endoftext|>\n");
    recipe_.model = files_.path() / "base";
    recipe_.output = files_.path() / "prompts.safetensors";
    recipe_.instructions = {"Say this: {text}"};
    recipe_.count = 7;
    recipe_.least_words = 2;
    recipe_.most_words = 4;
    recipe_.sources = {{.path = files_.path() / "text.txt", .name = "text"}};
  }

  std::vector<std::string> written() const {
    const auto file = unwrap(Safetensors::open(recipe_.output));
    const auto values = [&](const char* name) {
      const auto bytes = unwrap(file->find(name)).bytes;
      std::vector<int64_t> all(bytes.size() / sizeof(int64_t));
      std::memcpy(all.data(), bytes.data(), bytes.size());
      return all;
    };
    const auto tokenizer = unwrap(open_tokenizer(recipe_.model));
    const auto tokens = values("tokens");
    std::vector<std::string> texts;
    int64_t first = 0;
    for (const int64_t end : values("ends")) {
      std::string& text = texts.emplace_back();
      for (int64_t i = first; i < end; ++i) {
        text += tokenizer->piece_bytes(static_cast<int32_t>(tokens[static_cast<size_t>(i)]));
      }
      first = end;
    }
    EXPECT_EQ(first, std::ssize(tokens));
    return texts;
  }

  TemporaryDirectory files_;
  PromptsRecipe recipe_;
};

TEST_F(Prompts, AreInstructionsAroundPiecesInTheChatTemplate) {
  const PromptsReport report = write_prompts(recipe_);
  EXPECT_EQ(report.prompts, 7);
  const auto texts = written();
  ASSERT_EQ(texts.size(), 7U);
  for (const std::string& text : texts) {
    EXPECT_THAT(text, HasSubstr("Say this: a"));  // every line begins so, and pieces with lines
    EXPECT_THAT(text, HasSubstr("Assistant:"));   // the opening of the answer
    EXPECT_LE(std::ranges::count(text, ' '), 10);
  }
  EXPECT_GT(std::set<std::string>(texts.begin(), texts.end()).size(), 2U);
}

TEST_F(Prompts, FollowTheSeed) {
  write_prompts(recipe_);
  const auto first = written();
  write_prompts(recipe_);
  EXPECT_EQ(written(), first);
  recipe_.seed = 2;
  write_prompts(recipe_);
  EXPECT_NE(written(), first);
}

TEST_F(Prompts, TextThatIsTooShortIsAnError) {
  recipe_.least_words = 50;
  recipe_.most_words = 60;
  try {
    write_prompts(recipe_);
    FAIL();
  } catch (const TrainError& error) {
    EXPECT_THAT(error.what(), HasSubstr("no prompt can be made"));
  }
}

}  // namespace
}  // namespace kvcast::train
