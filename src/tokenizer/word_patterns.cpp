#include "tokenizer/word_patterns.h"

#include <algorithm>

namespace kvcast {

const std::string_view kGpt2Words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Numbers as Rust's `char` has them, Unicode 17's: newer than any regex's.
const std::string_view kDigit = R"([\p{N}\x{11DE0}-\x{11DE9}\x{16FF4}-\x{16FF6}])";

namespace {

// These two differ in how many digits a word has.
constexpr std::string_view kLlama3Words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekkenWords =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDefaultWords =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))";

const std::vector<WordPatterns>& table() {
  static const std::vector<WordPatterns> patterns = {
      {.names = {"gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "trillion"},
       .splits = {kGpt2Words}},
      {.names = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"},
       .splits = {kDigit, kGpt2Words}},
      {.names = {"llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"},
       .splits = {kLlama3Words},
       .ignore_merges = true,
       .adds_bos = true},
      {.names = {"dbrx", "smaug-bpe"}, .splits = {kLlama3Words}},
      {.names = {"qwen2", "deepseek-r1-qwen", "megrez"},
       .splits = {kQwen2Words},
       .canonical = true},
      {.names = {"stablelm2", "hunyuan"}, .splits = {kQwen2Words}},
      {.names = {"tekken"}, .splits = {kTekkenWords}, .ignore_merges = true, .adds_bos = true},
      // What llama.cpp does with files from before `pre` was written.
      {.names = {"default"},
       .splits = {R"([\p{P}\$\+<=>\^~\|]+)", kDefaultWords, R"(\p{N}+)", "[0-9][0-9][0-9]"}},
  };
  return patterns;
}

}  // namespace

const WordPatterns* find_word_patterns(std::string_view name) {
  for (const WordPatterns& patterns : table()) {
    if (std::find(patterns.names.begin(), patterns.names.end(), name) != patterns.names.end()) {
      return &patterns;
    }
  }
  return nullptr;
}

std::string known_word_patterns() {
  std::string names;
  for (const WordPatterns& patterns : table()) {
    for (const std::string_view name : patterns.names) {
      if (!names.empty()) names += ", ";
      names += name;
    }
  }
  return names;
}

}  // namespace kvcast
