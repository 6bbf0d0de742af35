// From a description, which may say anything, to a tokenizer's tables.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

#include "base/macros.h"
#include "base/utf8.h"
#include "tokenizer/bpe_tokenizer.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/digest.h"

namespace kvcast {
namespace {

constexpr size_t kMaxTokenBytes = 65'535, kMaxVocabularyBytes = size_t{1} << 30;
/// All ways to cut a scored token in two are tried.
constexpr size_t kMaxScoredBytes = 512;

/// The value of "<0xE2>"; nullopt for anything else.
std::optional<uint8_t> byte_of_name(std::string_view name) {
  unsigned value = 0;
  if (name.size() != 6 || !name.starts_with("<0x") || name[5] != '>') return std::nullopt;
  const auto [end, error] = std::from_chars(name.data() + 3, name.data() + 5, value, 16);
  if (error != std::errc() || end != name.data() + 5) return std::nullopt;
  return static_cast<uint8_t>(value);
}

}  // namespace

class BpeBuilder {
 public:
  explicit BpeBuilder(const BpeDescription& description)
      : from_(description), made_(new BpeTokenizer()) {}

  Result<std::unique_ptr<Tokenizer>> build() {
    tokens_ = from_.tokens;
    KVCAST_CHECK(add_added_tokens());
    KVCAST_CHECK(index_tokens());
    KVCAST_CHECK(add_vocabulary());
    KVCAST_CHECK(add_bytes());
    KVCAST_CHECK(from_.scores.empty() ? add_listed_merges() : add_scored_merges());
    KVCAST_CHECK(check_ids());
    made_->source_ = from_.source;
    made_->special_ = from_.special;
    made_->normalizer_ = from_.normalizer;
    made_->pre_tokenizer_ = from_.pre_tokenizer;
    made_->model_.byte_level = from_.byte_level;
    made_->model_.byte_fallback = from_.byte_fallback;
    made_->model_.fuse_unknown = from_.fuse_unknown;
    made_->model_.unknown = from_.unknown;
    KVCAST_CHECK(cut_at_spaces());
    describe_steps();
    made_->digest_ = digest_.value();
    return std::unique_ptr<Tokenizer>(std::move(made_));
  }

 private:
  [[nodiscard]] tl::unexpected<Error> refuse(std::string_view what) const {
    return fail(fmt::format("{}: {}", from_.source, what));
  }

  Status add_added_tokens() {
    for (const AddedToken& token : from_.added) {
      if (token.id < 0 || token.id >= kMaxVocabulary) {
        return refuse(fmt::format("added token \"{}\": id {} is not within 0..{}", token.text,
                                  token.id, kMaxVocabulary - 1));
      }
      if (!is_valid_utf8(token.text)) {
        return refuse(fmt::format("added token {}: not valid UTF-8", token.id));
      }
      const auto id = static_cast<size_t>(token.id);
      if (id >= tokens_.size()) tokens_.resize(id + 1);
      BpeDescription::Token& place = tokens_[id];
      if (place.kind != TokenKind::kUnused && place.text != token.text) {
        return refuse(fmt::format("added token \"{}\": its id {} is \"{}\" in the vocabulary",
                                  token.text, token.id, place.text));
      }
      if (token.special && !controls_.insert(token.text, token.id) &&
          controls_.find(token.text) != token.id) {
        return refuse(fmt::format("added token \"{}\": has ids {} and {}", token.text,
                                  controls_.find(token.text), token.id));
      }
      place = {token.text, token.special ? TokenKind::kControl : TokenKind::kText};
      if (is_added_.size() <= id) is_added_.resize(id + 1);
      is_added_[id] = true;
      if (token.normalized && !token.special) {
        AddedToken normal = token;
        RegexMatcher matcher;
        std::string buffer;
        if (!from_.added_are_normal) {
          normal.text = from_.normalizer.apply(token.text, matcher, buffer);
          normal_texts_[id] = normal.text;
        }
        made_->added_after_normalizing_.add(std::move(normal));
      } else {
        made_->added_.add(token);
      }
    }
    if (tokens_.size() > static_cast<size_t>(kMaxVocabulary)) {
      return refuse(fmt::format("{} tokens; expected at most {}", tokens_.size(), kMaxVocabulary));
    }
    is_added_.resize(tokens_.size());
    return {};
  }

