// Tokens to text in one go and piece by piece must agree, and so must stop strings, however the
// text is cut.
#include "base/utf8.h"
#include "fuzz.h"
#include "runtime/stop_matcher.h"
#include "tokenizer/tokenizer.h"

namespace kvcast {
namespace {

const Tokenizer& tokenizer() {
  static const auto loaded = Tokenizer::load(KVCAST_SOURCE_DIR / "tests/data/tokenizer.model");
  FUZZ_CHECK(loaded.has_value());
  return **loaded;
}

std::string detokenize_in_pieces(std::span<const int32_t> tokens,
                                 IncrementalDetokenizer::Start start) {
  IncrementalDetokenizer detokenizer(tokenizer(), start);
  std::string text;
  for (const int32_t token : tokens) {
    const std::string piece = detokenizer.push(token);
    FUZZ_CHECK(is_valid_utf8(piece));
    text += piece;
  }
  const std::string last = detokenizer.flush();
  FUZZ_CHECK(is_valid_utf8(last));
  return text + last;
}

/// Any ids: the first byte of two chooses between all of int32's range, the vocabulary and bytes.
void fuzz_tokens(Input& input) {
  std::vector<int32_t> tokens;
  while (!input.empty()) {
    const int32_t high = input.byte(), low = input.byte();
    if (high == 0xFF) {
      tokens.push_back(static_cast<int32_t>(static_cast<uint32_t>(low) * 0x01010101U));
    } else if (high >= 0x80) {
      tokens.push_back(3 + low);
    } else {
      tokens.push_back(high * 256 + low - 2);
    }
  }
  const std::string whole = tokenizer().decode(tokens);
  FUZZ_CHECK(is_valid_utf8(whole));
  FUZZ_CHECK(detokenize_in_pieces(tokens, IncrementalDetokenizer::Start::kNewText) == whole);
  (void)detokenize_in_pieces(tokens, IncrementalDetokenizer::Start::kContinuesText);
}

void fuzz_encode(Input& input) {
  const std::string_view text = input.rest();
  const auto tokens = tokenizer().encode(text, true);
  for (const int32_t token : tokens) FUZZ_CHECK(token >= 0 && token < tokenizer().vocab_size());
  const std::string back = tokenizer().decode(tokens);
  FUZZ_CHECK(detokenize_in_pieces(tokens, IncrementalDetokenizer::Start::kNewText) == back);
  // U+0000 and U+2581, SentencePiece's space, do not survive the library.
  const bool survives = is_valid_utf8(text) && text.find('\0') == std::string_view::npos &&
                        text.find("\u2581") == std::string_view::npos;
  if (survives) FUZZ_CHECK(back == text);
}

/// The slow twin: cut before the match that ends first, the longest of several.
std::string cut(std::string_view text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (!stop.empty() && text.substr(0, end).ends_with(stop)) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return std::string(text.substr(0, end - longest));
  }
  return std::string(text);
}

void fuzz_stops(Input& input) {
  std::vector<std::string> stops(input.byte() % 4);
  for (std::string& stop : stops) stop = input.text(8);
  StopMatcher matcher(stops);
  std::string text, result;
  while (!input.empty()) {
    const std::string_view piece = input.text(12);
    text += piece;
    result += matcher.push(piece);
    FUZZ_CHECK(cut(text, stops).starts_with(result));
  }
  result += matcher.flush();
  FUZZ_CHECK(result == cut(text, stops));
}

}  // namespace
}  // namespace kvcast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvcast;
  if (size > 4096) return 0;  // cut() is quadratic
  Input input(data, size);
  switch (input.byte()) {
    case 't':
      fuzz_tokens(input);
      break;
    case 'e':
      fuzz_encode(input);
      break;
    case 's':
      fuzz_stops(input);
      break;
    default:
      break;
  }
  return 0;
}
