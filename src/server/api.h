// The routes: from an HTTP request to its answer. On the server's thread but for request bodies:
// parsing, templates and tokenizing may take a while and have a thread of their own, so that
// running streams keep flowing.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "runtime/chat_template.h"
#include "runtime/scheduler.h"
#include "server/access.h"
#include "server/completion_task.h"
#include "server/http.h"
#include "server/metrics.h"
#include "server/requests.h"

namespace kvcast {

struct ApiOptions {
  std::string model_name;
  bool strict_model_name = false;  ///< other names in requests are a 404
  double request_seconds = 600;    ///< longest a request may take; 0: no limit
  int64_t max_batch = 64;          ///< answers decoded together, for /props
  RequestLimits limits;
};

class Api {
 public:
  using Post = std::function<void(std::function<void()>)>;
  /// `post` runs a task on the server's thread, `prepare` on the thread for request bodies, which
  /// must have ended before close().
  Api(ApiOptions options, Access access, Metrics& metrics, Post post, Post prepare);

  /// From here on the API answers; until then everything but /health says 503. The scheduler must
  /// outlive the Api; a model without a tokenizer, or with a
  /// template that cannot be read, has the reason instead of one: everything but chat goes on.
  void set_ready(Scheduler& scheduler, Result<std::unique_ptr<ChatTemplate>> chat);
  void set_draining() { draining_ = true; }
  [[nodiscard]] const Access& access() const { return access_; }
  /// Starts nothing any more: the scheduler is about to go.
  void close() { scheduler_ = nullptr; }
  /// For the gauges of /metrics.
  void set_http(const HttpServer& http) { http_ = &http; }

  /// On the server's thread.
  void handle(HttpRequest request, const std::shared_ptr<HttpExchange>& exchange);

 private:
  struct Route;
  struct Call {
    HttpRequest request;
    std::shared_ptr<HttpExchange> exchange;
    std::string client;
    HttpHeaders headers;  // of every answer: CORS
  };
  void answer(const Call& call, HttpResponse response) const;
  void refuse(const Call& call, const ApiError& error);
  void route(Call& call);
  /// Runs a route's handler; out of memory is an answer too.
  void run(void (Api::*handler)(Call& call), Call& call);
  /// The same on the thread for request bodies, unless the client goes away before its turn.
  void run_later(void (Api::*handler)(Call& call), Call call);

  void health(Call& call);
  void metrics(Call& call);
  void models(Call& call);
  void one_model(Call& call);
  void tokenize(Call& call);
  void detokenize(Call& call);
  void tokenizer_info(Call& call);
  void completions(Call& call);
  void chat_completions(Call& call);
  void responses(Call& call);
  void props(Call& call);
  bool page(Call& call);

  void answer_chat(Call& call, const ApiResult<ChatRequest>& asked, AnswerKind kind);
  /// What a request for a chat gets where there is none.
  [[nodiscard]] ApiError no_chat() const;
  [[nodiscard]] ApiError template_error(const std::string& message) const;

  [[nodiscard]] std::string model_json() const;
  [[nodiscard]] nlohmann::ordered_json strategies_json() const;
  [[nodiscard]] nlohmann::ordered_json template_json() const;
  ApiResult<EngineRequest> engine_request(const Call& call, const GenerationFields& fields,
                                          int64_t default_max_tokens) const;
  ApiResult<TaskPrompt> encode(const CompletionRequest& asked, const PromptInput& input,
                               EngineRequest request) const;
  /// The model has to be able to call tools where a request has some, or calls, in it.
  [[nodiscard]] ApiResult<void> check_tools(const ChatRequest& asked) const;
  /// `options`: what the kind of request alone knows.
  void start_task(const Call& call, const GenerationFields& fields, AnswerKind kind,
                  std::vector<TaskPrompt> prompts, ReplyOptions options);
  bool check_body(Call& call);

  ApiOptions options_;
  Access access_;
  Metrics& metrics_;
  Post post_, prepare_;
  Scheduler* scheduler_ = nullptr;
  std::unique_ptr<ChatTemplate> chat_;
  std::string no_chat_;  // why there is none
  const HttpServer* http_ = nullptr;
  int64_t created_;
  uint64_t next_id_ = 1;
  bool draining_ = false;
  /// One of a number, while it lives.
  class Counted {
   public:
    explicit Counted(std::shared_ptr<std::atomic<int64_t>> number) : number_(std::move(number)) {
      ++*number_;
    }
    ~Counted() { --*number_; }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;

   private:
    std::shared_ptr<std::atomic<int64_t>> number_;
  };
  // Requests with the thread for request bodies.
  std::shared_ptr<std::atomic<int64_t>> preparing_ = std::make_shared<std::atomic<int64_t>>(0);
};

}  // namespace kvcast
