// tokenizer.json files that are none, or say what cannot be.
#include <limits>

#include "base/mapped_file.h"
#include "io/json.h"
#include "malformed/malformed.h"
#include "support/sparser.h"
#include "tokenizer/gguf_vocabulary.h"
#include "tokenizer/vocabulary.h"

namespace kvcast {
namespace {

class TokenizerJson : public ::testing::Test {
 protected:
  void SetUp() override {
    good_ = *read_json_object(std::filesystem::path(KVCAST_GOLDEN_DIR) / "tokenizers/mistral.json");
  }

  /// With the value at `pointer` replaced, loading fails and the line says all of `parts`.
  void expect_error(std::string_view pointer, const Json& value,
                    const std::vector<std::string>& parts) {
    Json bad = good_;
    bad[Json::json_pointer(std::string(pointer))] = value;
    expect_text_error(bad.dump(), parts);
  }
  void expect_text_error(std::string_view text, const std::vector<std::string>& parts) {
    root_.write("tokenizer.json", text);
    const auto loaded = Tokenizer::load(root_.path() / "tokenizer.json");
    ASSERT_FALSE(loaded) << text.substr(0, 200);
    expect_one_line(loaded.error().message);
    EXPECT_THAT(loaded.error().message, testing::HasSubstr("tokenizer.json"));
    for (const auto& part : parts) EXPECT_THAT(loaded.error().message, testing::HasSubstr(part));
  }

