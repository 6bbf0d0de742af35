// The other JSON edge of the server: answers in OpenAI's shapes.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/engine_request.h"
#include "runtime/tool_calls.h"
#include "server/api_error.h"
#include "server/requests.h"
#include "tokenizer/tokenizer.h"

namespace kvcast {

enum class AnswerKind { kCompletion, kChat, kResponse };

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
  int64_t text_offset = 0;  ///< where it begins in the choice's text, in characters
};

struct ChoiceAnswer {
  int64_t index = 0;
  std::string text;
  std::vector<ToolCallPart> calls;  ///< after the text; chats and responses have them
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
  const ChoiceAnswer* choice = nullptr;  ///< text, calls and scores that are new; null: none
  bool first_of_choice = false;          ///< chat: names the role
  const Usage* usage = nullptr;
  std::span<const EngineTimings> timings;
  struct Progress {
    int64_t total = 0, cached = 0, processed = 0;
    double time_ms = 0;
  };
  const Progress* progress = nullptr;
};

/// How one answer is written down: as one JSON object, or as server-sent events while it comes.
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;
  virtual std::string whole(const WholeAnswer& answer) = 0;
  /// Before anything is known.
  virtual std::string first_events() = 0;
  virtual std::string event(const StreamPiece& piece) = 0;
  /// The event of a revision ("event: revision"): of the choice's streamed text only the first
  /// `characters`, which are `bytes`, stay. Only where "revise" was asked for.
  virtual std::string revision(int64_t choice, int64_t characters, int64_t bytes);
  /// After the last piece.
  virtual std::string last_events(const Usage& usage, std::span<const EngineTimings> timings) = 0;
  /// What ends a stream that failed.
  virtual std::string error_events(const ApiError& error) = 0;
};

struct FormatOptions {
  bool logprobs = false;       ///< choices carry them
  bool include_usage = false;  ///< in streams of /v1/completions and /v1/chat/completions
  ToolFields tools;            ///< /v1/responses repeats what was asked for
};

/// `tokenizer` names tokens; may be null.
std::unique_ptr<AnswerFormat> make_answer_format(AnswerHead head, FormatOptions options,
                                                 const Tokenizer* tokenizer);
/// The format of /v1/responses.
std::unique_ptr<AnswerFormat> make_response_format(AnswerHead head, ToolFields tools);
/// "timings" of an answer: an object for one prompt, a list for several.
nlohmann::ordered_json timings_json(std::span<const EngineTimings> timings);

/// OpenAI's finish_reason: "stop" or "length".
std::string_view api_finish_reason(FinishReason reason);

}  // namespace kvcast