  /// Control tokens are no part of it: no merge, and no whole word, may make one from text.
  Status index_tokens() {
    index_.reserve(tokens_.size());
    size_t bytes = 0;
    for (size_t id = 0; id < tokens_.size(); ++id) {
      const auto& [text, kind] = tokens_[id];
      bytes += text.size();
      if (text.size() > kMaxTokenBytes || bytes > kMaxVocabularyBytes) {
        return refuse(fmt::format("token {}: {} bytes; expected at most {}, and {} in all", id,
                                  text.size(), kMaxTokenBytes, kMaxVocabularyBytes));
      }
      if (kind == TokenKind::kUnused || kind == TokenKind::kControl) continue;
      if (!is_valid_utf8(text)) return refuse(fmt::format("token {}: not valid UTF-8", id));
      if (!index_.insert(text, static_cast<int32_t>(id))) {
        return refuse(
            fmt::format("token {}: \"{}\" is token {} already", id, text, index_.find(text)));
      }
    }
    return {};
  }

  [[nodiscard]] std::string shown(size_t id) const {
    const TokenKind kind = tokens_[id].kind;
    const auto normal = normal_texts_.find(id);
    const std::string_view text = normal == normal_texts_.end() ? tokens_[id].text : normal->second;
    if (kind == TokenKind::kControl || kind == TokenKind::kUnused) return {};
    if (kind == TokenKind::kByte) return std::string(1, static_cast<char>(*byte_of_name(text)));
    if (from_.byte_level && !is_added_[id]) {
      if (auto bytes = bytes_of_written(text)) return *std::move(bytes);
    }
    if (from_.space_symbol) return replace_all(text, kSpaceSymbol, " ");
    return std::string(text);
  }

  /// Whether it is an entry of the model's own vocabulary, added or not.
  [[nodiscard]] bool is_listed(size_t id) const {
    return id < from_.tokens.size() && from_.tokens[id].kind == TokenKind::kText;
  }

  Status add_vocabulary() {
    Vocabulary& vocabulary = made_->vocabulary_;
    vocabulary.byte_level = from_.byte_level;
    vocabulary.leading_space = from_.leading_space;
    vocabulary.reserve(tokens_.size(), tokens_.size() * 8);
    for (size_t id = 0; id < tokens_.size(); ++id) {
      const auto& [text, kind] = tokens_[id];
      if (kind == TokenKind::kByte && !byte_of_name(text)) {
        return refuse(fmt::format("token {}: \"{}\" is no byte; expected \"<0x00>\" to \"<0xFF>\"",
                                  id, text));
      }
      const std::string bytes = shown(id);
      vocabulary.add(bytes, kind);
      if (kind != TokenKind::kUnused) {
        digest_.add(static_cast<uint64_t>(id));
        digest_.add(kind == TokenKind::kControl ? text : std::string_view(bytes));
      }
      const auto number = static_cast<int32_t>(id);
      if (kind != TokenKind::kText || !is_listed(id)) continue;
      if (from_.ignore_merges) {
        const auto word = from_.byte_level ? bytes_of_written(text) : std::nullopt;
        (void)made_->model_.words.insert(word ? std::string_view(*word) : text, number);
      }
      const bool one_character = !text.empty() && first_utf8_character(text).bytes == text.size();
      if (one_character) (void)made_->model_.characters.insert(text, number);
    }
    return {};
  }

  Status add_bytes() {
    for (int value = 0; value < 256; ++value) {
      const std::string byte(1, static_cast<char>(value));
      made_->model_.bytes[static_cast<size_t>(value)] =
          index_.find(from_.byte_level ? written_bytes(byte) : fmt::format("<0x{:02X}>", value));
    }
    return {};
  }

  Status add_listed_merges() {
    if (from_.merges.size() > static_cast<size_t>(kMaxVocabulary)) {
      return refuse(
          fmt::format("{} merges; expected at most {}", from_.merges.size(), kMaxVocabulary));
    }
    made_->model_.reserve_merges(from_.merges.size());
    std::string joined;
    for (size_t rank = 0; rank < from_.merges.size(); ++rank) {
      const auto& [left, right] = from_.merges[rank];
      if (left.empty() || right.empty()) {
        return refuse(
            fmt::format("merge {}: \"{}\" and \"{}\": expected two tokens", rank, left, right));
      }
      joined.assign(left).append(right);
      const int32_t ids[3] = {index_.find(left), index_.find(right), index_.find(joined)};
      const std::string_view texts[3] = {left, right, joined};
      bool control = false;
      for (int part = 0; part < 3; ++part) {
        if (ids[part] >= 0) continue;
        control |= controls_.find(texts[part]) >= 0;
        if (!control) {
          return refuse(fmt::format("merge {}: \"{}\" and \"{}\": \"{}\" is not in the vocabulary",
                                    rank, left, right, texts[part]));
        }
      }
      if (!control) add_merge(ids[0], ids[1], ids[2], static_cast<uint32_t>(rank));
    }
    return {};
  }