  TemporaryDirectory root_;
  Json good_;
};

TEST_F(TokenizerJson, TextThatIsNoTokenizerIsRefused) {
  expect_text_error("", {"JSON"});
  expect_text_error("{", {"JSON"});
  expect_text_error("[]", {"model"});
  expect_text_error("{}", {"model: expected an object"});
  expect_text_error(std::string(100, '['), {"nested deeper"});
  expect_text_error(R"({"model": {"vocab": {"a": 0, "a": 1}, "merges": []}})",
                    {"\"a\" appears twice"});
  std::string deep = R"({"type": "NFC"})";
  for (int i = 0; i < 40; ++i) deep = R"({"type": "Sequence", "normalizers": [)" + deep + "]}";
  expect_text_error(R"({"model": {"vocab": {}, "merges": []}, "normalizer": )" + deep + "}",
                    {"nested deeper"});
}

TEST_F(TokenizerJson, PartsOfOtherFamiliesAreNamed) {
  expect_error("/model/type", "Unigram", {"model", "\"Unigram\"", "expected BPE"});
  expect_error("/model/end_of_word_suffix", "</w>", {"end_of_word_suffix"});
  expect_error("/model/continuing_subword_prefix", "##", {"continuing_subword_prefix"});
  expect_error("/model/dropout", 0.1, {"dropout"});
  expect_error("/normalizer", {{"type", "Lowercase"}}, {"normalizer", "\"Lowercase\""});
  expect_error("/pre_tokenizer", {{"type", "BertPreTokenizer"}},
               {"pre_tokenizer", "\"BertPreTokenizer\""});
  expect_error("/decoder", {{"type", "WordPiece"}}, {"decoder", "\"WordPiece\""});
  expect_error("/decoder", {{"type", "Strip"}, {"content", " "}, {"start", 2}, {"stop", 0}},
               {"Strip"});
  expect_error("/post_processor", {{"type", "BertProcessing"}},
               {"post_processor", "\"BertProcessing\""});
  const Json byte_level = {{"type", "ByteLevel"}};
  expect_error("/pre_tokenizer",
               {{"type", "Sequence"}, {"pretokenizers", {byte_level, {{"type", "Digits"}}}}},
               {"\"Digits\" after ByteLevel"});
}

TEST_F(TokenizerJson, RegexesThatCannotBeMeantAreNamed) {
  const auto split = [](std::string_view regex) {
    return Json{{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}};
  };
  for (const std::string regex : {"(", "[a", "a{2,1}", "\\p{Klingon}", "(?<=a+)b", "\\C",
                                  "[a&&[b]]", "[a[b]]", "[\\S]", "[[:alpha:"}) {
    expect_error("/pre_tokenizer", split(regex), {"pre_tokenizer: regex \"" + regex + "\""});
  }
  for (const std::string regex :
       {"(a+)+b", "(?:\\s|\\s\\n*)+x", "(\\p{L}*)*\\p{N}", "(.*)*.*,.*;$"}) {
    expect_error("/pre_tokenizer", split(regex),
                 {"pre_tokenizer: regex \"" + regex + "\": backtracks without end"});
    expect_error("/normalizer",
                 {{"type", "Replace"}, {"pattern", {{"Regex", regex}}}, {"content", ""}},
                 {"normalizer: regex \"" + regex + "\": backtracks without end"});
  }
  expect_error("/pre_tokenizer", split(std::string(20'000, 'a')), {"20000 bytes"});
  expect_error("/pre_tokenizer", split(std::string(200, '(') + std::string(200, ')')), {"regex"});
  Json unknown = split("a");
  unknown["behavior"] = "Shuffled";
  expect_error("/pre_tokenizer", unknown, {"\"Shuffled\""});
}

TEST_F(TokenizerJson, VocabulariesThatContradictThemselvesAreRefused) {
  expect_error("/model/vocab", Json::array(), {"vocab: expected an object"});
  expect_error("/model/vocab/a", -1, {"\"a\"", "expected an id"});
  expect_error("/model/vocab/a", 1LL << 40, {"\"a\"", "expected an id"});
  expect_error("/model/vocab/a", 1LL << 60, {"\"a\"", "expected an id"});
  expect_error("/model/vocab/a", std::numeric_limits<int64_t>::min(), {"\"a\"", "expected an id"});
  expect_error("/model/vocab/a", std::numeric_limits<uint64_t>::max(), {"\"a\"", "expected an id"});
  expect_error("/model/vocab/a", kMaxVocabulary, {"\"a\"", "expected an id"});
  expect_error("/model/vocab/a", 1.5, {"\"a\"", "expected an id"});
  for (const Json& value : {Json(), Json(true), Json::array({1}), Json{{"id", 1}}}) {
    expect_error("/model/vocab/a", value, {"\"a\"", "expected an id"});
  }
  expect_error("/model/vocab/a", "7", {"\"a\"", "expected an id"});
  expect_error("/model/vocab/a", 300, {"both have id 300"});
  expect_error("/model/unk_token", "nowhere", {"unk_token \"nowhere\""});
  expect_error("/model/merges", Json::object(), {"merges: expected a list"});
  expect_error("/model/merges/0", "abc", {"merges: entry 0"});
  expect_error("/model/merges/1", "a b c", {"merges: entry 1"});
  expect_error("/model/merges/1", {"a", 5}, {"merges: entry 1"});
  expect_error("/model/merges/1", {"a", "nowhere"},
               {"merge 1", "\"nowhere\"", "not in the vocabulary"});
  expect_error("/model/merges/1", {"a", "b", "c"}, {"merges: entry 1"});
  expect_error("/model/merges/1", Json::array({"a"}), {"merges: entry 1"});
  expect_error("/model/merges/1", {{"left", "a"}, {"right", "b"}}, {"merges: entry 1"});
  expect_error("/model/merges/1", Json::array({Json::array({"a", "b"})}), {"merges: entry 1"});
  expect_error("/model/merges/1", Json(), {"merges: entry 1"});
  expect_error("/added_tokens/0/id", -5, {"added_tokens", "expected an id"});
  expect_error("/added_tokens/0/id", 300, {"added token", "300"});
  expect_error("/added_tokens/0/content", 7, {"added_tokens: content: expected a string"});
  expect_error("/added_tokens/0/special", "yes", {"special: expected true or false"});
  expect_error("/added_tokens/1/content", "<unk>", {"\"<unk>\""});
}

/// A merge that makes what it is made of would go on for ever.
TEST_F(TokenizerJson, MergesOfNothingAreRefused) {
  Json bad = good_;
  bad["model"]["vocab"][""] = 483;
  for (const Json& merge :
       {Json("a "), Json(" a"), Json({"a", ""}), Json({"", "a"}), Json({"", ""})}) {
    bad["model"]["merges"][1] = merge;
    expect_text_error(bad.dump(), {"merge 1", "expected two tokens"});
  }
}

TEST_F(TokenizerJson, WhatIsTooMuchIsRefused) {
  std::string merges = R"({"model": {"vocab": {"a": 0, "aa": 1}, "merges": ["a a")";
  for (int64_t i = 0; i < kMaxVocabulary; ++i) merges += R"(,"a a")";
  expect_text_error(merges + "]}}", {"merges", "more than 4194304"});
  std::string deep = R"({"model": {"merges": [], "vocab": {"a": )";
  expect_text_error(deep + std::string(100'000, '['), {"\"a\"", "expected an id"});
  expect_text_error(R"({"added_tokens": )" + std::string(100'000, '['), {"nested deeper"});
  expect_text_error(R"({"model": {"merges": )" + std::string(100'000, '['), {"merges: entry 0"});
  expect_error("/model/vocab/" + std::string(70'000, 'x'), 483, {"token 483: 70000 bytes"});
}

/// Two of a file's parts say different things of one token.
TEST_F(TokenizerJson, AddedTokensThatClashAreRefused) {
  Json bad = good_;
  bad["added_tokens"].push_back(bad["added_tokens"][1]);
  bad["added_tokens"].back()["id"] = 483;
  expect_text_error(bad.dump(), {"added token \"<s>\"", "1 and 483"});
  bad["added_tokens"].back()["content"] = "<other>";
  bad["added_tokens"].back()["id"] = 1;
  expect_text_error(bad.dump(), {"added token \"<other>\"", "its id 1 is \"<s>\""});
  bad = good_;
  bad["model"]["vocab"]["twice"] = 480;
  expect_text_error(bad.dump(), {"its id 480 is \"twice\""});
}

/// Vocabularies with gaps, and without the bytes that a text needs, are none that must be refused:
/// there is nothing, or <unk>, for what has no token.
TEST_F(TokenizerJson, GapsAndMissingBytesLoad) {
  const std::string model = R"({"model": {"vocab": {"a": 0, "b": 4194303}, "merges": []}, )"
                            R"("pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},)"
                            R"("decoder": {"type": "ByteLevel"}})";
  root_.write("tokenizer.json", model);
  const auto gaps = Tokenizer::load(root_.path() / "tokenizer.json");
  ASSERT_TRUE(gaps) << gaps.error().message;
  EXPECT_EQ((*gaps)->vocab_size(), kMaxVocabulary);
  EXPECT_THAT((*gaps)->encode("\u00e9ab c", false), testing::ElementsAre(0, 4'194'303));
  EXPECT_EQ((*gaps)->decode(std::vector<int32_t>{0, 77, 4'194'303}), "ab");
  Json fallback = good_;
  fallback["model"]["vocab"].erase("<0xC3>");
  root_.write("tokenizer.json", fallback.dump());
  const auto missing = Tokenizer::load(root_.path() / "tokenizer.json");
  ASSERT_TRUE(missing) << missing.error().message;
  EXPECT_THAT((*missing)->encode("\u00ff", false), testing::Contains(0));
}

TEST_F(TokenizerJson, PostProcessorsWithoutATextOrATokenAreRefused) {
  expect_error("/post_processor/single", 5, {"single: expected a list"});
  expect_error("/post_processor/single/0/SpecialToken/id", "<nowhere>",
               {"\"<nowhere>\" has no ids"});
  expect_error("/post_processor/special_tokens/<s>/ids/0", 1'000'000, {"special token 1000000"});
  expect_error("/post_processor/special_tokens/<s>/ids/0", -1, {"out of range"});
  Json twice = good_["post_processor"]["single"];
  twice.push_back(twice.back());
  expect_error("/post_processor/single", twice, {"the text is there twice"});
}

TEST_F(TokenizerJson, AValueOfAnotherKindAnywhereLoadsOrIsRefusedButNeverCrashes) {
  const Json flat = good_.flatten();
  const std::vector<Json> values = {nullptr,
                                    true,
                                    -1,
                                    1e300,
                                    "",
                                    "\u2581",
                                    Json::array(),
                                    Json::object(),
                                    Json::array({1, "a", nullptr})};
  int refused = 0;
  size_t index = 0, place = 0;
  for (const auto& [pointer, old] : flat.items()) {
    if (++place % kSparser != 0) continue;
    // Of the vocabulary and the merges some will do.
    const bool many = pointer.starts_with("/model/vocab/") || pointer.starts_with("/model/merges/");
    if (many && ++index % 37 != 0) continue;
    for (const Json& value : values) {
      Json bad = good_;
      bad[Json::json_pointer(pointer)] = value;
      root_.write("tokenizer.json", bad.dump());
      const auto loaded = Tokenizer::load(root_.path() / "tokenizer.json");
      if (!loaded) {
        ++refused;
        expect_one_line(loaded.error().message);
        continue;
      }
      const auto tokens = (*loaded)->encode("The caf\u00e9 <s>  0x41\n", true);
      for (const int32_t token : tokens) EXPECT_LT(token, (*loaded)->vocab_size());
      (void)(*loaded)->decode(tokens);
    }
  }
  EXPECT_GT(refused, 100);
}

class GgufVocabularyTest : public ::testing::Test {
 protected:
  static GgufVocabulary good() {
    return {.source = "x.gguf",
            .model = "gpt2",
            .pre = "gpt-2",
            .tokens = {"a", "b", "ab", "<s>"},
            .token_types = {1, 1, 1, 3},
            .merges = {"a b"},
            .bos = 3};
  }
  static void expect_error(const GgufVocabulary& vocabulary, std::string_view part) {
    const auto made = make_tokenizer(vocabulary);
    ASSERT_FALSE(made) << part;
    expect_one_line(made.error().message);
    EXPECT_THAT(made.error().message,
                testing::AllOf(testing::StartsWith("x.gguf: "), testing::HasSubstr(part)));
  }
};

TEST_F(GgufVocabularyTest, WhatIsMissingOrContradictoryIsNamed) {
  ASSERT_TRUE(make_tokenizer(good()));
  auto bad = good();
  bad.model = "bert";
  expect_error(bad, "tokenizer.ggml.model \"bert\"; expected gpt2 or llama");
  bad = good();
  bad.pre = "klingon";
  expect_error(bad, "tokenizer.ggml.pre \"klingon\" is not known");
  bad = good();
  bad.tokens.clear();
  expect_error(bad, "tokens is empty");
  bad = good();
  bad.token_types.pop_back();
  expect_error(bad, "3 entries for 4 tokens");
  bad = good();
  bad.token_types[1] = 9;
  expect_error(bad, "token 1 is of unknown type 9");
  bad = good();
  bad.tokens[1] = "a";
  expect_error(bad, "\"a\" is token 0 already");
  bad = good();
  bad.tokens[1] = "\xff";
  expect_error(bad, "token 1: not valid UTF-8");
  for (const char* merge : {"", "a", " b", "a "}) {
    bad = good();
    bad.merges[0] = merge;
    expect_error(bad, "merges");
  }
  bad = good();
  bad.merges[0] = "b a";
  expect_error(bad, "\"ba\" is not in the vocabulary");
  bad = good();
  bad.bos = 4;
  expect_error(bad, "tokenizer.ggml.bos_token_id is 4, of 4 tokens");
  bad = good();
  bad.eos = int64_t{1} << 60;
  expect_error(bad, "tokenizer.ggml.eos_token_id");
  bad = good();
  bad.model = "llama";
  expect_error(bad, "tokenizer.ggml.scores: 0 entries for 4 tokens");
  bad.scores = {0, 0, std::numeric_limits<float>::quiet_NaN(), 0};
  expect_error(bad, "token 2: its score is not a number");
  bad.scores = {0, 0, 0, 0};
  bad.token_types[0] = 6;
  expect_error(bad, "token 0: \"a\" is no byte");
  const std::string long_token(1000, 'x');
  bad.token_types[0] = 1;
  bad.tokens[2] = long_token;
  expect_error(bad, "token 2: 1000 bytes");
}

TEST_F(GgufVocabularyTest, NoMergeMakesAControlToken) {
  auto vocabulary = good();
  vocabulary.token_types[2] = 3;
  const auto made = make_tokenizer(vocabulary);
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_THAT((*made)->encode("ab", false), testing::ElementsAre(0, 1));
}

}  // namespace
}  // namespace kvcast
