#include "tokenizer/gguf_vocabulary.h"

#include <fmt/format.h>

#include "base/macros.h"
#include "tokenizer/bpe_tokenizer.h"
#include "tokenizer/word_patterns.h"

namespace kvcast {
namespace {

/// GGUF's numbers for what a token is.
enum TokenType { kNormal = 1, kUnknownType, kControlType, kUserDefined, kUnusedType, kByteType };

class Describer {
 public:
  explicit Describer(const GgufVocabulary& vocabulary) : from_(vocabulary) {}

  Result<BpeDescription> describe() {
    made_.source = from_.source;
    KVCAST_CHECK(read_tokens());
    if (from_.model == "gpt2") {
      KVCAST_CHECK(describe_byte_level());
    } else if (from_.model == "llama") {
      KVCAST_CHECK(describe_sentencepiece());
    } else {
      return refuse(
          fmt::format("tokenizer.ggml.model \"{}\"; expected gpt2 or llama", from_.model));
    }
    KVCAST_CHECK(read_special_tokens());
    return std::move(made_);
  }

 private:
  [[nodiscard]] tl::unexpected<Error> refuse(std::string_view what) const {
    return fail(fmt::format("{}: {}", from_.source, what));
  }

  Status read_tokens() {
    const size_t count = from_.tokens.size();
    if (count == 0) return refuse("tokenizer.ggml.tokens is empty");
    if (count > static_cast<size_t>(kMaxVocabulary)) {
      return refuse(fmt::format("tokenizer.ggml.tokens: {} tokens; expected at most {}", count,
                                kMaxVocabulary));
    }
    if (!from_.token_types.empty() && from_.token_types.size() != count) {
      return refuse(fmt::format("tokenizer.ggml.token_type: {} entries for {} tokens",
                                from_.token_types.size(), count));
    }
    const bool byte_level = from_.model == "gpt2";
    for (size_t id = 0; id < count; ++id) {
      const int64_t type = from_.token_types.empty() ? int64_t{kNormal} : from_.token_types[id];
      TokenKind kind = TokenKind::kText;
      if (type < kNormal || type > kByteType) {
        return refuse(
            fmt::format("tokenizer.ggml.token_type: token {} is of unknown type {}", id, type));
      }
      if (type == kUnusedType) kind = TokenKind::kUnused;
      if (type == kByteType) kind = TokenKind::kByte;
      if (type == kControlType || type == kUnknownType || type == kUserDefined) {
        AddedToken added{.text = std::string(from_.tokens[id]), .id = static_cast<int32_t>(id)};
        added.special = type != kUserDefined;
        // SentencePiece looks for its own words where spaces are U+2581 already.
        added.normalized = !added.special && !byte_level;
        if (added.special) kind = TokenKind::kControl;
        made_.added.push_back(std::move(added));
      }
      made_.tokens.push_back({from_.tokens[id], kind});
    }
    return {};
  }

  Status describe_byte_level() {
    const std::string_view name = from_.pre.empty() ? "default" : std::string_view(from_.pre);
    const WordPatterns* words = find_word_patterns(name);
    if (!words) {
      return refuse(fmt::format("tokenizer.ggml.pre \"{}\" is not known; expected one of {}", name,
                                known_word_patterns()));
    }
    made_.byte_level = true;
    made_.ignore_merges = words->ignore_merges;
    adds_bos_ = words->adds_bos;
    if (words->canonical) made_.normalizer.steps.emplace_back();
    for (const std::string_view pattern : words->splits) {
      PreTokenizerStep step;
      KVCAST_TRY(Regex regex, Regex::compile(pattern, from_.source));
      step.regex.push_back(std::move(regex));
      made_.pre_tokenizer.steps.push_back(std::move(step));
    }
    if (from_.add_space_prefix.value_or(false)) {
      made_.pre_tokenizer.steps.insert(made_.pre_tokenizer.steps.begin(),
                                       {.kind = PreTokenizerStep::Kind::kPrepend,
                                        .regex = {},
                                        .text = " ",
                                        .only_at_start = true});
    }
    for (size_t rank = 0; rank < from_.merges.size(); ++rank) {
      const std::string_view merge = from_.merges[rank];
      const size_t space = merge.find(' ', 1);
      if (space == std::string_view::npos || space + 1 == merge.size()) {
        return refuse(fmt::format("tokenizer.ggml.merges: entry {} is \"{}\"; expected two tokens",
                                  rank, merge));
      }
      made_.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
    }
    return {};
  }

  Status describe_sentencepiece() {
    if (from_.scores.size() != from_.tokens.size()) {
      return refuse(fmt::format("tokenizer.ggml.scores: {} entries for {} tokens",
                                from_.scores.size(), from_.tokens.size()));
    }
    made_.scores = from_.scores;
    made_.byte_fallback = true;
    made_.fuse_unknown = true;
    made_.space_symbol = true;
    made_.added_are_normal = true;
    made_.unknown = static_cast<int32_t>(from_.unknown.value_or(-1));
    adds_bos_ = true;
    using Kind = NormalizerStep::Kind;
    if (from_.add_space_prefix.value_or(true)) {
      made_.normalizer.steps.push_back({Kind::kPrepend, {}, std::string(kSpaceSymbol)});
      made_.leading_space = LeadingSpace::kFirstDropped;
    }
    KVCAST_TRY(Regex space, Regex::literal(" ", from_.source));
    made_.normalizer.steps.push_back(
        {Kind::kReplace, {std::move(space)}, std::string(kSpaceSymbol)});
    return {};
  }

  Status read_special_tokens() {
    KVCAST_TRY(made_.special.bos, token_id("bos", from_.bos));
    KVCAST_TRY(made_.special.eos, token_id("eos", from_.eos));
    KVCAST_CHECK(token_id("unknown", from_.unknown));
    auto& [bos, eos, before, after] = made_.special;
    if (bos >= 0 && from_.add_bos.value_or(adds_bos_)) before = {bos};
    if (eos >= 0 && from_.add_eos.value_or(false)) after = {eos};
    return {};
  }

  Result<int32_t> token_id(std::string_view name, std::optional<int64_t> id) const {
    if (!id) return -1;
    if (*id < 0 || *id >= std::ssize(from_.tokens)) {
      return refuse(fmt::format("tokenizer.ggml.{}_token_id is {}, of {} tokens", name, *id,
                                from_.tokens.size()));
    }
    return static_cast<int32_t>(*id);
  }

  const GgufVocabulary& from_;
  BpeDescription made_;
  bool adds_bos_ = false;
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> make_tokenizer(const GgufVocabulary& vocabulary) {
  KVCAST_TRY(const BpeDescription description, Describer(vocabulary).describe());
  return BpeTokenizer::make(description);
}

}  // namespace kvcast
