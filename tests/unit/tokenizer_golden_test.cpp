// Token ids as PyPI's `tokenizers` gives them; tests/golden/tokenizers/make.py made the files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/mapped_file.h"
#include "base/utf8.h"
#include "io/json.h"
#include "tokenizer/gguf_vocabulary.h"
#include "tokenizer/tokenizer_files.h"
#include "tokenizer/tokenizer_json.h"

namespace kvcast {
namespace {

class GoldenTokenizer : public ::testing::TestWithParam<const char*> {
 protected:
  static std::filesystem::path file(std::string_view suffix) {
    return std::filesystem::path(KVCAST_GOLDEN_DIR) / "tokenizers" /
           (std::string(GetParam()) + std::string(suffix));
  }
  void SetUp() override {
    auto loaded = Tokenizer::load(file(".json"));
    ASSERT_TRUE(loaded) << loaded.error().message;
    tokenizer_ = std::move(*loaded);
    auto cases = parse_json(*read_text_file(file(".cases.json")), "cases");
    ASSERT_TRUE(cases) << cases.error().message;
    cases_ = std::move(*cases);
    ASSERT_GT(cases_.size(), 40U);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  Json cases_;
};

TEST_P(GoldenTokenizer, IdsAreThoseOfTheReference) {
  for (const Json& one : cases_) {
    const auto text = one["text"].get<std::string>();
    EXPECT_EQ(tokenizer_->encode(text, false), one["plain"].get<std::vector<int32_t>>()) << text;
    EXPECT_EQ(tokenizer_->encode(text, {.add_special = true, .parse_special = true, .breaks = {}}),
              one["parsed"].get<std::vector<int32_t>>())
        << text;
  }
}

TEST_P(GoldenTokenizer, TextOfIdsIsThatOfTheReference) {
  for (const Json& one : cases_) {
    const auto decoded = one["decoded"].get<std::string>();
    EXPECT_EQ(tokenizer_->decode(one["plain"].get<std::vector<int32_t>>()), decoded);
  }
}

/// Words are remembered in long texts only; nothing may depend on it.
TEST_P(GoldenTokenizer, AWordMetAgainGivesTheSameIds) {
  std::string text;
  for (int round = 0; round < 3; ++round) {
    for (const Json& one : cases_) {
      // A control token parts the cases from each other.
      text += one["text"].get<std::string>() + "<|end|>";
    }
  }
  const EncodeOptions parse{.parse_special = true, .breaks = {}};
  const auto tokens = tokenizer_->encode(text, parse);
  const size_t third = text.size() / 3;
  const auto once = tokenizer_->encode(std::string_view(text).substr(0, third), parse);
  // A tokenizer that puts a space before a text alone does so once.
  ASSERT_EQ(tokens.size() % 3 == 0 ? tokens.size() / 3 : 0, once.size());
  EXPECT_TRUE(std::equal(once.begin(), once.end(), tokens.end() - std::ssize(once)));
}

TEST_P(GoldenTokenizer, NoTextBecomesAControlTokenUnasked) {
  const auto controls = tokenizer_->control_tokens();
  ASSERT_GE(controls.size(), 4U);
  for (const auto& [name, id] : controls) {
    for (const std::string& text : {name, " " + name + " ", "a" + name + name}) {
      const auto plain = tokenizer_->encode(text, false);
      EXPECT_THAT(plain, ::testing::Not(::testing::Contains(id))) << text;
      EXPECT_THAT(tokenizer_->encode(text, {.parse_special = true, .breaks = {}}),
                  ::testing::Contains(id));
    }
  }
}

TEST_P(GoldenTokenizer, ABreakKeepsANameText) {
  for (const auto& [name, id] : tokenizer_->control_tokens()) {
    for (size_t at = 0; at <= name.size(); ++at) {
      const size_t breaks[] = {at};
      const auto tokens = tokenizer_->encode(name, {.parse_special = true, .breaks = breaks});
      const bool is_text = at > 0 && at < name.size();
      EXPECT_EQ(std::count(tokens.begin(), tokens.end(), id), is_text ? 0 : 1) << name << at;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, GoldenTokenizer,
                         ::testing::Values("gpt-2", "smollm", "qwen2", "llama-bpe", "llama-2",
                                           "mistral", "gemma"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::erase(name, '-');
                           return name;
                         });

/// Every step, flag and post-processor: parts of the tokenizers above replaced by others.
TEST(TokenizerVariants, IdsAndTextAreThoseOfTheReference) {
  const auto folder = std::filesystem::path(KVCAST_GOLDEN_DIR) / "tokenizers";
  const auto variants = parse_json(*read_text_file(folder / "variants.json"), "variants");
  ASSERT_TRUE(variants) << variants.error().message;
  ASSERT_GT(variants->size(), 50U);
  for (const Json& variant : *variants) {
    Json whole = *read_json_object(folder / (variant["base"].get<std::string>() + ".json"));
    whole.merge_patch(variant["changes"]);
    const auto made = make_tokenizer_from_json(whole.dump(), "variant");
    ASSERT_TRUE(made) << made.error().message << variant["changes"];
    const Tokenizer& tokenizer = **made;
    for (const Json& one : variant["cases"]) {
      SCOPED_TRACE(one[0].dump() + variant["changes"].dump());
      const auto text = one[0].get<std::string>();
      EXPECT_EQ(tokenizer.encode(text, {.add_special = true, .parse_special = true, .breaks = {}}),
                one[1].get<std::vector<int32_t>>());
      const auto plain = one[2].get<std::vector<int32_t>>();
      EXPECT_EQ(tokenizer.encode(text, false), plain);
      EXPECT_EQ(tokenizer.decode(plain), one[3].get<std::string>());
      IncrementalDetokenizer detokenizer(tokenizer, IncrementalDetokenizer::Start::kNewText);
      std::string pieces;
      for (const int32_t id : plain) {
        pieces += detokenizer.push(id);
        EXPECT_TRUE(is_valid_utf8(pieces));
      }
      EXPECT_EQ(pieces + detokenizer.flush(), one[3].get<std::string>());
    }
  }
}

/// The same vocabulary as a GGUF file has it.
class GoldenGgufVocabulary : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenGgufVocabulary, IsTheTokenizerOfTheJsonFile) {
  const auto file =
      std::filesystem::path(KVCAST_GOLDEN_DIR) / "tokenizers" / (std::string(GetParam()) + ".json");
  const auto cases_file = std::filesystem::path(KVCAST_GOLDEN_DIR) / "tokenizers" /
                          (std::string(GetParam()) + ".cases.json");
  const Json json = *read_json_object(file);
  GgufVocabulary vocabulary{.source = "test.gguf", .model = "gpt2", .pre = GetParam()};
  std::vector<std::string> texts(json["model"]["vocab"].size() + 3);
  vocabulary.token_types.assign(texts.size(), 1);
  for (const auto& [text, id] : json["model"]["vocab"].items()) texts[id] = text;
  for (const Json& token : json["added_tokens"]) {
    texts[token["id"]] = token["content"];
    vocabulary.token_types[token["id"]] = token["special"] ? 3 : 4;
  }
  vocabulary.tokens.assign(texts.begin(), texts.end());
  std::vector<std::string> merges;
  for (const Json& merge : json["model"]["merges"]) {
    merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  vocabulary.merges.assign(merges.begin(), merges.end());
  vocabulary.bos = 1;
  const auto made = make_tokenizer(vocabulary);
  ASSERT_TRUE(made) << made.error().message;
  const auto loaded = Tokenizer::load(file);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ((*made)->digest(), (*loaded)->digest());
  EXPECT_EQ((*made)->adds_bos(), (*loaded)->adds_bos());
  const Json cases = *parse_json(*read_text_file(cases_file), "cases");
  for (const Json& one : cases) {
    const auto text = one["text"].get<std::string>();
    // GGUF has no flags that let a word take spaces along or keep it out of others.
    if (text.find("[M]") != text.npos || text.find("word") != text.npos) continue;
    EXPECT_EQ((*made)->encode(text, false), (*loaded)->encode(text, false)) << text;
  }
}

INSTANTIATE_TEST_SUITE_P(Pre, GoldenGgufVocabulary,
                         ::testing::Values("gpt-2", "smollm", "qwen2", "llama-bpe"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace kvcast
