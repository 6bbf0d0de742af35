#include "model/checkpoint.h"

#include "base/macros.h"
#include "base/mapped_file.h"
#include "io/safetensors.h"
#include "model/family.h"
#include "model/gguf_config.h"
#include "model/model_text.h"
#include "model/weights.h"

namespace kvcast {
namespace {

/// As far as kvcast and Hugging Face know them.
constexpr const char* kCompanions[] = {"generation_config.json",
                                       "tokenizer.model",
                                       "tokenizer.json",
                                       "tokenizer_config.json",
                                       "special_tokens_map.json",
                                       "chat_template.jinja",
                                       kGgufTokenizer,
                                       "README.md",
                                       "LICENSE"};

}  // namespace

Result<Checkpoint> open_checkpoint(const std::filesystem::path& path) {
  Checkpoint checkpoint;
  checkpoint.path = path;
  if (is_gguf_file(path)) {
    KVCAST_TRY(std::shared_ptr<const Gguf> file, Gguf::open(path));
    KVCAST_TRY(GgufModel model, read_gguf_model(*file));
    checkpoint.config = std::move(model.config);
    checkpoint.form = model.family->gguf;
    checkpoint.weights = std::move(file);
    return checkpoint;
  }
  KVCAST_TRY(checkpoint.config, read_model_config(path));
  KVCAST_TRY(checkpoint.weights, Safetensors::open_checkpoint(path));
  checkpoint.form =
      is_packed(*checkpoint.weights) ? kPackedForm : family_of(checkpoint.config).checkpoint;
  return checkpoint;
}

std::vector<std::filesystem::path> companions(const std::filesystem::path& model) {
  std::vector<std::filesystem::path> files;
  std::error_code ignored;
  for (const char* name : kCompanions) {
    if (std::filesystem::exists(model / name, ignored)) files.push_back(model / name);
  }
  return files;
}

Status copy_companions(const std::filesystem::path& model, const std::filesystem::path& directory) {
  if (is_gguf_file(model)) {
    KVCAST_TRY(const auto file, Gguf::open(model));
    return write_file_atomically(directory / kGgufTokenizer, file->values().without_tensors());
  }
  for (const auto& file : companions(model)) {
    KVCAST_TRY(const std::string contents, read_text_file(file));
    KVCAST_CHECK(write_file_atomically(directory / file.filename(), contents));
  }
  return {};
}

}  // namespace kvcast
