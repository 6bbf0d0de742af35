#include "tokenizer/tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include "base/macros.h"
#include "base/mapped_file.h"
#include "base/utf8.h"
#include "tokenizer/sentencepiece_model.h"

namespace kvcast {

Tokenizer::Tokenizer(std::unique_ptr<Implementation> implementation)
    : implementation_(std::move(implementation)) {}
Tokenizer::~Tokenizer() = default;

Result<std::unique_ptr<Tokenizer>> Tokenizer::load(const std::filesystem::path& tokenizer_model) {
  KVCAST_TRY(const std::string bytes, read_text_file(tokenizer_model));
  const auto refuse = [&](std::string_view reason) {
    return fail(
        fmt::format("{}: expected a SentencePiece model: {}", tokenizer_model.string(), reason));
  };
  auto implementation = std::make_unique<Implementation>();
  auto& processor = implementation->processor;
  try {
    if (const auto status = processor.LoadFromSerializedProto(bytes); !status.ok()) {
      return refuse(status.message());
    }
  } catch (const std::exception& error) {
    return refuse(error.what());
  }
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    if (!is_valid_utf8(processor.IdToPiece(id))) {
      return refuse(fmt::format("piece {} is not valid UTF-8", id));
    }
  }
  implementation->learn_leading_spaces();
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(implementation)));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_bos) const {
  std::vector<int> pieces;
  // Fails only if no model is loaded.
  (void)implementation_->processor.Encode(text, &pieces);
  std::vector<int32_t> tokens;
  tokens.reserve(pieces.size() + 1);
  if (add_bos && bos_token() >= 0) tokens.push_back(bos_token());
  tokens.insert(tokens.end(), pieces.begin(), pieces.end());
  return tokens;
}

std::string Tokenizer::decode(std::span<const int32_t> tokens) const {
  std::vector<int> known;
  known.reserve(tokens.size());
  for (const int32_t token : tokens) {
    if (implementation_->contains(token)) known.push_back(token);
  }
  std::string text;
  (void)implementation_->processor.Decode(known, &text);  // fails only on unknown ids
  return text;
}

std::string Tokenizer::piece_bytes(int32_t token) const {
  return implementation_->contains(token) ? implementation_->surface(token) : std::string();
}

float Tokenizer::piece_score(int32_t token) const {
  return implementation_->contains(token) ? implementation_->processor.GetScore(token) : 0.0F;
}

std::vector<std::pair<std::string, int32_t>> Tokenizer::control_tokens() const {
  const auto& processor = implementation_->processor;
  std::vector<std::pair<std::string, int32_t>> tokens;
  for (int32_t id = 0; id < processor.GetPieceSize(); ++id) {
    if (processor.IsControl(id)) tokens.emplace_back(processor.IdToPiece(id), id);
  }
  return tokens;
}

int64_t Tokenizer::vocab_size() const { return implementation_->processor.GetPieceSize(); }
int32_t Tokenizer::bos_token() const { return implementation_->processor.bos_id(); }
int32_t Tokenizer::eos_token() const { return implementation_->processor.eos_id(); }

}  // namespace kvcast
