// Any bytes as a tokenizer.json, as the tokenizer_config.json beside one, or choices from which a
// GGUF vocabulary is made: refused with a message, or a tokenizer whose ids are all in its
// vocabulary and whose text is the same in one go and piece by piece.
#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "fuzz.h"
#include "tokenizer/gguf_vocabulary.h"
#include "tokenizer/tokenizer_files.h"
#include "tokenizer/tokenizer_json.h"

namespace kvcast {
namespace {

/// What tokenizers stumble over.
constexpr std::array<std::string_view, 6> kTexts = {
    "The caf\u00e9's  12 <s>ab</s>\n\n<|end|>x",
    "\u2581\u2581 a\u0301\u0323 \u65e5\u672c\U0001F600\U0001F468\u200d\U0001F469",
    "",
    "   \t\r\n   0000111122223333 aaaaaaaaaaaaaaaabbbbbbbbbbbbbb",
    "\xff\xc0\x80\xed\xa0\x80<0x41>",
    "\U00011935\U00011930\U00010d40\U00031350 [M] word"};

void check_ids(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  for (const int32_t id : ids) FUZZ_CHECK(id >= 0 && id < tokenizer.vocab_size());
  const std::string whole = tokenizer.decode(ids);
  FUZZ_CHECK(is_valid_utf8(whole));
  IncrementalDetokenizer detokenizer(tokenizer, IncrementalDetokenizer::Start::kNewText);
  std::string text;
  for (const int32_t id : ids) {
    const std::string piece = detokenizer.push(id);
    FUZZ_CHECK(is_valid_utf8(piece));
    text += piece;
  }
  FUZZ_CHECK(text + detokenizer.flush() == whole);
}

void check_tokenizer(const Tokenizer& tokenizer, std::string_view own_text) {
  std::vector<std::string_view> texts(kTexts.begin(), kTexts.end());
  texts.push_back(own_text.substr(0, 300));
  for (const std::string_view text : texts) {
    const size_t breaks[] = {text.size() / 2};
    check_ids(tokenizer, tokenizer.encode(text, false));
    check_ids(tokenizer,
              tokenizer.encode(text, {.add_special = true, .parse_special = true, .breaks = {}}));
    const auto cut = tokenizer.encode(text, {.parse_special = true, .breaks = breaks});
    check_ids(tokenizer, cut);
  }
  for (const int32_t id : tokenizer.end_tokens()) {
    FUZZ_CHECK(id >= 0 && id < tokenizer.vocab_size());
  }
  (void)tokenizer.adds_bos();
}

void check(const Result<std::unique_ptr<Tokenizer>>& made, std::string_view own_text) {
  if (!made) return check_message(made.error().message);
  check_tokenizer(**made, own_text);
}

/// Its values count only together with a tokenizer's.
void fuzz_config(const MemoryFile& file, Input& input) {
  AddedTokens known;
  known.add({.text = "<s>", .id = 1, .special = true});
  known.add({.text = "</s>", .id = 2, .special = true});
  SpecialTokens special{.bos = 1, .eos = -1, .before = {1}, .after = {}};
  file.set(input.rest());
  const auto applied = apply_tokenizer_config(file.path(), known, special);
  if (!applied) return check_message(applied.error().message);
  for (const int32_t id : {special.bos, special.eos}) FUZZ_CHECK(id >= -1 && id <= 2);
  FUZZ_CHECK(special.before.size() <= 1 && special.after.size() <= 1);
}

void fuzz_vocabulary(Input& input) {
  constexpr std::array<std::string_view, 8> kPres = {"gpt-2",  "smollm",  "qwen2", "llama-bpe",
                                                     "tekken", "default", "",      "none"};
  constexpr std::array<float, 6> kScores = {0,
                                            -1,
                                            -2,
                                            1e30F,
                                            std::numeric_limits<float>::infinity(),
                                            std::numeric_limits<float>::quiet_NaN()};
  const auto choice = [&](int64_t count) { return int64_t{input.byte()} % count; };
  const auto maybe = [&]() -> std::optional<int64_t> {
    const int64_t chosen = choice(16);
    if (chosen > 8) return std::nullopt;
    return chosen == 8 ? int64_t{1} << 60 : chosen - 1;
  };
  const auto flag = [&]() -> std::optional<bool> {
    const int64_t chosen = choice(3);
    return chosen == 2 ? std::nullopt : std::optional(chosen == 1);
  };
  GgufVocabulary vocabulary;
  vocabulary.source = "fuzz.gguf";
  vocabulary.model = choice(2) == 0 ? "gpt2" : "llama";
  vocabulary.pre = kPres[static_cast<size_t>(choice(kPres.size()))];
  vocabulary.bos = maybe();
  vocabulary.eos = maybe();
  vocabulary.unknown = maybe();
  vocabulary.add_bos = flag();
  vocabulary.add_eos = flag();
  vocabulary.add_space_prefix = flag();
  for (int64_t i = choice(32); i > 0; --i) {
    vocabulary.tokens.push_back(input.text(8));
    vocabulary.token_types.push_back(static_cast<int32_t>(choice(8)));
    vocabulary.scores.push_back(kScores[static_cast<size_t>(choice(kScores.size()))]);
  }
  for (int64_t i = choice(16); i > 0; --i) vocabulary.merges.push_back(input.text(8));
  if (choice(8) == 0) vocabulary.token_types.clear();
  if (choice(8) == 0 && !vocabulary.scores.empty()) vocabulary.scores.pop_back();
  check(make_tokenizer(vocabulary), input.rest());
}

}  // namespace
}  // namespace kvcast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvcast;
  static const MemoryFile file;
  Input input(data, size);
  switch (input.byte()) {
    case 'j': {
      const std::string_view json = input.rest();
      check(make_tokenizer_from_json(json, "tokenizer.json"), json);
      break;
    }
    case 'c':
      fuzz_config(file, input);
      break;
    case 'g':
      fuzz_vocabulary(input);
      break;
    default:
      break;
  }
  return 0;
}