  /// Every way to make a token of two others is a merge, and equal scores are equal ranks.
  Status add_scored_merges() {
    if (from_.scores.size() != from_.tokens.size()) {
      return refuse(
          fmt::format("{} scores for {} tokens", from_.scores.size(), from_.tokens.size()));
    }
    std::vector<size_t> order;
    for (size_t id = 0; id < from_.tokens.size(); ++id) {
      if (!(from_.scores[id] == from_.scores[id])) {
        return refuse(fmt::format("token {}: its score is not a number", id));
      }
      if (tokens_[id].kind == TokenKind::kText && !is_added_[id]) order.push_back(id);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return from_.scores[a] > from_.scores[b]; });
    uint32_t rank = 0;
    for (size_t i = 0; i < order.size(); ++i) {
      if (i > 0 && from_.scores[order[i]] != from_.scores[order[i - 1]]) ++rank;
      const std::string_view text = tokens_[order[i]].text;
      if (text.size() > kMaxScoredBytes) {
        return refuse(fmt::format("token {}: {} bytes; expected at most {}", order[i], text.size(),
                                  kMaxScoredBytes));
      }
      for (size_t cut = 1; cut < text.size(); ++cut) {
        const int32_t left = plain_token(text.substr(0, cut));
        const int32_t right = left < 0 ? -1 : plain_token(text.substr(cut));
        if (right >= 0) add_merge(left, right, static_cast<int32_t>(order[i]), rank);
      }
    }
    return {};
  }

  [[nodiscard]] int32_t plain_token(std::string_view text) const {
    const int32_t id = index_.find(text);
    const auto at = static_cast<size_t>(id);
    return id >= 0 && tokens_[at].kind == TokenKind::kText && !is_added_[at] ? id : -1;
  }

  void add_merge(int32_t left, int32_t right, int32_t result, uint32_t rank) {
    made_->model_.add_merge(left, right, result, rank);
    digest_.add(static_cast<uint64_t>(left));
    digest_.add(static_cast<uint64_t>(right));
    digest_.add(static_cast<uint64_t>(result));
  }

  Status check_ids() const {
    const auto known = [&](int32_t id) { return id >= -1 && id < std::ssize(tokens_); };
    std::vector<int32_t> ids = from_.special.before;
    ids.insert(ids.end(), from_.special.after.begin(), from_.special.after.end());
    ids.insert(ids.end(), {from_.special.bos, from_.special.eos, from_.unknown});
    for (const int32_t id : ids) {
      if (!known(id)) {
        return refuse(fmt::format("special token {} of {} tokens", id, tokens_.size()));
      }
    }
    return {};
  }

  void describe_steps() {
    for (const auto& step : from_.normalizer.steps) {
      digest_.add(static_cast<uint64_t>(step.kind));
      digest_.add(step.regex.empty() ? std::string_view() : step.regex.front().pattern());
      digest_.add(step.text);
    }
    for (const auto& step : from_.pre_tokenizer.steps) {
      digest_.add(static_cast<uint64_t>(step.kind) << 8 | static_cast<uint64_t>(step.matches));
      digest_.add(step.regex.empty() ? std::string_view() : step.regex.front().pattern());
      digest_.add(step.text);
      digest_.add(static_cast<uint64_t>(step.invert) << 1 |
                  static_cast<uint64_t>(step.only_at_start));
    }
  }

  /// Where no token goes on from something else into a space, a text may be cut before its spaces
  /// without changing a merge; short words are faster than a text that is one word.
  Status cut_at_spaces() {
    const auto& steps = from_.pre_tokenizer.steps;
    const bool is_cut = std::any_of(steps.begin(), steps.end(), [](const PreTokenizerStep& step) {
      return step.kind == PreTokenizerStep::Kind::kSplit;
    });
    if (is_cut || from_.byte_level || from_.ignore_merges || plain_token(kSpaceSymbol) < 0) {
      return {};
    }
    for (size_t id = 0; id < tokens_.size(); ++id) {
      if (tokens_[id].kind != TokenKind::kText || is_added_[id]) continue;
      std::string_view word = tokens_[id].text;
      while (word.starts_with(kSpaceSymbol)) word.remove_prefix(kSpaceSymbol.size());
      if (word.find(kSpaceSymbol) != std::string_view::npos) return {};
    }
    KVCAST_TRY(Regex words, Regex::compile("\u2581*[^\u2581]+", from_.source));
    PreTokenizerStep step;
    step.regex.push_back(std::move(words));
    made_->pre_tokenizer_.steps.push_back(std::move(step));
    return {};
  }

  const BpeDescription& from_;
  std::vector<BpeDescription::Token> tokens_;
  std::vector<bool> is_added_;
  std::map<size_t, std::string> normal_texts_;  // of added tokens that the normalizer goes over
  std::unique_ptr<BpeTokenizer> made_;
  TokenIndex index_;     // what text may become
  TokenIndex controls_;  // and what it may not
  Digest digest_;
};

Result<std::unique_ptr<Tokenizer>> BpeTokenizer::make(const BpeDescription& description) {
  return BpeBuilder(description).build();
}

}  // namespace kvcast
