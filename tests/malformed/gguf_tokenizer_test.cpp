// GGUF files whose tokenizer.ggml.* keys are of another type, or say what cannot be.
#include "malformed/malformed.h"
#include "model/model_text.h"
#include "support/gguf_bytes.h"

namespace kvcast {
namespace {

constexpr std::string_view kPrefix = "tokenizer.ggml.";

std::string texts(std::string_view key, const std::vector<std::string_view>& values) {
  std::string elements;
  for (const std::string_view value : values) elements += gguf_string(value);
  return gguf_array(std::string(kPrefix) + std::string(key), GgufType::kString, values.size(),
                    elements);
}
std::string text(std::string_view key, std::string_view value) {
  return gguf_pair(std::string(kPrefix) + std::string(key), GgufType::kString, gguf_string(value));
}
template <typename T>
std::string number(std::string_view key, GgufType type, T value) {
  return gguf_pair(std::string(kPrefix) + std::string(key), type, little_endian(value));
}
template <typename T>
std::string numbers(std::string_view key, GgufType type, const std::vector<T>& values) {
  std::string elements;
  for (const T value : values) elements += little_endian(value);
  return gguf_array(std::string(kPrefix) + std::string(key), type, values.size(), elements);
}

class GgufTokenizer : public ::testing::Test {
 protected:
  /// The pairs of a good vocabulary, those of `changes` in the places of theirs.
  [[nodiscard]] static std::vector<std::string> pairs(const std::string& change = {}) {
    std::vector<std::string> good = {text("model", "gpt2"),
                                     text("pre", "gpt-2"),
                                     texts("tokens", {"a", "b", "ab", "<s>"}),
                                     numbers<int32_t>("token_type", GgufType::kI32, {1, 1, 1, 3}),
                                     texts("merges", {"a b"}),
                                     number<uint32_t>("bos_token_id", GgufType::kU32, 3),
                                     number<uint8_t>("add_bos_token", GgufType::kBool, 1)};
    const auto key = [](const std::string& pair) {
      uint64_t length = 0;
      std::memcpy(&length, pair.data(), sizeof length);
      return pair.substr(sizeof length, length);
    };
    for (std::string& pair : good) {
      if (!change.empty() && key(pair) == key(change)) {
        pair = change;
        return good;
      }
    }
    if (!change.empty()) good.push_back(change);
    return good;
  }
  Result<std::unique_ptr<Tokenizer>> open(const std::vector<std::string>& with) const {
    GgufBytes file;
    file.pairs = with;
    root_.write("x.gguf", file.str());
    return open_tokenizer(root_.path() / "x.gguf");
  }
  void expect_error(const std::string& change, std::string_view part) const {
    const auto opened = open(pairs(change));
    ASSERT_FALSE(opened) << part;
    expect_one_line(opened.error().message);
    EXPECT_THAT(opened.error().message, testing::AllOf(testing::HasSubstr("x.gguf"),
                                                       testing::HasSubstr(std::string(part))));
  }

  TemporaryDirectory root_;
};

TEST_F(GgufTokenizer, AGoodOneLoads) {
  const auto opened = open(pairs());
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_THAT((*opened)->encode("ab", true), testing::ElementsAre(3, 2));
}

TEST_F(GgufTokenizer, KeysOfAnotherTypeAreNamed) {
  expect_error(number<uint32_t>("model", GgufType::kU32, 1), "tokenizer.ggml.model");
  expect_error(number<uint32_t>("pre", GgufType::kU32, 1), "tokenizer.ggml.pre");
  expect_error(text("tokens", "a"), "tokenizer.ggml.tokens");
  expect_error(numbers<uint32_t>("tokens", GgufType::kU32, {1, 2}), "tokenizer.ggml.tokens");
  expect_error(texts("token_type", {"1", "1", "1", "3"}), "tokenizer.ggml.token_type");
  expect_error(numbers<float>("token_type", GgufType::kF32, {1, 1, 1, 3}),
               "tokenizer.ggml.token_type");
  expect_error(texts("scores", {"1"}), "tokenizer.ggml.scores");
  expect_error(numbers<uint32_t>("merges", GgufType::kU32, {1}), "tokenizer.ggml.merges");
  expect_error(text("bos_token_id", "<s>"), "tokenizer.ggml.bos_token_id");
  expect_error(number<float>("eos_token_id", GgufType::kF32, 2), "tokenizer.ggml.eos_token_id");
  expect_error(number<uint32_t>("add_bos_token", GgufType::kU32, 1),
               "tokenizer.ggml.add_bos_token");
}

TEST_F(GgufTokenizer, NumbersThatCannotBeAreNamed) {
  expect_error(numbers<uint64_t>("token_type", GgufType::kU64, {1, 1, 1, (uint64_t{1} << 32) + 3}),
               "token 3 is of unknown type 4294967299");
  expect_error(number<uint64_t>("bos_token_id", GgufType::kU64, ~uint64_t{0}),
               "tokenizer.ggml.bos_token_id");
  expect_error(number<uint64_t>("eos_token_id", GgufType::kU64, uint64_t{1} << 60),
               "tokenizer.ggml.eos_token_id");
  expect_error(number<int32_t>("unknown_token_id", GgufType::kI32, -2),
               "tokenizer.ggml.unknown_token_id");
  const std::string key = std::string(kPrefix) + "tokens";
  expect_error(gguf_array(key, GgufType::kString, uint64_t{1} << 60, gguf_string("a")), key);
  expect_error(gguf_array(key, GgufType::kString, 1, gguf_string("a", uint64_t{1} << 60)), key);
  expect_error(gguf_array(key, GgufType::kArray, 1, gguf_string("a")), key);
  expect_error(gguf_array(key, GgufType::kString, 0, ""), "tokenizer.ggml.tokens is empty");
  expect_error(texts("merges", {"a "}), "tokenizer.ggml.merges: entry 0");
}

}  // namespace
}  // namespace kvcast
