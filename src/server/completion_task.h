#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/scheduler.h"
#include "runtime/tool_calls.h"
#include "server/http.h"
#include "server/metrics.h"
#include "server/requests.h"
#include "server/responses.h"
#include "server/text_offsets.h"

namespace kvcast {

/// One prompt of a completion, ready for the scheduler.
struct TaskPrompt {
  EngineRequest request;
  std::string text;  ///< for echo
};

struct ReplyOptions {
  std::unique_ptr<AnswerFormat> format;
  bool stream = false;
  bool echo = false;
  bool logprobs = false;
  std::optional<ToolCallReader> tools;  ///< a chat's answers may call some
  ToolFields asked_tools;
  std::string opening;  ///< of these answers, part of their prompt already
  HttpHeaders headers;
};

/// What a task needs of the server; all must outlive it.
struct TaskContext {
  Scheduler& scheduler;
  Metrics& metrics;
  /// Runs a function on the server's thread.
  std::function<void(std::function<void()>)> post;
};

/// One /v1/completions or /v1/chat/completions request from submission to its answer. Lives on the
/// server's thread; what the scheduler reports is passed over to it.
class CompletionTask : public std::enable_shared_from_this<CompletionTask> {
 public:
  CompletionTask(TaskContext context, ReplyOptions options, std::vector<TaskPrompt> prompts,
                 std::shared_ptr<HttpExchange> exchange);
  ~CompletionTask() { cancel(); }
  CompletionTask(const CompletionTask&) = delete;
  CompletionTask& operator=(const CompletionTask&) = delete;

  /// Submits every prompt; if one is refused the answer is that error.
  void start();

  // From the scheduler, by way of post(). `prompt` is the index of the prompt.
  void add_progress(size_t prompt, int64_t done, int64_t cached);
  void add_prompt_scores(size_t prompt, int64_t first, std::vector<TokenScore> scores);
  void add_token(size_t prompt, int64_t choice, std::string text, std::optional<TokenScore> score);
  void take_back(size_t prompt, int64_t choice, const KeptAnswer& kept);
  void end_choice(size_t prompt, int64_t choice, std::string text, FinishReason reason);
  void end_prompt(size_t prompt, EngineTimings timings);
  void fail(const EngineError& error);
  /// Without an answer, since there is no memory for one: the connection is closed.
  void give_up();

 private:
  struct Prompt {
    TaskPrompt asked;
    std::shared_ptr<Ticket> ticket;
    std::vector<ScoredToken> prompt_scores;
    TextOffsets offsets;
    bool echoed = false;
    bool finished = false;
    EngineTimings timings;
  };
  struct Choice {
    ChoiceAnswer answer;  // streaming: only what has not been sent yet
    TextOffsets offsets;
    std::optional<ToolCallReader> tools;
    bool started = false;
  };

  /// A token as answers show it, the next one of the text that `offsets` follows.
  [[nodiscard]] ScoredToken scored(TokenScore score, TextOffsets& offsets) const;
  [[nodiscard]] Choice& choice_of(size_t prompt, int64_t choice);
  void echo_prompt(size_t prompt);
  void read_tool_calls(Choice& choice) const;
  void send_pending(Choice& choice, std::span<const EngineTimings> timings = {});
  void cancel();
  void finish();
  [[nodiscard]] Usage usage() const;
  [[nodiscard]] std::vector<EngineTimings> timings() const;
  [[nodiscard]] LogFields log_fields() const;

  TaskContext context_;
  ReplyOptions options_;
  std::vector<Prompt> prompts_;
  std::vector<Choice> choices_;  // prompt-major
  int64_t choices_per_prompt_ = 1;
  std::shared_ptr<HttpExchange> exchange_;
  const Tokenizer* tokenizer_;
  SteadyClock::time_point arrival_;
  bool over_ = false;
};

}  // namespace kvcast
