#include "model/model_text.h"

#include <fmt/format.h>

#include <optional>

#include "base/macros.h"
#include "base/mapped_file.h"
#include "io/gguf.h"
#include "tokenizer/gguf_vocabulary.h"
#include "tokenizer/tokenizer_files.h"

namespace kvcast {
namespace {

/// The GGUF file that describes the model's text; empty if there is none.
std::filesystem::path gguf_of(const std::filesystem::path& model) {
  if (is_gguf_file(model)) return model;
  const auto kept = model / kGgufTokenizer;
  return is_gguf_file(kept) ? kept : std::filesystem::path();
}

/// Values under "tokenizer.ggml."; a key that is missing leaves the default.
class VocabularyReader {
 public:
  explicit VocabularyReader(const GgufMetadata& values) : values_(values) {}

  template <typename Value, typename Get>
  Status read(const char* name, Value& value, Get get) const {
    const std::string key = std::string("tokenizer.ggml.") + name;
    if (!values_.contains(key)) return {};
    KVCAST_TRY(auto found, (values_.*get)(key));
    value = Value(found.begin(), found.end());
    return {};
  }
  template <typename Value, typename Get>
  Status read_one(const char* name, std::optional<Value>& value, Get get) const {
    const std::string key = std::string("tokenizer.ggml.") + name;
    if (!values_.contains(key)) return {};
    KVCAST_TRY(value, (values_.*get)(key));
    return {};
  }

 private:
  const GgufMetadata& values_;
};

/// Null if the file has no vocabulary.
Result<std::unique_ptr<Tokenizer>> tokenizer_of(const std::filesystem::path& path) {
  KVCAST_TRY(const auto file, Gguf::open(path));
  if (!file->values().contains("tokenizer.ggml.model")) return nullptr;
  const VocabularyReader reader(file->values());
  GgufVocabulary vocabulary;
  vocabulary.source = path.string();
  KVCAST_CHECK(reader.read("model", vocabulary.model, &GgufMetadata::text));
  KVCAST_CHECK(reader.read("pre", vocabulary.pre, &GgufMetadata::text));
  KVCAST_CHECK(reader.read("tokens", vocabulary.tokens, &GgufMetadata::texts));
  KVCAST_CHECK(reader.read("scores", vocabulary.scores, &GgufMetadata::numbers));
  KVCAST_CHECK(reader.read("token_type", vocabulary.token_types, &GgufMetadata::integers));
  KVCAST_CHECK(reader.read("merges", vocabulary.merges, &GgufMetadata::texts));
  KVCAST_CHECK(reader.read_one("bos_token_id", vocabulary.bos, &GgufMetadata::integer));
  KVCAST_CHECK(reader.read_one("eos_token_id", vocabulary.eos, &GgufMetadata::integer));
  KVCAST_CHECK(reader.read_one("unknown_token_id", vocabulary.unknown, &GgufMetadata::integer));
  KVCAST_CHECK(reader.read_one("add_bos_token", vocabulary.add_bos, &GgufMetadata::boolean));
  KVCAST_CHECK(reader.read_one("add_eos_token", vocabulary.add_eos, &GgufMetadata::boolean));
  KVCAST_CHECK(
      reader.read_one("add_space_prefix", vocabulary.add_space_prefix, &GgufMetadata::boolean));
  return make_tokenizer(vocabulary);
}

/// The file that describes the model's tokenizer; empty if there is none.
std::filesystem::path tokenizer_file(const std::filesystem::path& model) {
  const auto file = gguf_of(model);
  return file.empty() ? find_tokenizer(model) : file;
}

/// Whether both are the same to the byte, which spares reading their vocabularies.
bool same_files(const std::filesystem::path& a, const std::filesystem::path& b) {
  std::error_code error;
  if (std::filesystem::equivalent(a, b, error)) return true;
  if (std::filesystem::file_size(a, error) != std::filesystem::file_size(b, error)) return false;
  const auto contents = read_text_file(a), other = read_text_file(b);
  return contents && other && *contents == *other;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> open_tokenizer(const std::filesystem::path& model,
                                                  const std::filesystem::path& explicit_file) {
  const auto& from = explicit_file.empty() ? model : explicit_file;
  if (const auto file = gguf_of(from); !file.empty()) return tokenizer_of(file);
  return load_tokenizer(model, explicit_file);
}

Status check_same_tokens(const ModelVocabulary& base, const ModelVocabulary& auxiliary,
                         const std::string& where) {
  const auto own = tokenizer_file(base.model), other = tokenizer_file(auxiliary.model);
  if (own.empty() || other.empty()) {
    if (base.size == auxiliary.size) return {};
    return fail(
        fmt::format("{}: expected a model with the base's vocab_size {} or its tokenizer, "
                    "{} has {}",
                    where, base.size, auxiliary.model.string(), auxiliary.size));
  }
  if (same_files(own, other)) return {};
  // SentencePiece's own library is not asked: it and libtorch do not share a process.
  const bool comparable = own.extension() != ".model" && other.extension() != ".model";
  if (comparable) {
    KVCAST_TRY(const auto tokenizer, open_tokenizer(base.model));
    KVCAST_TRY(const auto second, open_tokenizer(auxiliary.model));
    if (tokenizer && second && tokenizer->digest() == second->digest()) return {};
  }
  return fail(fmt::format("{}: expected a model with the base's tokenizer, {} has another", where,
                          auxiliary.model.string()));
}

Result<std::string> gguf_chat_template(const std::filesystem::path& model) {
  constexpr std::string_view kKey = "tokenizer.chat_template";
  const auto path = gguf_of(model);
  if (path.empty()) return std::string();
  KVCAST_TRY(const auto file, Gguf::open(path));
  if (!file->values().contains(kKey)) return std::string();
  KVCAST_TRY(const std::string_view text, file->values().text(kKey));
  return std::string(text);
}

}  // namespace kvcast
