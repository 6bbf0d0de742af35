#include "train/text/prompts.h"

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "model/model_text.h"
#include "runtime/chat_template.h"
#include "train/data/documents.h"
#include "train/data/error.h"
#include "train/data/random.h"

namespace kvcast::train {
namespace {

constexpr std::string_view kPlace = "{text}";

/// A generator of whole numbers below a bound.
class Draw {
 public:
  explicit Draw(uint64_t seed) : state_(seed) {}
  int64_t below(int64_t bound) {
    state_ = scramble(state_);
    return static_cast<int64_t>(state_ % static_cast<uint64_t>(bound));
  }

 private:
  uint64_t state_;
};

/// Some whole lines of a document, at most so many words; the last one may be cut.
std::string piece_of(const std::string& document, int64_t most_words, Draw& draw) {
  size_t at = static_cast<size_t>(draw.below(static_cast<int64_t>(document.size())));
  at = document.rfind('\n', at);
  at = document.find_first_not_of(" \n", at == std::string::npos ? 0 : at);
  if (at == std::string::npos) return {};
  size_t end = at;
  for (int64_t words = 0; words < most_words && end < document.size(); ++words) {
    end = document.find_first_not_of(" \n", end);
    if (end == std::string::npos) break;
    end = document.find_first_of(" \n", end);
    if (end == std::string::npos) break;
  }
  std::string piece = document.substr(at, end == std::string::npos ? end : end - at);
  piece.erase(piece.find_last_not_of(" \n") + 1);
  return piece;
}

/// Documents of all sources in turns, until none has any left.
class Documents {
 public:
  explicit Documents(const std::vector<SourceRecipe>& sources) {
    for (const auto& source : sources) {
      readers_.push_back(std::make_unique<DocumentReader>(source.path, source.encoding));
    }
  }
  std::optional<std::string> next() {
    while (!readers_.empty()) {
      turn_ %= readers_.size();
      if (auto document = readers_[turn_]->next()) {
        ++turn_;
        return document;
      }
      readers_.erase(readers_.begin() + static_cast<ptrdiff_t>(turn_));
    }
    return std::nullopt;
  }

 private:
  std::vector<std::unique_ptr<DocumentReader>> readers_;
  size_t turn_ = 0;
};

}  // namespace

PromptsReport write_prompts(const PromptsRecipe& recipe) {
  const auto tokenizer = unwrap(open_tokenizer(recipe.model));
  if (!tokenizer) throw TrainError(recipe.model.string() + ": expected a model with a tokenizer");
  const auto chat = unwrap(ChatTemplate::load(recipe.model, *tokenizer));
  std::vector<int64_t> tokens, ends;
  Draw draw(recipe.seed);
  std::optional<Documents> documents(recipe.sources);
  bool any_in_this_pass = false;
  while (std::ssize(ends) < recipe.count) {
    const auto document = documents->next();
    if (!document) {
      if (!any_in_this_pass) {
        throw TrainError(recipe.output.string() + ": no prompt can be made of the sources");
      }
      documents.emplace(recipe.sources);
      any_in_this_pass = false;
      continue;
    }
    // As many short pieces as long ones: the number of words is spread evenly in its logarithm.
    int64_t most = recipe.most_words;
    while (most / 2 >= recipe.least_words && draw.below(2) == 0) most /= 2;
    const std::string piece = piece_of(*document, most, draw);
    if (std::ranges::count(piece, ' ') + 1 < recipe.least_words) continue;
    std::string text =
        recipe.instructions[static_cast<size_t>(draw.below(std::ssize(recipe.instructions)))];
    if (const size_t at = text.find(kPlace); at != std::string::npos) {
      text.replace(at, kPlace.size(), piece);
    }
    const ChatPrompt prompt = unwrap(chat->render({{"user", text}}));
    tokens.insert(tokens.end(), prompt.tokens.begin(), prompt.tokens.end());
    ends.push_back(std::ssize(tokens));
    any_in_this_pass = true;
  }
  const auto as_tensor = [](const char* name, const std::vector<int64_t>& values) {
    return TensorToWrite{name, DType::kI64, {std::ssize(values)}, std::as_bytes(std::span(values))};
  };
  unwrap(write_safetensors(recipe.output,
                           std::array{as_tensor("tokens", tokens), as_tensor("ends", ends)}));
  return {std::ssize(ends), std::ssize(tokens)};
}

}  // namespace kvcast::train
