#include "server/api.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/stopwatch.h"
#include "kvcast/version.h"
#include "runtime/jinja/template.h"
#include "runtime/model_impl.h"
#include "server/http_text.h"
#include "server/page.h"

namespace kvcast {
namespace {

using OrderedJson = nlohmann::ordered_json;

HttpResponse json_response(const OrderedJson& json) {
  return {200, "application/json", json_line(json)};
}

int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

constexpr std::string_view kModelsPrefix = "/v1/models/";

/// Clients put a path behind a base URL, with one slash or two, and may end it with one.
std::string plain_path(std::string_view path) {
  std::string plain;
  for (const char c : path) {
    if (c != '/' || !plain.ends_with('/')) plain.push_back(c);
  }
  if (plain.size() > 1 && plain.ends_with('/')) plain.pop_back();
  return plain;
}

/// "%2F" -> "/"; what is no such code stays.
std::string percent_decoded(std::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    const char* const digits = text.data() + i + 1;
    const bool is_code = text[i] == '%' && i + 2 < text.size() &&
                         std::from_chars(digits, digits + 2, value, 16).ptr == digits + 2;
    plain.push_back(is_code ? static_cast<char>(value) : text[i]);
    if (is_code) i += 2;
  }
  return plain;
}

/// A media type without its parameters.
std::string_view media_type(std::string_view header) {
  header = header.substr(0, header.find(';'));
  const size_t begin = std::min(header.find_first_not_of(" \t"), header.size());
  const size_t end = header.find_last_not_of(" \t") + 1;
  return header.substr(begin, std::max(begin, end) - begin);
}

}  // namespace

/// A path, the method it takes, and who answers.
struct Api::Route {
  std::string_view method;
  std::string_view path;
  void (Api::*serve)(Call& call);
  bool needs_model;
};

Api::Api(ApiOptions options, Access access, Metrics& metrics, Post post, Post prepare)
    : options_(std::move(options)),
      access_(std::move(access)),
      metrics_(metrics),
      post_(std::move(post)),
      prepare_(std::move(prepare)),
      created_(unix_seconds()) {}

void Api::set_ready(Scheduler& scheduler, Result<std::unique_ptr<ChatTemplate>> chat) {
  scheduler_ = &scheduler;
  if (chat) {
    chat_ = std::move(*chat);
  } else {
    no_chat_ = std::move(chat.error().message);
  }
}

void Api::answer(const Call& call, HttpResponse response) const {
  response.headers.insert(response.headers.end(), call.headers.begin(), call.headers.end());
  call.exchange->respond(std::move(response));
}

void Api::refuse(const Call& call, const ApiError& error) {
  metrics_.count_refused(error.status);
  HttpResponse response = to_response(error);
  if (error.status == 401) {
    // A browser asks for the key by itself; to programs Basic would only be confusing.
    response.headers.emplace_back("WWW-Authenticate", call.request.path.starts_with("/v1/")
                                                          ? "Bearer"
                                                          : "Basic realm=\"kvcast API key\"");
  }
  answer(call, std::move(response));
}

void Api::handle(HttpRequest request, const std::shared_ptr<HttpExchange>& exchange) {
  Call call{std::move(request), exchange, {}, {}};
  call.request.path = plain_path(call.request.path);
  if (call.request.method == "OPTIONS") {
    return call.exchange->respond(access_.preflight(call.request));
  }
  call.headers = access_.cors_headers(call.request);
  const auto caller = access_.check(call.request);
  if (!caller) return refuse(call, caller.error());
  call.client = caller->client;
  route(call);
}

void Api::run(void (Api::*handler)(Call& call), Call& call) {
  try {
    (this->*handler)(call);
  } catch (const std::bad_alloc&) {
    refuse(call, {500, "server_error", {}, {}, "not enough memory for this request"});
  }
}

