// kvcast.h on top of the C++ API: handles are structs that own its objects.
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

#include "capi/handles.h"

using namespace kvcast;
using namespace kvcast::capi;

namespace {

/// `bytes` and a 0 behind them, for kvcast_free.
char* copy_of(const void* data, size_t bytes) {
  auto* memory = static_cast<char*>(std::malloc(bytes + 1));
  if (memory == nullptr) throw std::bad_alloc();
  if (bytes > 0) std::memcpy(memory, data, bytes);
  memory[bytes] = '\0';
  return memory;
}

template <typename T>
void hand_out(T filled, T* wanted) {
  filled.struct_size = wanted->struct_size;
  std::memcpy(wanted, &filled, std::min(wanted->struct_size, sizeof(T)));
}

std::string_view text_of(const char* data, size_t bytes) {
  return bytes == 0 ? std::string_view() : std::string_view(data, bytes);
}

Result<ChatPromptOptions> chat_options_of(const kvcast_chat_options* given) {
  KVCAST_TRY(const auto asked, known_fields(given));
  ChatPromptOptions options;
  if (asked.tools != nullptr) options.tools = asked.tools;
  if (asked.tool_choice != nullptr) options.tool_choice = asked.tool_choice;
  return options;
}

/// `prompt`: text or token ids.
template <typename Prompt>
kvcast_answer* start(kvcast_session* session, Prompt prompt, const kvcast_generate_options* asked,
                     char** error) {
  return guarded<kvcast_answer*>(error, nullptr, [&]() -> Result<kvcast_answer*> {
    auto answer = std::make_unique<kvcast_answer>();
    auto options = options_of(asked);
    if (!options) return tl::unexpected(options.error());
    options->cancel = answer->cancel.get_token();
    auto stream = session->session.start(prompt, *options);
    if (!stream) return tl::unexpected(stream.error());
    answer->stream.emplace(std::move(*stream));
    return answer.release();
  });
}

int32_t* array_of(const std::vector<int32_t>& tokens, size_t* count) {
  *count = tokens.size();
  return reinterpret_cast<int32_t*>(copy_of(tokens.data(), tokens.size() * sizeof(int32_t)));
}

}  // namespace

Result<GenerateOptions> kvcast::capi::options_of(const kvcast_generate_options* given) {
  KVCAST_TRY(const auto asked, known_fields(given));
  GenerateOptions options;
  if (asked.prefill != nullptr) options.prefill = asked.prefill;
  if (asked.max_tokens != 0) options.max_tokens = asked.max_tokens;
  options.sampling.temperature = asked.temperature;
  if (asked.top_p != 0) options.sampling.top_p = asked.top_p;
  options.sampling.min_p = asked.min_p;
  if (asked.repetition_penalty != 0) options.sampling.repetition_penalty = asked.repetition_penalty;
  options.sampling.top_k = asked.top_k;
  options.sampling.seed = asked.seed;
  for (size_t i = 0; i < asked.stop_count; ++i) options.stop.emplace_back(asked.stop[i]);
  options.ignore_end_of_text = asked.ignore_end_of_text != 0;
  if (asked.suffix != nullptr) options.suffix = asked.suffix;
  if (asked.drafts != nullptr) {
    const auto drafts = parse_drafts(asked.drafts);
    if (!drafts) return tl::unexpected(drafts.error());
    options.drafts = *drafts;
  }
  return options;
}

const char* kvcast_version(void) { return version().data(); }
const char* kvcast_commit(void) { return commit().data(); }
void kvcast_free(void* memory) { std::free(memory); }

// ---- models ----

