// Windows of tokens cut from a file of text.
#include "analysis/text_windows.h"

#include <gtest/gtest.h>

#include "base/mapped_file.h"
#include "kvcast/model.h"
#include "support/bundle_files.h"

namespace kvcast::analysis {
namespace {

using Tokens = std::vector<int32_t>;

class Windows : public testing::Test {
 protected:
  void SetUp() override {
    BundleFiles().write(root_);
    root_.write("base/tokenizer.model", *read_text_file(kTestTokenizer));
    model_ = *Model::load(root_.path());
  }
  std::vector<Tokens> all(const std::string& text, int64_t tokens) {
    root_.write("text", text);
    auto windows = TextWindows::open(root_.path() / "text", *model_, tokens);
    EXPECT_TRUE(windows);
    std::vector<Tokens> found;
    while (true) {
      auto window = windows->next();
      EXPECT_TRUE(window);
      if (window->empty()) return found;
      found.push_back(std::move(*window));
    }
  }
  TemporaryDirectory root_;
  std::shared_ptr<const Model> model_;
};

TEST_F(Windows, BeginWithBosAndHaveOneLength) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += "The cache of line " + std::to_string(i) + " is exact.\n";
  const auto windows = all(text, 16);
  EXPECT_GT(windows.size(), 20);
  for (const Tokens& window : windows) {
    EXPECT_EQ(window.size(), 16);
    EXPECT_EQ(window.front(), (*model_->tokenize("x")).front());
  }
}

TEST_F(Windows, NeverCrossDocuments) {
  const std::string document = "a short document\n<|endoftext|>\n";
  EXPECT_EQ(all(document + document + document + document, 24).size(), 0);
  std::string long_one;
  for (int i = 0; i < 40; ++i) long_one += "many words in one line ";
  const auto windows = all(document + long_one + "\n<|endoftext|>\n" + document, 24);
  ASSERT_EQ(windows.size(), 1);
  auto expected = *model_->tokenize(long_one);
  expected.resize(24);
  EXPECT_EQ(windows[0], expected);
}

TEST_F(Windows, OfEmptyFilesAndOfOneEndlessLine) {
  EXPECT_EQ(all("", 8).size(), 0);
  EXPECT_EQ(all("\n\n\n", 8).size(), 0);
  EXPECT_GE(all(std::string(300000, 'x'), 8).size(), 2);
  EXPECT_FALSE(TextWindows::open(root_.path() / "none", *model_, 8));
  EXPECT_FALSE(TextWindows::open(root_.path(), *model_, 8));
}

}  // namespace
}  // namespace kvcast::analysis
