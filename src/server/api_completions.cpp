// /v1/completions and /v1/chat/completions: from the typed request to a CompletionTask.
#include <fmt/format.h>

#include <random>

#include "base/stopwatch.h"
#include "runtime/model_impl.h"
#include "server/api.h"

namespace kvcast {
namespace {

/// The legacy endpoint's default; a chat's answer may fill the context.
constexpr int64_t kDefaultCompletionTokens = 16;

uint64_t random_prefix() {
  std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

/// Refuses a text whose beginning alone is longer than the model's context: reading a megabyte to
/// its end, to say so with the exact number, takes seconds.
ApiResult<void> check_length(std::string_view text, const Model& model) {
  const Tokenizer* tokenizer = model.impl().tokenizer.get();
  if (!tokenizer) return {};
  const int64_t limit = model.context_tokens();
  constexpr int64_t kSlack = 64;  // a cut can make a few tokens of what would have been fewer
  for (auto bytes = static_cast<size_t>(8 * limit); bytes < text.size(); bytes *= 4) {
    size_t cut = bytes;
    while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
    const int64_t tokens = std::ssize(tokenizer->encode(text.substr(0, cut), true));
    if (tokens <= limit + kSlack) continue;
    return tl::unexpected(to_api_error(
        {EngineError::Kind::kContextLength,
         fmt::format("the prompt has more than {} tokens; the model's context is {} tokens",
                     tokens - kSlack, limit)}));
  }
  return {};
}

}  // namespace

ApiResult<EngineRequest> Api::engine_request(const Call& call, const GenerationFields& fields,
                                             int64_t default_max_tokens) const {
  if (!fields.model.empty() && fields.model != options_.model_name) {
    return tl::unexpected(ApiError{
        404, "invalid_request_error", "model_not_found", "model",
        fmt::format("no model \"{}\"; this server has \"{}\"", fields.model, options_.model_name)});
  }
  EngineRequest request;
  if (!fields.prefill.empty()) {
    auto spec = scheduler_->check_strategy(fields.prefill);
    if (!spec) return tl::unexpected(bad_request(std::move(spec.error().message), "prefill"));
    request.prefill = std::move(*spec);
  }
  request.max_tokens = fields.max_tokens.value_or(default_max_tokens);
  request.choices = fields.n;
  request.sampling = fields.sampling;
  request.stop = fields.stop;
  request.ignore_end_of_text = fields.ignore_end_of_text;
  request.top_logprobs = fields.logprobs;
  request.report_progress = fields.stream && fields.return_progress;
  request.reuse_prefix = fields.cache_prompt;
  request.client = call.client;
  request.arrival = call.request.arrival;
  if (options_.request_seconds > 0) {
    request.deadline =
        request.arrival + std::chrono::duration_cast<SteadyClock::duration>(
                              std::chrono::duration<double>(options_.request_seconds));
  }
  return request;
}

ApiResult<TaskPrompt> Api::encode(const CompletionRequest& asked, const PromptInput& input,
                                  EngineRequest request) const {
  const Model& model = scheduler_->model();
  const Stopwatch watch;
  TaskPrompt prompt;
  if (const auto* text = std::get_if<std::string>(&input)) {
    if (auto ok = check_length(*text, model); !ok) return tl::unexpected(std::move(ok.error()));
    auto tokens = model.tokenize(*text);
    if (!tokens) return tl::unexpected(bad_request(std::move(tokens.error().message), "prompt"));
    request.prompt = std::move(*tokens);
    prompt.text = *text;
  } else {
    request.prompt = std::get<std::vector<int32_t>>(input);
    if (asked.echo && model.has_tokenizer()) {
      prompt.text = model.detokenize(request.prompt).value_or("");
    }
  }
  request.tokenize_ms = watch.elapsed_ms();
  request.score_prompt = asked.echo && asked.fields.logprobs.has_value();
  request.context_tokens = asked.context_length;
  prompt.request = std::move(request);
  return prompt;
}

void Api::completions(Call& call) {
  const auto asked = parse_completion_request(call.request.body, options_.limits);
  if (!asked) return refuse(call, asked.error());
  const auto request = engine_request(call, asked->fields, kDefaultCompletionTokens);
  if (!request) return refuse(call, request.error());
  std::vector<TaskPrompt> prompts;
  for (const PromptInput& input : asked->prompts) {
    auto prompt = encode(*asked, input, *request);
    if (!prompt) return refuse(call, prompt.error());
    prompts.push_back(std::move(*prompt));
  }
  start_task(call, asked->fields, AnswerKind::kCompletion, std::move(prompts), asked->echo);
}

void Api::chat_completions(Call& call) {
  const auto asked = parse_chat_request(call.request.body, options_.limits);
  if (!asked) return refuse(call, asked.error());
  const Model& model = scheduler_->model();
  if (!chat_) return refuse(call, bad_request(model.impl().tokenizer_hint));
  auto request = engine_request(call, asked->fields, model.context_tokens());
  if (!request) return refuse(call, request.error());
  const Stopwatch watch;
  for (const ChatMessage& message : asked->messages) {
    if (auto ok = check_length(message.content, model); !ok) return refuse(call, ok.error());
  }
  auto rendered = chat_->render(asked->messages);
  if (!rendered) return refuse(call, to_api_error(rendered.error()));
  TaskPrompt prompt;
  prompt.request = std::move(*request);
  prompt.request.prompt = std::move(rendered->tokens);
  prompt.request.tokenize_ms = watch.elapsed_ms();
  for (std::string& stop : chat_->stop_strings()) prompt.request.stop.push_back(std::move(stop));
  std::vector<TaskPrompt> prompts;
  prompts.push_back(std::move(prompt));
  start_task(call, asked->fields, AnswerKind::kChat, std::move(prompts), false);
}

void Api::start_task(const Call& call, const GenerationFields& fields, AnswerKind kind,
                     std::vector<TaskPrompt> prompts, bool echo) {
  static const uint64_t kRun = random_prefix();
  TaskOptions options;
  options.head = {kind,
                  fmt::format("{}-{:016x}{:x}", kind == AnswerKind::kChat ? "chatcmpl" : "cmpl",
                              kRun, next_id_++),
                  std::chrono::duration_cast<std::chrono::seconds>(
                      std::chrono::system_clock::now().time_since_epoch())
                      .count(),
                  options_.model_name};
  options.stream = fields.stream;
  options.include_usage = fields.include_usage;
  options.echo = echo;
  options.logprobs = fields.logprobs.has_value();
  options.headers = call.headers;
  // Tasks live on the server's thread.
  const auto task =
      std::make_shared<CompletionTask>(TaskContext{*scheduler_, metrics_, post_},
                                       std::move(options), std::move(prompts), call.exchange);
  post_([this, task] {
    if (scheduler_) task->start();
  });
}

}  // namespace kvcast
