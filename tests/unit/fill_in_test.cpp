#include "runtime/fill_in.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/mapped_file.h"
#include "io/json.h"
#include "kvcast/kvcast.h"
#include "server/tiny_bundle.h"
#include "support/temporary_directory.h"

namespace kvcast {
namespace {

const std::vector<std::string> kQwens = {"<|fim_middle|>", "<|fim_prefix|>", "<|fim_suffix|>"};

/// The tokenizer.json of Qwen's kind with these control tokens besides its own.
std::string tokenizer_json_with(const std::vector<std::string>& names) {
  const auto golden = std::filesystem::path(KVCAST_GOLDEN_DIR) / "tokenizers/qwen2.json";
  Json json = *read_json_object(golden);
  Json added = json["added_tokens"].front();
  int64_t id = json["model"]["vocab"].size();
  for (const Json& token : json["added_tokens"]) id = std::max(id, token["id"].get<int64_t>() + 1);
  for (const std::string& name : names) {
    added["content"] = name;
    added["id"] = id++;
    added["special"] = true;
    json["added_tokens"].push_back(added);
  }
  return json.dump();
}

std::unique_ptr<Tokenizer> tokenizer_with(const std::vector<std::string>& names) {
  TemporaryDirectory directory;
  directory.write("tokenizer.json", tokenizer_json_with(names));
  auto loaded = Tokenizer::load(directory.path() / "tokenizer.json");
  EXPECT_TRUE(loaded) << loaded.error().message;
  return std::move(*loaded);
}

TEST(FillIn, PutsPrefixAndSuffixBetweenTheModelsTokens) {
  for (const auto& names : {kQwens, std::vector<std::string>{"<MID>", "<PRE>", "<SUF>"}}) {
    const auto tokenizer = tokenizer_with(names);
    const auto id = [&](const std::string& name) {
      const auto tokens = tokenizer->encode(name, {.parse_special = true, .breaks = {}});
      EXPECT_EQ(tokens.size(), 1U);
      return tokens.front();
    };
    // A control token's name within the texts is text.
    const std::string prefix = "def add(a, " + names[0], suffix = "):\n    return a";
    std::vector<int32_t> expected = {id(names[1])};
    for (const auto& [text, next] : {std::pair(prefix, names[2]), std::pair(suffix, names[0])}) {
      const auto tokens = tokenizer->encode(text, false);
      expected.insert(expected.end(), tokens.begin(), tokens.end());
      expected.push_back(id(next));
    }
    const auto made = fill_in_prompt(*tokenizer, prefix, suffix);
    ASSERT_TRUE(made);
    EXPECT_EQ(*made, expected);
    EXPECT_EQ(std::ranges::count(*made, id(names[0])), 1);
  }
}

TEST(FillIn, AnyControlTokenEndsWhatIsFilledIn) {
  const auto tokenizer = tokenizer_with(kQwens);
  const auto ends = fill_in_end_tokens(*tokenizer);
  for (const char* name : {"<|fim_prefix|>", "<|end|>"}) {
    const auto token = tokenizer->encode(name, {.parse_special = true, .breaks = {}});
    EXPECT_THAT(ends, testing::Contains(token.front())) << name;
  }
  const auto text = tokenizer->encode("a", false);
  EXPECT_THAT(ends, testing::Not(testing::Contains(text.front())));
}

TEST(FillIn, NeedsAllThreeTokens) {
  EXPECT_FALSE(fill_in_prompt(*tokenizer_with({}), "a", "b"));
  EXPECT_FALSE(fill_in_prompt(*tokenizer_with({"<PRE>", "<SUF>", "<|fim_middle|>"}), "a", "b"));
}

TEST(FillIn, ASessionAnswersWhatBelongsBetweenPromptAndSuffix) {
  const TinyBundle bundle(440);
  const auto base = bundle.path() / "base";
  std::filesystem::remove(base / "tokenizer.model");
  std::ofstream(base / "tokenizer.json") << tokenizer_json_with(kQwens);
  const auto model = Model::load(bundle.path(), {.dtype = Dtype::kF32});
  ASSERT_TRUE(model) << model.error().message;
  const auto expected = fill_in_prompt(*tokenizer_with(kQwens), "def add(a", "return a");
  GenerateOptions options = {.max_tokens = 6, .ignore_end_of_text = true};
  Session by_tokens(*model), by_text(*model);
  const auto same = by_tokens.generate(*expected, options);
  ASSERT_TRUE(same) << same.error().message;
  options.suffix = "return a";
  const auto answer = by_text.generate("def add(a", options);
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->tokens, same->tokens);
  EXPECT_EQ(by_text.tokens(), by_tokens.tokens());

  const auto refused = by_text.generate(*expected, options);
  ASSERT_FALSE(refused) << "token ids have no suffix";
  EXPECT_THAT(refused.error().message, testing::HasSubstr("suffix"));
  const auto batch = Batch::create(*model);
  ASSERT_TRUE(batch) << batch.error().message;
  EXPECT_FALSE((*batch)->generate(std::vector<std::vector<int32_t>>{*expected}, options));
}

TEST(FillIn, AModelWithoutSuchTokensSaysSo) {
  const TinyBundle bundle;
  const auto model = Model::load(bundle.path(), {.dtype = Dtype::kF32});
  ASSERT_TRUE(model) << model.error().message;
  Session session(*model);
  GenerateOptions options;
  options.suffix = "b";
  const auto refused = session.generate("a", options);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, testing::HasSubstr("no tokens for filling in"));
  EXPECT_TRUE(session.tokens().empty());
}

}  // namespace
}  // namespace kvcast