kvcast_model* kvcast_model_load(const char* path, const kvcast_load_options* given, char** error) {
  return guarded<kvcast_model*>(error, nullptr, [&]() -> Result<kvcast_model*> {
    KVCAST_TRY(const auto asked, known_fields(given));
    LoadOptions options{.threads = asked.threads};
    const auto dtype = parse_dtype(asked.dtype != nullptr ? asked.dtype : "auto");
    if (!dtype) return tl::unexpected(dtype.error());
    const auto kv_dtype = parse_kv_dtype(asked.kv_dtype != nullptr ? asked.kv_dtype : "auto");
    if (!kv_dtype) return tl::unexpected(kv_dtype.error());
    options.dtype = *dtype;
    options.kv_dtype = *kv_dtype;
    if (asked.tokenizer != nullptr) options.tokenizer = asked.tokenizer;
    auto model = Model::load(path, options);
    if (!model) return tl::unexpected(model.error());
    const Model& loaded = **model;
    return new kvcast_model{*model, std::string(dtype_text(loaded.dtype())),
                            std::string(dtype_text(loaded.kv_dtype()))};
  });
}

void kvcast_model_free(kvcast_model* model) { delete model; }

void kvcast_model_describe(const kvcast_model* model, kvcast_model_info* info) {
  const Model& loaded = *model->model;
  hand_out({.struct_size = 0,
            .is_bundle = loaded.is_bundle() ? 1 : 0,
            .has_tokenizer = loaded.has_tokenizer() ? 1 : 0,
            .vocab_size = loaded.vocab_size(),
            .context_tokens = loaded.context_tokens(),
            .weight_bytes = loaded.weight_bytes(),
            .threads = loaded.threads(),
            .dtype = model->dtype.c_str(),
            .kv_dtype = model->kv_dtype.c_str(),
            .default_prefill = loaded.default_prefill().c_str()},
           info);
}

int32_t* kvcast_tokenize(const kvcast_model* model, const char* text, size_t bytes, int add_bos,
                         size_t* count, char** error) {
  return guarded<int32_t*>(error, nullptr, [&]() -> Result<int32_t*> {
    return model->model->tokenize(text_of(text, bytes), add_bos != 0).map([&](const auto& tokens) {
      return array_of(tokens, count);
    });
  });
}

char* kvcast_detokenize(const kvcast_model* model, const int32_t* tokens, size_t count,
                        size_t* bytes, char** error) {
  return guarded<char*>(error, nullptr, [&]() -> Result<char*> {
    return model->model->detokenize({tokens, count}).map([&](const std::string& text) {
      if (bytes != nullptr) *bytes = text.size();
      return copy_of(text.data(), text.size());
    });
  });
}

// ---- conversations as the model was trained on them ----

kvcast_chat* kvcast_chat_new(const kvcast_model* model, char** error) {
  return guarded<kvcast_chat*>(error, nullptr, [&]() -> Result<kvcast_chat*> {
    return ChatFormat::of(model->model).map([](ChatFormat format) {
      auto stop = format.stop_strings();
      return new kvcast_chat{std::move(format), std::move(stop)};
    });
  });
}

void kvcast_chat_free(kvcast_chat* chat) { delete chat; }

int32_t* kvcast_chat_render(const kvcast_chat* chat, const kvcast_message* messages,
                            size_t message_count, const kvcast_chat_options* options, size_t* count,
                            char** error) {
  return guarded<int32_t*>(error, nullptr, [&]() -> Result<int32_t*> {
    std::vector<ChatMessage> conversation;
    for (size_t i = 0; i < message_count; ++i) {
      const auto& [role, content, more] = messages[i];
      conversation.push_back({role, content, more != nullptr ? more : ""});
    }
    KVCAST_TRY(const auto asked, chat_options_of(options));
    return chat->format.render(conversation, asked).map([&](const ChatPrompt& made) {
      return array_of(made.tokens, count);
    });
  });
}

char* kvcast_chat_read(const kvcast_chat* chat, const char* text, size_t bytes,
                       const kvcast_chat_options* options, char** more, char** error) {
  return guarded<char*>(error, nullptr, [&]() -> Result<char*> {
    KVCAST_TRY(const auto asked, chat_options_of(options));
    const auto read = chat->format.read_answer(text_of(text, bytes), asked);
    return read.map([&](const ChatMessage& message) {
      std::unique_ptr<char, decltype(&std::free)> calls(
          message.more.empty() ? nullptr : copy_of(message.more.data(), message.more.size()),
          &std::free);
      char* const content = copy_of(message.content.data(), message.content.size());
      *more = calls.release();
      return content;
    });
  });
}

