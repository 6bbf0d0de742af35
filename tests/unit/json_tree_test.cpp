// Trees from the parser's events beside the library's own, and what a tokenizer.json's reader keeps
// out of its tree beside what the library finds there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <utility>

#include "base/mapped_file.h"
#include "io/json.h"
#include "tokenizer/tokenizer_json_reader.h"

namespace kvcast {
namespace {

TEST(JsonTreeTest, IsTheTreeOfTheLibrary) {
  for (const std::string text :
       {"null", "true", "-5", "18446744073709551615", "1.5e3", "\"\\u00e9\\ud83d\\ude00\"", "[]",
        "{}", "[[], {}, [[1, {\"a\": [2]}], 3], \"x\"]",
        "{\"a\": {\"b\": [1, {\"c\": null}], \"d\": {}}, \"e\": [], \"\": false}",
        " {\"same\": {\"same\": {\"same\": 1}}} "}) {
    const auto tree = parse_json(text, "test");
    ASSERT_TRUE(tree) << text << tree.error().message;
    EXPECT_EQ(*tree, Json::parse(text)) << text;
  }
}

TEST(JsonTreeTest, WhatTheLibraryRefusesIsRefused) {
  for (const std::string text :
       {"", "{", "[1,]", "{\"a\" 1}", "nul", "1 2", "\"\xff\"", "[1e999]", "{\"a\": }"}) {
    EXPECT_FALSE(parse_json(text, "test")) << text;
    EXPECT_TRUE(Json::parse(text, nullptr, false).is_discarded()) << text;
  }
  for (const std::string text :
       {"{\"a\": 1, \"a\": 1}", "[{\"b\": {\"a\": 1, \"c\": [], \"a\": 2}}]"}) {
    const auto tree = parse_json(text, "test");
    ASSERT_FALSE(tree) << text;
    EXPECT_EQ(tree.error().message, "test: key \"a\" appears twice");
  }
}

TEST(TokenizerJsonReaderTest, FindsWhatATreeHas) {
  const auto folder = std::filesystem::path(KVCAST_GOLDEN_DIR) / "tokenizers";
  for (const std::string name : {"gpt-2", "qwen2", "llama-2", "gemma"}) {
    const std::string text = *read_text_file(folder / (name + ".json"));
    Json whole = Json::parse(text);
    BpeDescription made;
    TokenizerJsonReader reader(made);
    const auto rest = reader.read(text, name);
    ASSERT_TRUE(rest) << rest.error().message;
    const Json vocabulary = std::exchange(whole["model"]["vocab"], Json::object());
    const Json merges = std::exchange(whole["model"]["merges"], Json::array());
    EXPECT_EQ(*rest, whole);
    size_t tokens = 0;
    for (size_t id = 0; id < made.tokens.size(); ++id) {
      if (made.tokens[id].kind == TokenKind::kUnused) continue;
      const std::string token(made.tokens[id].text);
      ASSERT_TRUE(vocabulary.contains(token)) << token;
      EXPECT_EQ(vocabulary[token], id);
      EXPECT_EQ(reader.find(token), static_cast<int32_t>(id));
      ++tokens;
    }
    EXPECT_EQ(tokens, vocabulary.size());
    ASSERT_EQ(made.merges.size(), merges.size());
    for (size_t i = 0; i < merges.size(); ++i) {
      EXPECT_EQ(merges[i], Json::array({made.merges[i].first, made.merges[i].second}));
    }
    EXPECT_EQ(reader.find("no token"), -1);
  }
}

/// Objects and lists of these names elsewhere are none of its business.
TEST(TokenizerJsonReaderTest, ReadsTheModelsMembersAlone) {
  const std::string text =
      R"({"vocab": {"a": 0}, "merges": ["a b"], "other": {"vocab": {"x": "y"}, "merges": [[1]]}, )"
      R"("model": [{"vocab": {"a": 5}, "merges": ["c d"]}], "last": {"model": {"vocab": {"b": 7}}}})";
  BpeDescription made;
  TokenizerJsonReader reader(made);
  const auto tree = reader.read(text, "test");
  ASSERT_TRUE(tree) << tree.error().message;
  EXPECT_EQ(*tree, Json::parse(text));
  EXPECT_TRUE(made.tokens.empty());
  EXPECT_TRUE(made.merges.empty());
}

}  // namespace
}  // namespace kvcast
