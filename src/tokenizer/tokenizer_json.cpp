#include "tokenizer/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/macros.h"
#include "tokenizer/bpe_tokenizer.h"
#include "tokenizer/tokenizer_json_parts.h"
#include "tokenizer/tokenizer_json_reader.h"

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

Status read_model(const JsonPart& model, const TokenizerJsonReader& reader, BpeDescription& made) {
  KVCAST_TRY(const std::string type, model.text("type", "BPE"));
  if (type != "BPE") return model.refuse(fmt::format("type \"{}\"; expected BPE", type));
  for (const std::string_view affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    KVCAST_TRY(const std::string text, model.text(affix, ""));
    if (!text.empty()) return model.refuse(fmt::format("{} is not supported", affix));
  }
  if (const Json* dropout = model.find("dropout"); dropout && *dropout != 0.0) {
    return model.refuse("dropout is not supported");
  }
  const Json* vocabulary = model.find("vocab");
  if (!vocabulary || !vocabulary->is_object()) return model.refuse("vocab: expected an object");
  KVCAST_CHECK(model.list("merges"));
  KVCAST_TRY(made.byte_fallback, model.flag("byte_fallback", false));
  KVCAST_TRY(made.ignore_merges, model.flag("ignore_merges", false));
  KVCAST_TRY(made.fuse_unknown, model.flag("fuse_unk", false));
  KVCAST_TRY(const std::string unknown, model.text("unk_token", ""));
  if (!unknown.empty()) {
    made.unknown = reader.find(unknown);
    if (made.unknown < 0) {
      return model.refuse(fmt::format("unk_token \"{}\" is not in the vocabulary", unknown));
    }
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
  BpeDescription made;
  made.source = source;
  TokenizerJsonReader reader(made);
  KVCAST_TRY(const Json json, reader.read(contents, source));
  const JsonPart whole{json, source};
  const Json* model = whole.find("model");
  if (!model || !model->is_object()) return whole.refuse("model: expected an object");
  KVCAST_CHECK(read_model(whole.inside("model", *model), reader, made));
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
