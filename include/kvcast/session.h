#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "kvcast/model.h"
#include "kvcast/result.h"
#include "kvcast/sampling.h"

namespace kvcast {

struct GenerateOptions {
  /// Prefill strategy: "exact", "kv-prediction", "kv-prediction:tail=16", "auxiliary", or a
  /// baseline: "random:0.5", "static:0.5", "lazy:0.75-0.25", "zero-cache". Empty: the model's
  /// default_prefill().
  std::string prefill = {};
  /// Longest answer, in tokens.
  int64_t max_tokens = 64;
  /// Greedy unless a temperature is set.
  SamplingOptions sampling = {};
  /// The answer ends before the first of these that appears in it.
  std::vector<std::string> stop = {};
  /// Go on after the end-of-text token.
  bool ignore_end_of_text = false;
  /// Stops prefill between layers and decoding between tokens.
  std::stop_token cancel = {};
};

/// Where the time went, in milliseconds. TTFT runs from the call to the first sampled token and is
/// the sum of tokenize, auxiliary, predictor, base and the sampling of one token.
struct Timings {
  double tokenize_ms = 0;
  double auxiliary_ms = 0;
  double predictor_ms = 0;
  double base_ms = 0;  ///< kv-prediction: what is left of it when the auxiliary is done
  double ttft_ms = 0;
  double decode_ms = 0;  ///< all tokens after the first
  int64_t prompt_tokens = 0;
  int64_t predicted_tokens = 0;  ///< prompt tokens whose K/V were forecast
  int64_t decode_tokens = 0;     ///< tokens that decode_ms covers

  [[nodiscard]] double decode_tokens_per_s() const {
    return decode_ms > 0 ? 1e3 * static_cast<double>(decode_tokens) / decode_ms : 0;
  }
};

enum class FinishReason { kEndOfText, kStopString, kMaxTokens, kContextFull, kCancelled };
/// "end-of-text", "stop", "max-tokens", "context-full", "cancelled".
std::string_view finish_reason_text(FinishReason reason);

struct Completion {
  std::string text;             ///< valid UTF-8
  std::vector<int32_t> tokens;  ///< as sampled; the end-of-text token is not included
  FinishReason finish_reason = FinishReason::kMaxTokens;
  Timings timings;
};

/// An answer being written, pulled piece by piece. Not thread-safe; ends with its session's next
/// answer. Keeps the conversation and the model alive.
class AnswerStream {
 public:
  ~AnswerStream();  ///< as end()
  AnswerStream(AnswerStream&&) noexcept;
  AnswerStream& operator=(AnswerStream&&) noexcept;

  /// Runs the model for one more token, the first time for the prompt too, and gives what text it
  /// added: whole UTF-8, perhaps nothing. nullopt: the answer is over. After an error, or a
  /// cancelled prefill, the conversation is as before the prompt.
  Result<std::optional<std::string>> next();
  /// Ends the answer here. What was written stays part of the conversation.
  void end();
  /// What there is so far; finish_reason once it is over.
  [[nodiscard]] const Completion& completion() const;

  struct Impl;  // for the library's own parts

 private:
  friend class Session;
  explicit AnswerStream(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Called with each piece of the answer as soon as it is whole UTF-8; return false to stop.
using TextSink = std::function<bool(std::string_view piece)>;

/// One conversation: a KV cache and the text so far. A second generate() continues it. Not
/// thread-safe; sessions on the same Model may run on different threads at once. Keeps the model
/// alive.
class Session {
 public:
  explicit Session(std::shared_ptr<const Model> model);
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  /// Adds `prompt` to the conversation (with BOS if it is the first), fills the cache by the chosen
  /// strategy and streams the answer to `sink`. On an error or a cancelled prefill the conversation
  /// is as before the call.
  Result<Completion> generate(std::string_view prompt, const GenerateOptions& options = {},
                              const TextSink& sink = {});
  /// The same for token ids, used as they are. Works without a tokenizer: then there is no text.
  Result<Completion> generate(std::span<const int32_t> prompt, const GenerateOptions& options = {},
                              const TextSink& sink = {});

  /// Begins an answer that is pulled: checks prompt and options, runs nothing yet. Ends an answer
  /// of this session that is not over.
  Result<AnswerStream> start(std::string_view prompt, const GenerateOptions& options = {});
  Result<AnswerStream> start(std::span<const int32_t> prompt, const GenerateOptions& options = {});

  /// Forgets the conversation.
  void reset();
  /// Tokens of the conversation so far.
  [[nodiscard]] const std::vector<int32_t>& tokens() const;
  /// Bytes of memory held by the KV caches.
  [[nodiscard]] int64_t cache_bytes() const;

  struct Impl;  // for the library's own parts

 private:
  std::shared_ptr<Impl> impl_;  // streams share it
};

}  // namespace kvcast
