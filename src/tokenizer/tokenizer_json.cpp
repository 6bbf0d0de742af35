#include "tokenizer/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/macros.h"
#include "tokenizer/bpe_tokenizer.h"
#include "tokenizer/tokenizer_json_parts.h"

namespace kvcast {
namespace {

/// A token id, or an error that says what of.
Result<int32_t> read_id(const Json& value, const JsonPart& part, std::string_view what) {
  if (!value.is_number_integer() || value < 0 || value >= kMaxVocabulary) {
    return part.refuse(
        fmt::format("\"{}\": expected an id within 0..{}", what, kMaxVocabulary - 1));
  }
  return value.get<int32_t>();
}

Status read_vocabulary(const JsonPart& model, BpeDescription& made) {
  const Json* vocabulary = model.find("vocab");
  if (!vocabulary || !vocabulary->is_object()) return model.refuse("vocab: expected an object");
  const JsonPart part = model.inside("vocab", *vocabulary);
  if (vocabulary->size() > static_cast<size_t>(kMaxVocabulary)) {
    return part.refuse(
        fmt::format("{} tokens; expected at most {}", vocabulary->size(), kMaxVocabulary));
  }
  for (const auto& [text, value] : vocabulary->items()) {
    KVCAST_TRY(const int32_t number, read_id(value, part, text));
    const auto id = static_cast<size_t>(number);
    if (id >= made.tokens.size()) made.tokens.resize(id + 1);
    if (made.tokens[id].kind != TokenKind::kUnused) {
      return part.refuse(
          fmt::format("\"{}\" and \"{}\" both have id {}", made.tokens[id].text, text, number));
    }
    made.tokens[id] = {text, TokenKind::kText};
  }
  return {};
}

/// "left right" or ["left", "right"].
Status read_merges(const JsonPart& model, BpeDescription& made) {
  KVCAST_TRY(const Json* merges, model.list("merges"));
  made.merges.reserve(merges->size());
  for (const Json& merge : *merges) {
    if (const auto* text = merge.get_ptr<const std::string*>()) {
      const std::string_view pair = *text;
      const size_t space = pair.find(' ');
      if (space != std::string_view::npos && pair.find(' ', space + 1) == std::string_view::npos) {
        made.merges.emplace_back(pair.substr(0, space), pair.substr(space + 1));
        continue;
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      made.merges.emplace_back(merge[0].get_ref<const std::string&>(),
                               merge[1].get_ref<const std::string&>());
      continue;
    }
    return model.refuse(fmt::format("merges: entry {}: expected two tokens", made.merges.size()));
  }
  return {};
}

Status read_model(const JsonPart& model, BpeDescription& made) {
  KVCAST_TRY(const std::string type, model.text("type", "BPE"));
  if (type != "BPE") return model.refuse(fmt::format("type \"{}\"; expected BPE", type));
  for (const std::string_view affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    KVCAST_TRY(const std::string text, model.text(affix, ""));
    if (!text.empty()) return model.refuse(fmt::format("{} is not supported", affix));
  }
  if (const Json* dropout = model.find("dropout"); dropout && *dropout != 0.0) {
    return model.refuse("dropout is not supported");
  }
  KVCAST_CHECK(read_vocabulary(model, made));
  KVCAST_CHECK(read_merges(model, made));
  KVCAST_TRY(made.byte_fallback, model.flag("byte_fallback", false));
  KVCAST_TRY(made.ignore_merges, model.flag("ignore_merges", false));
  KVCAST_TRY(made.fuse_unknown, model.flag("fuse_unk", false));
  KVCAST_TRY(const std::string unknown, model.text("unk_token", ""));
  if (!unknown.empty()) {
    const auto& vocabulary = *model.find("vocab");
    const auto found = vocabulary.find(unknown);
    if (found == vocabulary.end()) {
      return model.refuse(fmt::format("unk_token \"{}\" is not in the vocabulary", unknown));
    }
    made.unknown = found->get<int32_t>();
  }
  return {};
}

Status read_added_tokens(const JsonPart& whole, BpeDescription& made) {
  if (!whole.find("added_tokens")) return {};
  KVCAST_TRY(const Json* list, whole.list("added_tokens"));
  for (const Json& entry : *list) {
    const JsonPart part = whole.inside("added_tokens", entry);
    AddedToken token;
    KVCAST_TRY(token.text, part.text("content", ""));
    const Json* id = part.find("id");
    KVCAST_TRY(token.id, read_id(id ? *id : Json(), part, token.text));
    KVCAST_TRY(token.special, part.flag("special", false));
    KVCAST_TRY(token.single_word, part.flag("single_word", false));
    KVCAST_TRY(token.lstrip, part.flag("lstrip", false));
    KVCAST_TRY(token.rstrip, part.flag("rstrip", false));
    KVCAST_TRY(token.normalized, part.flag("normalized", false));
    made.added.push_back(std::move(token));
  }
  return {};
}

/// "<0xE2>" and the like, which no text spells, where the model falls back on them.
void mark_byte_tokens(BpeDescription& made) {
  if (!made.byte_fallback) return;
  for (auto& [text, kind] : made.tokens) {
    const bool is_byte = text.size() == 6 && text.starts_with("<0x") && text.ends_with('>') &&
                         text.substr(3, 2).find_first_not_of("0123456789ABCDEF") == text.npos;
    if (is_byte && kind == TokenKind::kText) kind = TokenKind::kByte;
  }
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> make_tokenizer_from_json(std::string_view contents,
                                                            const std::string& source) {
  KVCAST_TRY(const Json json, parse_json(contents, source));
  const JsonPart whole{json, source};
  const Json* model = whole.find("model");
  if (!model || !model->is_object()) return whole.refuse("model: expected an object");
  BpeDescription made;
  made.source = source;
  KVCAST_CHECK(read_model(whole.inside("model", *model), made));
  KVCAST_CHECK(read_added_tokens(whole, made));
  mark_byte_tokens(made);
  using Reader = Status (*)(const JsonPart&, BpeDescription&);
  static constexpr std::pair<std::string_view, Reader> kParts[] = {
      {"normalizer", read_normalizer},
      {"pre_tokenizer", read_pre_tokenizer},
      {"decoder", read_decoder},
      {"post_processor", read_post_processor}};
  for (const auto& [name, read] : kParts) {
    if (const Json* part = whole.find(name)) KVCAST_CHECK(read(whole.inside(name, *part), made));
  }
  return BpeTokenizer::make(made);
}

}  // namespace kvcast
