// What the scheduler is asked and what it reports back. No JSON, no HTTP.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kvcast/batch.h"
#include "kvcast/sampling.h"
#include "kvcast/session.h"
#include "runtime/token_rules.h"

namespace kvcast {

using SteadyClock = std::chrono::steady_clock;

/// One prompt to be answered `choices` times from one prefill.
struct EngineRequest {
  std::vector<int32_t> prompt;
  std::string prefill;      ///< strategy spec; empty: the scheduler's default
  int64_t max_tokens = 16;  ///< per choice; 0: only score the prompt
  int64_t choices = 1;      ///< choice i samples with seed + i
  SamplingOptions sampling;
  std::vector<std::string> stop;
  bool ignore_end_of_text = false;
  TokenRules tokens;
  /// Report each token's log-probability and this many most probable alternatives.
  std::optional<int64_t> top_logprobs;
  /// Report the prompt tokens' log-probabilities too.
  bool score_prompt = false;
  /// Where the context ends: prefill by the strategy stops here and the answering model reads the
  /// rest itself, as it reads its own answer. Only with score_prompt; tokens from here on are
  /// scored. Strategies that do not compute every prompt row need it.
  std::optional<int64_t> context_tokens;
  /// Start from rows that an earlier request left, and leave this one's.
  bool reuse_prefix = true;
  /// What it leaves stays for as long as the scheduler lives.
  bool pin_prefix = false;
  /// Take back what `exact` would not have chosen (GenerateOptions::revise): TokenEvent::kept.
  bool revise = false;
  std::optional<int64_t> drafts;  ///< GenerateOptions::drafts; none: the scheduler's default
  bool report_progress = false;
  std::string client;  ///< whose turn it is: clients take turns, each client's requests are FIFO
  SteadyClock::time_point arrival = SteadyClock::now();  ///< TTFT counts from here
  double tokenize_ms = 0;                                ///< handed through to the timings
  std::optional<SteadyClock::time_point> deadline;
};

struct EngineTimings {
  double queue_ms = 0;  ///< from arrival (tokenizing aside) until work on the prompt began
  double tokenize_ms = 0;
  double auxiliary_ms = 0;
  double predictor_ms = 0;
  double base_ms = 0;
  double prefill_ms = 0;  ///< from the end of the queue to the first token, other work included
  double ttft_ms = 0;     ///< from arrival to the first token
  double decode_ms = 0;   ///< first to last token
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;     ///< prompt tokens whose K/V an earlier request had left
  int64_t predicted_tokens = 0;  ///< prompt tokens whose K/V were forecast now
  int64_t generated_tokens = 0;  ///< of all choices
  int64_t decode_tokens = 0;     ///< generated_tokens less the first of each choice
  int64_t drafted_tokens = 0;    ///< Timings::drafted_tokens, of all choices
  int64_t accepted_tokens = 0;   ///< of these
  std::string prefill;           ///< the strategy that ran
  /// What `auto` decided by: from the end of the queue to the first token, with nothing beside it.
  std::optional<double> estimated_ms;
  std::optional<GateDecision> gate;      ///< none where no forecast was judged
  std::optional<Refinement> refinement;  ///< of all choices; none where nothing is refined
};

struct TokenEvent {
  int64_t choice = 0;
  int32_t token = 0;
  std::string_view text;              ///< certain new text, whole UTF-8; may be empty
  bool end_of_text = false;           ///< the token is the end-of-text token
  const TokenScore* score = nullptr;  ///< null unless asked for
  /// Set where tokens of the choice were taken back: this one comes after those that stay.
  std::optional<KeptAnswer> kept = {};
};

struct EngineError {
  enum class Kind {
    kInvalid,
    kContextLength,  ///< prompt_tokens and context_tokens say by how much
    kTooLarge,       ///< can never fit the memory for caches
    kQueueFull,
    kTimeout,
    kCancelled,
    kShuttingDown,
    kInternal,
  };
  Kind kind = Kind::kInternal;
  std::string message;
};

/// Receives what happens to one request, in order, on the scheduler's thread: must return at once
/// and must not call the scheduler. Ends with exactly one on_finished or on_error.
class RequestObserver {
 public:
  virtual ~RequestObserver() = default;
  /// Work on the prompt began or went on.
  virtual void on_progress(int64_t /*done_tokens*/, int64_t /*cached_tokens*/) {}
  /// Scores of prompt tokens from `first` on, in order; may come in several pieces.
  virtual void on_prompt_scores(int64_t /*first*/, std::vector<TokenScore>&& /*scores*/) {}
  virtual void on_token(const TokenEvent& event) = 0;
  /// `text`: what a stop string that never came had held back.
  virtual void on_choice_finished(int64_t choice, std::string_view text, FinishReason reason) = 0;
  virtual void on_finished(const EngineTimings& timings) = 0;
  virtual void on_error(const EngineError& error) = 0;
};

}  // namespace kvcast
