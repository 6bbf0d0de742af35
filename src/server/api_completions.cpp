// /v1/completions and /v1/chat/completions: from the typed request to a CompletionTask.
#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "base/stopwatch.h"
#include "runtime/fill_in.h"
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
         fmt::format(
             "the prompt has more than {} tokens; this model's maximum context length is {} tokens",
             tokens - kSlack, limit)}));
  }
  return {};
}

/// A prompt that fills the context leaves no room for an answer. (A longer one the scheduler
/// refuses; scoring needs no answer.)
ApiResult<void> check_room(const EngineRequest& request, const Model& model) {
  const bool is_full = std::ssize(request.prompt) == model.context_tokens();
  if (!is_full || request.max_tokens == 0 || request.score_prompt) return {};
  return tl::unexpected(to_api_error(
      {EngineError::Kind::kContextLength,
       fmt::format("the prompt has {0} tokens and leaves no room for an answer; this model's "
                   "maximum context length is {0} tokens",
                   request.prompt.size())}));
}

/// Each word at the beginning of a text and after another word: the tokens differ.
std::vector<std::vector<int32_t>> tokens_of_words(const Tokenizer& tokenizer,
                                                  const std::vector<std::string>& words) {
  std::vector<std::vector<int32_t>> all;
  for (const std::string& word : words) {
    for (const std::string& form : {word, " " + word}) {
      auto tokens = tokenizer.encode(form, false);
      if (!tokens.empty()) all.push_back(std::move(tokens));
    }
  }
  return all;
}

/// The prompt that asks for what stands between a text and a suffix.
ApiResult<std::vector<int32_t>> prompt_to_fill_in(const Model& model, const PromptInput& input,
                                                  const std::string& suffix) {
  const auto* prefix = std::get_if<std::string>(&input);
  if (!prefix) return tl::unexpected(bad_request(std::string(kFillInNeedsText), "suffix"));
  for (const std::string* text : {prefix, &suffix}) {
    if (auto ok = check_length(*text, model); !ok) return tl::unexpected(std::move(ok.error()));
  }
  const Tokenizer* tokenizer = model.impl().tokenizer.get();
  if (!tokenizer) return tl::unexpected(bad_request(model.impl().tokenizer_hint, "suffix"));
  auto tokens = fill_in_prompt(*tokenizer, *prefix, suffix);
  if (tokens) return std::move(*tokens);
  ApiError error = bad_request(std::string(kNoFillIn), "suffix");
  error.code = "unsupported_parameter";
  return tl::unexpected(std::move(error));
}

}  // namespace

