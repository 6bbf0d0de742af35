// Which file of a model describes its tokenizer, and what tokenizer_config.json adds to it.
#include "tokenizer/tokenizer_files.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/macros.h"
#include "base/mapped_file.h"
#include "io/json.h"
#include "tokenizer/sentencepiece_tokenizer.h"
#include "tokenizer/tokenizer_json.h"

namespace kvcast {
namespace {

/// "bos_token": "<s>", or an object with its text as "content". Empty if there is none.
std::string token_name(const Json& config, std::string_view key) {
  const auto found = config.find(key);
  if (found == config.end()) return {};
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_object()) return {};
  const auto content = found->find("content");
  return content != found->end() && content->is_string() ? content->get<std::string>() : "";
}

/// `ids` with `id` at that end if it is wanted, and without it if not.
template <typename Ends>
void want(std::vector<int32_t>& ids, int32_t id, bool wanted, Ends end) {
  std::erase(ids, id);
  if (wanted && id >= 0) ids.insert(end(ids), id);
}

}  // namespace

Status apply_tokenizer_config(const std::filesystem::path& file, const AddedTokens& known,
                              SpecialTokens& special) {
  KVCAST_TRY(const Json config, read_json_object(file));
  const auto id_of = [&](std::string_view key, int32_t otherwise) {
    const std::string name = token_name(config, key);
    const auto& tokens = known.tokens();
    const auto found = std::find_if(tokens.begin(), tokens.end(),
                                    [&](const AddedToken& token) { return token.text == name; });
    return found == tokens.end() ? otherwise : found->id;
  };
  special.bos = id_of("bos_token", special.bos);
  special.eos = id_of("eos_token", special.eos);
  const auto flag = [&](std::string_view key) { return config.value(key, Json()); };
  if (const Json add = flag("add_bos_token"); add.is_boolean()) {
    want(special.before, special.bos, add.get<bool>(), [](auto& ids) { return ids.begin(); });
  }
  if (const Json add = flag("add_eos_token"); add.is_boolean()) {
    want(special.after, special.eos, add.get<bool>(), [](auto& ids) { return ids.end(); });
  }
  return {};
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::load(const std::filesystem::path& file) {
  KVCAST_TRY(const std::string contents, read_text_file(file));
  const bool is_json = contents.starts_with('{') || file.extension() == ".json";
  KVCAST_TRY(auto tokenizer, is_json ? make_tokenizer_from_json(contents, file.string())
                                     : SentencePieceTokenizer::make(contents, file.string()));
  std::error_code ignored;
  const auto config = file.parent_path() / "tokenizer_config.json";
  if (std::filesystem::exists(config, ignored)) {
    KVCAST_CHECK(apply_tokenizer_config(config, tokenizer->added_, tokenizer->special_));
  }
  return tokenizer;
}

std::filesystem::path find_tokenizer(const std::filesystem::path& directory) {
  std::error_code ignored;
  for (const std::string_view name : kTokenizerFiles) {
    if (std::filesystem::exists(directory / name, ignored)) return directory / name;
  }
  return {};
}

Result<std::unique_ptr<Tokenizer>> load_tokenizer(const std::filesystem::path& directory,
                                                  const std::filesystem::path& explicit_file) {
  std::error_code ignored;
  auto file = explicit_file;
  if (file.empty()) file = find_tokenizer(directory);
  if (file.empty()) return std::unique_ptr<Tokenizer>();
  if (std::filesystem::is_directory(file, ignored)) {
    file = find_tokenizer(explicit_file);
    if (file.empty()) {
      return fail(
          fmt::format("{}: no {}", explicit_file.string(), fmt::join(kTokenizerFiles, " or ")));
    }
  }
  return Tokenizer::load(file);
}

}  // namespace kvcast