void Api::route(Call& call) {
  static constexpr Route kRoutes[] = {
      {"GET", "/health", &Api::health, false},
      {"GET", "/metrics", &Api::metrics, true},
      {"GET", "/v1/models", &Api::models, true},
      {"GET", "/tokenizer_info", &Api::tokenizer_info, true},
      {"POST", "/tokenize", &Api::tokenize, true},
      {"POST", "/detokenize", &Api::detokenize, true},
      {"POST", "/v1/completions", &Api::completions, true},
      {"POST", "/v1/chat/completions", &Api::chat_completions, true},
      {"POST", "/v1/responses", &Api::responses, true},
      {"GET", "/props", &Api::props, true},
      {"GET", kModelsPrefix, &Api::one_model, true},
  };
  HttpRequest& request = call.request;
  if (page(call)) return;
  const auto route = std::ranges::find_if(kRoutes, [&](const Route& candidate) {
    return candidate.path == kModelsPrefix ? request.path.starts_with(kModelsPrefix)
                                           : request.path == candidate.path;
  });
  if (route == std::end(kRoutes)) {
    return refuse(call, {404,
                         "invalid_request_error",
                         "not_found",
                         {},
                         "no such route; docs/SERVER.md lists them"});
  }
  const bool is_get = request.method == "GET" || request.method == "HEAD";
  if (request.method != route->method && !(is_get && route->method == "GET")) {
    call.headers.emplace_back("Allow", route->method == "GET" ? "GET, HEAD" : "POST");
    return refuse(call, {405,
                         "invalid_request_error",
                         "method_not_allowed",
                         {},
                         fmt::format("{} takes {}", route->path, route->method)});
  }
  if (route->needs_model && !scheduler_) {
    return refuse(call, {503, "unavailable_error", "loading", {}, "the model is being loaded"});
  }
  if (route->method == "GET") return run(route->serve, call);
  if (check_body(call)) run_later(route->serve, std::move(call));
}

void Api::run_later(void (Api::*handler)(Call& call), Call call) {
  const auto waiting = std::make_shared<Call>(std::move(call));
  const auto gone = std::make_shared<std::atomic<bool>>(false);
  waiting->exchange->on_gone([gone] { *gone = true; });
  const auto counted = std::make_shared<Counted>(preparing_);
  prepare_([this, handler, waiting, gone, counted] {
    if (*gone) {
      metrics_.count_cancelled();
    } else {
      run(handler, *waiting);
    }
    post_([counted] {});  // it ends after what the handler has posted
  });
}

bool Api::check_body(Call& call) {
  // Anything else a page of another origin could send without being asked (no preflight).
  const std::string_view type = media_type(call.request.content_type);
  if (type.empty() || equal_ignoring_case(type, "application/json")) return true;
  refuse(call, {415,
                "invalid_request_error",
                "unsupported_media_type",
                {},
                "expected Content-Type: application/json"});
  return false;
}

bool Api::page(Call& call) {
  const bool is_get = call.request.method == "GET" || call.request.method == "HEAD";
  for (const PageFile& file : page_files()) {
    if (call.request.path != file.path || !is_get) continue;
    answer(call, {200,
                  std::string(file.content_type),
                  std::string(file.body),
                  {{"Cache-Control", "no-cache"},
                   {"X-Content-Type-Options", "nosniff"},
                   {"Content-Security-Policy",
                    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
                    "img-src 'self' data:; base-uri 'none'; form-action 'none'; "
                    "frame-ancestors 'none'"}}});
    return true;
  }
  return false;
}

void Api::health(Call& call) {
  const char* status = draining_ ? "draining" : scheduler_ ? "ok" : "loading";
  HttpResponse response = json_response({{"status", status}});
  if (draining_ || !scheduler_) response.status = 503;
  answer(call, std::move(response));
}

void Api::metrics(Call& call) {
  Metrics::Gauges gauges{.scheduler = scheduler_->stats()};
  gauges.scheduler.waiting += *preparing_;
  if (http_) {
    gauges.connections = http_->connections();
    gauges.dropped_connections = http_->dropped_connections();
  }
  answer(call, {200, "text/plain; version=0.0.4", metrics_.expose(options_.model_name, gauges)});
}

/// The strategies that the model can run.
OrderedJson Api::strategies_json() const {
  std::vector<std::string> available;
  for (const auto* spec :
       {"exact", "kv-prediction", "kv-prediction:tail=16", "kv-prediction:refine=auto", "auxiliary",
        "random:0.5", "static:0.5", "lazy:0.75-0.25", "zero-cache"}) {
    if (scheduler_->check_strategy(spec)) available.emplace_back(spec);
  }
  if (std::ranges::find(available, scheduler_->default_prefill()) == available.end()) {
    available.insert(available.begin(), scheduler_->default_prefill());
  }
  return {{"default", scheduler_->default_prefill()}, {"available", available}};
}

std::string Api::model_json() const {
  return OrderedJson{{"id", options_.model_name},
                     {"object", "model"},
                     {"created", created_},
                     {"owned_by", "kvcast"},
                     {"max_model_len", scheduler_->model().context_tokens()},
                     {"prefill", strategies_json()}}
      .dump();
}