ApiResult<EngineRequest> Api::engine_request(const Call& call, const GenerationFields& fields,
                                             int64_t default_max_tokens) const {
  if (options_.strict_model_name && !fields.model.empty() && fields.model != options_.model_name) {
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
  if (request.max_tokens == kAsManyTokensAsFit) {
    request.max_tokens = scheduler_->model().context_tokens();
  }
  request.choices = fields.n;
  request.sampling = fields.sampling;
  request.stop = fields.stop;
  request.ignore_end_of_text = fields.ignore_end_of_text;
  request.tokens = fields.tokens;
  if (!fields.bad_words.empty()) {
    const Tokenizer* tokenizer = scheduler_->model().impl().tokenizer.get();
    if (!tokenizer) {
      return tl::unexpected(bad_request(scheduler_->model().impl().tokenizer_hint, "bad_words"));
    }
    request.tokens.banned = tokens_of_words(*tokenizer, fields.bad_words);
  }
  request.top_logprobs = fields.logprobs;
  request.report_progress = fields.stream && fields.return_progress;
  request.reuse_prefix = fields.cache_prompt;
  request.revise = fields.revise;
  request.drafts = fields.drafts;
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
  if (!asked.suffix.empty()) {
    auto tokens = prompt_to_fill_in(model, input, asked.suffix);
    if (!tokens) return tl::unexpected(std::move(tokens.error()));
    request.prompt = std::move(*tokens);
    if (!request.ignore_end_of_text) {
      const auto ends = fill_in_end_tokens(*model.impl().tokenizer);
      auto& stop = request.tokens.stop_tokens;
      stop.insert(stop.end(), ends.begin(), ends.end());
    }
  } else if (const auto* text = std::get_if<std::string>(&input)) {
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
  // Scores are those of the text as it is, unless the request itself asks for another strategy's.
  if (request.score_prompt && !request.context_tokens && request.prefill.empty()) {
    request.prefill = "exact";
  }
  prompt.request = std::move(request);
  if (auto ok = check_room(prompt.request, model); !ok)
    return tl::unexpected(std::move(ok.error()));
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
  ReplyOptions options;
  options.echo = asked->echo;
  start_task(call, asked->fields, AnswerKind::kCompletion, std::move(prompts), std::move(options));
}

void Api::chat_completions(Call& call) {
  answer_chat(call, parse_chat_request(call.request.body, options_.limits), AnswerKind::kChat);
}

void Api::responses(Call& call) {
  answer_chat(call, parse_responses_request(call.request.body, options_.limits),
              AnswerKind::kResponse);
}

ApiResult<void> Api::check_tools(const ChatRequest& asked) const {
  const auto refusal = [](std::string message, std::string_view field) {
    ApiError error = bad_request(std::move(message), field);
    error.code = "unsupported_parameter";
    return tl::unexpected(std::move(error));
  };
  const bool in_history = std::ranges::any_of(asked.messages, [](const ChatMessage& message) {
    return message.role == "tool" || !message.more.empty();
  });
  const ToolCallForm form = chat_->tool_calls();
  if (in_history && form == ToolCallForm::kNone) {
    return refusal("messages: this model's chat template has no place for tool calls and results",
                   "messages");
  }
  if (asked.tools.json.empty()) return {};
  if (form == ToolCallForm::kNone) {
    return refusal(std::string(kNoPlaceForTools), "tools");
  }
  if (form == ToolCallForm::kUnknown) {
    return refusal(std::string(kUnknownToolCalls), "tools");
  }
  return check_length(asked.tools.json, scheduler_->model());
}

void Api::answer_chat(Call& call, const ApiResult<ChatRequest>& asked, AnswerKind kind) {
  if (!asked) return refuse(call, asked.error());
  const Model& model = scheduler_->model();
  if (!chat_) return refuse(call, no_chat());
  auto request = engine_request(call, asked->fields, model.context_tokens());
  if (!request) return refuse(call, request.error());
  if (auto ok = check_tools(*asked); !ok) return refuse(call, ok.error());
  const Stopwatch watch;
  for (const ChatMessage& message : asked->messages) {
    for (const std::string* text : {&message.content, &message.more}) {
      if (auto ok = check_length(*text, model); !ok) return refuse(call, ok.error());
    }
  }
  const ToolFields& tools = asked->tools;
  ReplyOptions options;
  options.asked_tools = tools;
  if (!tools.json.empty()) options.tools.emplace(tools.names, tools.parallel);
  if (tools.must_call) {
    const std::string_view only = tools.names.size() == 1 ? std::string_view(tools.names[0]) : "";
    options.opening = tool_call_opening(chat_->tool_calls(), only);
  }
  auto rendered = chat_->render(asked->messages, {.tools = tools.json, .opening = options.opening});
  if (!rendered) return refuse(call, template_error(rendered.error().message));
  TaskPrompt prompt;
  prompt.request = std::move(*request);
  prompt.request.prompt = std::move(rendered->tokens);
  prompt.request.tokenize_ms = watch.elapsed_ms();
  if (auto ok = check_room(prompt.request, model); !ok) return refuse(call, ok.error());
  for (std::string& stop : chat_->stop_strings()) prompt.request.stop.push_back(std::move(stop));
  if (options.tools && !tools.parallel && chat_->tool_calls() == ToolCallForm::kTagged) {
    prompt.request.stop.emplace_back("</tool_call>");  // nothing after it would be shown
  }
  std::vector<TaskPrompt> prompts;
  prompts.push_back(std::move(prompt));
  start_task(call, asked->fields, kind, std::move(prompts), std::move(options));
}

void Api::start_task(const Call& call, const GenerationFields& fields, AnswerKind kind,
                     std::vector<TaskPrompt> prompts, ReplyOptions options) {
  static const uint64_t kRun = random_prefix();
  const std::string_view prefix = kind == AnswerKind::kChat         ? "chatcmpl-"
                                  : kind == AnswerKind::kCompletion ? "cmpl-"
                                                                    : "resp_";
  AnswerHead head = {kind, fmt::format("{}{:016x}{:x}", prefix, kRun, next_id_++),
                     std::chrono::duration_cast<std::chrono::seconds>(
                         std::chrono::system_clock::now().time_since_epoch())
                         .count(),
                     options_.model_name};
  options.format = make_answer_format(std::move(head),
                                      {.logprobs = fields.logprobs.has_value(),
                                       .include_usage = fields.include_usage,
                                       .tools = std::move(options.asked_tools)},
                                      scheduler_->model().impl().tokenizer.get());
  options.stream = fields.stream;
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
