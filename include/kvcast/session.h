#pragma once

#include <chrono>
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

/// What stays of an answer of which tokens were taken back, and of its text so far.
struct KeptAnswer {
  int64_t tokens = 0;
  int64_t bytes = 0;  ///< whole characters
  int64_t characters = 0;
};

/// In place of a number of drafts: as many as pay on this machine, for this text, if any.
constexpr int64_t kDraftsAuto = -1;
constexpr int64_t kMostDrafts = 64;
/// "auto", "off" (0) or a number of drafts from 1 to kMostDrafts.
Result<int64_t> parse_drafts(std::string_view text);
/// Whether `drafts` is kDraftsAuto or within 0..kMostDrafts.
Status check_drafts(int64_t drafts);

struct GenerateOptions {
  /// Prefill strategy: "exact", "kv-prediction", "kv-prediction:tail=16,refine=auto", "auxiliary",
  /// or a baseline: "random:0.5", "static:0.5", "lazy:0.75-0.25", "zero-cache". Empty: the model's
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
  /// Not empty: the answer is what belongs between the prompt, which is then a text, and this (fill
  /// in the middle). For models that have tokens for it, such as Qwen2.5-Coder.
  std::string suffix = {};
  /// While a forecast is refined (`refine=` in the strategy), a token that `exact` would not have
  /// chosen is taken back, with all that came after it: the answer is the exact one's, greedy to
  /// the token, sampled in distribution. Without `on_revision` the sink gets nothing until the
  /// answer is final.
  bool revise = false;
  /// Told what stays of what the sink got. What follows comes through the sink.
  std::function<void(const KeptAnswer& kept)> on_revision = {};
  /// Tokens guessed from what prompt and answer say already, or by an auxiliary that is a model of
  /// its own and has read the prompt, which one step checks together with the next token: where the
  /// text repeats itself, or the auxiliary would say the same, an answer comes several tokens at a
  /// time. The answer is the same token by token as without, sampled too (while a forecast is
  /// refined there are drafts only where that holds: in greedy answers that are revised).
  /// kDraftsAuto, 0 (off), or at most so many at a time wherever the text's end has been there
  /// before or the auxiliary is sure enough.
  int64_t drafts = kDraftsAuto;
  /// Stops prefill between layers and decoding between tokens.
  std::stop_token cancel = {};
};

/// What became of a forecast while the answer was written over it (`refine=` in the strategy).
struct Refinement {
  int64_t refined_rows = 0;         ///< rows of the base's cache that were made exact
  int64_t exact_after_tokens = -1;  ///< answer tokens that the cache was exact after; -1: it is not
  int64_t revised_tokens = 0;       ///< taken back
  /// Answer tokens whose exact logits became known, and of these how many exact would have chosen;
  /// with a temperature, the sum of the chances that speculative sampling would keep them.
  int64_t compared_tokens = 0;
  double agreed_tokens = 0;
  double log_ratio_sum = 0;  ///< with a temperature: of log p_exact / p_forecast of the tokens

  /// agreed_tokens over compared_tokens.
  [[nodiscard]] std::optional<double> agreement() const {
    if (compared_tokens == 0) return std::nullopt;
    return agreed_tokens / static_cast<double>(compared_tokens);
  }
};

/// Whether a forecast was trusted (`gate=` in the strategy): if not, the prompt was read exactly.
struct GateDecision {
  /// How sure the base is of its first tokens over the forecast, at most six: the least margin over
  /// the next likeliest and half of the least log-probability, in nats.
  double score = 0;
  double threshold = 0;
  double ms = 0;  ///< what judging took, beside the forecast
  [[nodiscard]] bool trusted() const { return score >= threshold; }
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
  int64_t predicted_tokens = 0;             ///< prompt tokens whose K/V were forecast
  int64_t decode_tokens = 0;                ///< tokens that decode_ms covers
  int64_t drafted_tokens = 0;               ///< guessed and checked (GenerateOptions::drafts)
  int64_t accepted_tokens = 0;              ///< of these, what the answer has
  std::string prefill;                      ///< the strategy that ran: for `auto` what it decided
  std::optional<double> estimated_ttft_ms;  ///< what `auto` decided by
  std::optional<GateDecision> gate;         ///< none where no forecast was judged
  std::optional<Refinement> refinement;     ///< none where nothing is refined

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

  /// Runs the model for one more token (several where drafts came true), the first time for the
  /// prompt too, and gives what text it added: whole UTF-8, perhaps nothing. nullopt: the answer is
  /// over. After an error, or a cancelled prefill, the conversation is as before the prompt.
  Result<std::optional<std::string>> next();
  /// Ends the answer here. What was written stays part of the conversation.
  void end();
  /// What there is so far; finish_reason once it is over.
  [[nodiscard]] const Completion& completion() const&;
  [[nodiscard]] Completion completion() &&;

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

  /// Goes on refining the forecast rows of the conversation for `budget`, or until `cancel`, so
  /// that the next turn starts from an exact cache. Returns how many rows are left.
  Result<int64_t> refine(std::chrono::milliseconds budget, const std::stop_token& cancel = {});
  /// Begins an answer that is pulled: checks prompt and options, runs nothing yet. Ends an answer
  /// of this conversation that is not over.
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