void Api::models(Call& call) {
  answer(call, {200, "application/json", "{\"object\":\"list\",\"data\":[" + model_json() + "]}"});
}

void Api::one_model(Call& call) {
  if (percent_decoded(call.request.path.substr(kModelsPrefix.size())) != options_.model_name) {
    return refuse(call, {404, "invalid_request_error", "model_not_found", "model",
                         fmt::format("this server has the model \"{}\"", options_.model_name)});
  }
  answer(call, {200, "application/json", model_json()});
}

void Api::tokenize(Call& call) {
  auto asked = parse_tokenize_request(call.request.body, options_.limits);
  if (!asked) return refuse(call, asked.error());
  const Model& model = scheduler_->model();
  const Tokenizer* tokenizer = model.impl().tokenizer.get();
  if (!tokenizer) return refuse(call, bad_request(model.impl().tokenizer_hint));
  std::vector<int32_t> tokens;
  if (const auto* messages = std::get_if<std::vector<ChatMessage>>(&asked->input)) {
    if (!chat_) return refuse(call, no_chat());
    auto prompt = chat_->render(*messages);
    if (!prompt) return refuse(call, template_error(prompt.error().message));
    tokens = std::move(prompt->tokens);
  } else {
    const auto& text = std::get<std::string>(asked->input);
    // LM Evaluation Harness asks for the id of the end-of-text token by its name.
    const auto controls = tokenizer->control_tokens();
    const auto control = std::ranges::find(controls, text, &std::pair<std::string, int32_t>::first);
    if (control != controls.end()) {
      tokens = {control->second};
    } else {
      tokens = tokenizer->encode(text, asked->add_special_tokens);
    }
  }
  OrderedJson json = {
      {"count", tokens.size()}, {"max_model_len", model.context_tokens()}, {"tokens", tokens}};
  if (asked->return_token_strings) {
    json["token_strs"] = OrderedJson::array();
    for (const int32_t token : tokens) json["token_strs"].push_back(tokenizer->piece_bytes(token));
  }
  answer(call, json_response(json));
}

void Api::detokenize(Call& call) {
  const auto tokens = parse_detokenize_request(call.request.body);
  if (!tokens) return refuse(call, tokens.error());
  const auto text = scheduler_->model().detokenize(*tokens);
  if (!text) return refuse(call, bad_request(text.error().message));
  answer(call, json_response({{"prompt", *text}}));
}

void Api::tokenizer_info(Call& call) {
  const Model& model = scheduler_->model();
  const Tokenizer* tokenizer = model.impl().tokenizer.get();
  if (!tokenizer) return refuse(call, bad_request(model.impl().tokenizer_hint));
  const auto name = [&](int32_t id) -> OrderedJson {
    for (const auto& [text, token] : tokenizer->control_tokens()) {
      if (token == id) return text;
    }
    return nullptr;
  };
  OrderedJson json = {
      {"tokenizer_class", tokenizer->type()},       {"bos_token", name(tokenizer->bos_token())},
      {"eos_token", name(tokenizer->eos_token())},  {"pad_token", nullptr},
      {"model_max_length", model.context_tokens()}, {"vocab_size", tokenizer->vocab_size()}};
  json["chat_template"] = template_json();
  answer(call, json_response(json));
}

OrderedJson Api::template_json() const {
  const bool has_one = chat_ && !chat_->source().empty();
  return has_one ? OrderedJson(chat_->source()) : OrderedJson();
}

/// What the template refuses is the client's to change; what it does wrong is the model's.
ApiError Api::template_error(const std::string& message) const {
  const bool is_refusal = message.find(jinja::kRefusal) != std::string::npos;
  if (is_refusal || chat_->source().empty()) return bad_request(message, "messages");
  return {500, "server_error", "chat_template", {}, message};
}

ApiError Api::no_chat() const {
  if (!scheduler_->model().has_tokenizer()) return bad_request(no_chat_);
  return {500, "server_error", "chat_template", {}, no_chat_};
}

/// llama.cpp's shape: what clients and the page ask a server about itself.
void Api::props(Call& call) {
  const Model& model = scheduler_->model();
  answer(call, json_response({{"model_alias", options_.model_name},
                              {"build_info", fmt::format("kvcast {} ({})", version(), commit())},
                              {"total_slots", options_.max_batch},
                              {"default_generation_settings", {{"n_ctx", model.context_tokens()}}},
                              {"chat_template", template_json()},
                              {"modalities", {{"vision", false}, {"audio", false}}},
                              {"prefill", strategies_json()}}));
}

}  // namespace kvcast