const char* kvcast_chat_stop(const kvcast_chat* chat, size_t index) {
  return index < chat->stop.size() ? chat->stop[index].c_str() : nullptr;
}

// ---- answers, one conversation ----

kvcast_session* kvcast_session_new(const kvcast_model* model) {
  return guarded<kvcast_session*>(nullptr, nullptr, [&]() -> Result<kvcast_session*> {
    return new kvcast_session{Session(model->model)};
  });
}
void kvcast_session_free(kvcast_session* session) { delete session; }
void kvcast_session_reset(kvcast_session* session) { session->session.reset(); }

const int32_t* kvcast_session_tokens(const kvcast_session* session, size_t* count) {
  *count = session->session.tokens().size();
  return session->session.tokens().data();
}

int64_t kvcast_session_cache_bytes(const kvcast_session* session) {
  return session->session.cache_bytes();
}

kvcast_answer* kvcast_answer_text(kvcast_session* session, const char* prompt, size_t bytes,
                                  const kvcast_generate_options* options, char** error) {
  return start(session, text_of(prompt, bytes), options, error);
}

kvcast_answer* kvcast_answer_tokens(kvcast_session* session, const int32_t* prompt, size_t count,
                                    const kvcast_generate_options* options, char** error) {
  return start(session, std::span(prompt, count), options, error);
}

int kvcast_answer_next(kvcast_answer* answer, const char** piece, size_t* bytes, char** error) {
  return guarded(error, -1, [&]() -> Result<int> {
    if (!answer->stream) return 0;
    auto next = answer->stream->next();
    if (!next) return tl::unexpected(next.error());
    if (!*next) return 0;
    answer->piece = **std::move(next);
    *piece = answer->piece.c_str();
    *bytes = answer->piece.size();
    return 1;
  });
}

int kvcast_answer_run(kvcast_answer* answer, kvcast_piece_callback callback, void* user,
                      char** error) {
  const char* piece = nullptr;
  size_t bytes = 0;
  while (true) {
    const int more = kvcast_answer_next(answer, &piece, &bytes, error);
    if (more <= 0) return more;
    if (callback != nullptr && bytes > 0 && callback(user, piece, bytes) != 0) {
      answer->stream->end();
    }
  }
}

void kvcast_answer_cancel(kvcast_answer* answer) { answer->cancel.request_stop(); }

void kvcast_answer_end(kvcast_answer* answer) {
  if (answer->stream) answer->stream->end();
}

void kvcast_answer_completion(const kvcast_answer* answer, kvcast_completion* completion) {
  constexpr double kNoNumber = std::numeric_limits<double>::quiet_NaN();
  const Completion& found = answer->completion();
  const std::optional<GateDecision>& gate = found.timings.gate;
  hand_out({.struct_size = 0,
            .text = found.text.c_str(),
            .text_bytes = found.text.size(),
            .tokens = found.tokens.data(),
            .token_count = found.tokens.size(),
            .finish_reason = finish_reason_text(found.finish_reason).data(),
            .tokenize_ms = found.timings.tokenize_ms,
            .auxiliary_ms = found.timings.auxiliary_ms,
            .predictor_ms = found.timings.predictor_ms,
            .base_ms = found.timings.base_ms,
            .ttft_ms = found.timings.ttft_ms,
            .decode_ms = found.timings.decode_ms,
            .prompt_tokens = found.timings.prompt_tokens,
            .predicted_tokens = found.timings.predicted_tokens,
            .decode_tokens = found.timings.decode_tokens,
            .gate_score = gate ? gate->score : kNoNumber,
            .gate_threshold = gate ? gate->threshold : kNoNumber,
            .drafted_tokens = found.timings.drafted_tokens,
            .accepted_tokens = found.timings.accepted_tokens},
           completion);
}

void kvcast_answer_free(kvcast_answer* answer) { delete answer; }
