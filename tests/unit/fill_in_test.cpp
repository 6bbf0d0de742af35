#include "runtime/fill_in.h"

#include <gtest/gtest.h>

#include "base/mapped_file.h"
#include "io/json.h"
#include "support/temporary_directory.h"

namespace kvcast {
namespace {

/// A tokenizer of Qwen's kind with these control tokens besides its own, from 1000 on.
std::unique_ptr<Tokenizer> tokenizer_with(const std::vector<std::string>& names) {
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
  TemporaryDirectory directory;
  directory.write("tokenizer.json", json.dump());
  auto loaded = Tokenizer::load(directory.path() / "tokenizer.json");
  EXPECT_TRUE(loaded) << loaded.error().message;
  return std::move(*loaded);
}

TEST(FillIn, PutsPrefixAndSuffixBetweenTheModelsTokens) {
  for (const auto& names :
       {std::vector<std::string>{"<|fim_middle|>", "<|fim_prefix|>", "<|fim_suffix|>"},
        std::vector<std::string>{"<MID>", "<PRE>", "<SUF>"}}) {
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

TEST(FillIn, NeedsAllThreeTokens) {
  EXPECT_FALSE(fill_in_prompt(*tokenizer_with({}), "a", "b"));
  EXPECT_FALSE(fill_in_prompt(*tokenizer_with({"<PRE>", "<SUF>", "<|fim_middle|>"}), "a", "b"));
}

}  // namespace
}  // namespace kvcast
