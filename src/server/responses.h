// The other JSON edge of the server: answers in OpenAI's shapes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/engine_request.h"
#include "tokenizer/tokenizer.h"

namespace kvcast {

enum class AnswerKind { kCompletion, kChat };

/// What every object of one answer repeats.
struct AnswerHead {
  AnswerKind kind = AnswerKind::kCompletion;
  std::string id;
  int64_t created = 0;  ///< Unix seconds
  std::string model;
};

/// One token as the logprobs of an answer show it.
struct ScoredToken {
  std::optional<float> logprob;  ///< none: not known (the first prompt token)
  int32_t token = 0;
  std::vector<std::pair<int32_t, float>> top;
};

struct ChoiceAnswer {
  int64_t index = 0;
  std::string text;
  std::vector<ScoredToken> scores;
  std::string finish_reason;  ///< empty: null
};

struct Usage {
  int64_t prompt_tokens = 0, completion_tokens = 0, cached_tokens = 0;
};

struct WholeAnswer {
  std::vector<ChoiceAnswer> choices;
  Usage usage;
  std::vector<EngineTimings> timings;  ///< one per prompt
};

/// One piece of a streamed answer.
struct StreamPiece {
  const ChoiceAnswer* choice = nullptr;  ///< text and scores that are new; null: none
  bool first_of_choice = false;          ///< chat: names the role
  int64_t text_offset = 0;               ///< characters of the choice before this piece
  const Usage* usage = nullptr;
  std::span<const EngineTimings> timings;
  struct Progress {
    int64_t total = 0, cached = 0, processed = 0;
    double time_ms = 0;
  };
  const Progress* progress = nullptr;
};

/// `logprobs`: whether choices carry them. `tokenizer` names tokens; may be null.
std::string answer_json(const AnswerHead& head, const WholeAnswer& answer, bool logprobs,
                        const Tokenizer* tokenizer);
/// "data: {...}\n\n"
std::string answer_event(const AnswerHead& head, const StreamPiece& piece, bool logprobs,
                         const Tokenizer* tokenizer);
/// The event of a revision ("event: revision"): of the choice's text so far only the first
/// `characters` stay. Only where "revise" was asked for.
std::string revision_event(const AnswerHead& head, int64_t choice, int64_t characters);
/// OpenAI's finish_reason: "stop" or "length".
std::string_view api_finish_reason(FinishReason reason);
/// Characters (code points) of valid UTF-8.
int64_t count_characters(std::string_view text);

}  // namespace kvcast
