/* kvcast in C: load a model or bundle, stream answers, answer and score many prompts.
 *
 * Errors. A function that can fail takes `char **error` as its last argument and returns NULL or a
 * negative number. *error (unless error is NULL) is then one line that says what is wrong, where,
 * and what was expected; release it with kvcast_free. On success *error is not touched.
 *
 * Structs. The caller sets struct_size = sizeof(the struct) and leaves what it does not care about
 * zero, which means the default. So later releases can append fields. Options whose struct_size is
 * 0 or ends within a field are an error; of a struct to be filled, struct_size bytes are.
 *
 * Text is UTF-8, lengths of text are in bytes. Whatever a handle was made from stays alive as long
 * as the handle. Threads: a kvcast_model, kvcast_chat and kvcast_batch may be used by any number at
 * once, a kvcast_session and its answers by one at a time, except for kvcast_answer_cancel.
 */
#ifndef KVCAST_H
#define KVCAST_H

#include <stddef.h>
#include <stdint.h>

#include "kvcast/macros.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kvcast_model kvcast_model;
typedef struct kvcast_chat kvcast_chat;
typedef struct kvcast_session kvcast_session;
typedef struct kvcast_answer kvcast_answer;
typedef struct kvcast_batch kvcast_batch;

/* Of the library that runs; KVCAST_VERSION is that of this header. */
const char* kvcast_version(void);
/* The git commit it was built from, "unknown" outside a checkout. */
const char* kvcast_commit(void);
/* Releases an error, and arrays and texts that a function below hands over. NULL is fine. */
void kvcast_free(void* memory);

/* ---- models ---- */

typedef struct kvcast_load_options {
  size_t struct_size;
  const char* dtype; /* "auto" (as stored), "f32", "bf16", "int8" or what else the version knows */
  const char* kv_dtype;  /* of cached keys and values: "auto", "f32", "bf16", "int8" */
  int32_t threads;       /* of a forward pass; 0: one for each core it may use */
  const char* tokenizer; /* a tokenizer file, for directories that carry none */
} kvcast_load_options;

/* A model directory, a GGUF file or a KV-prediction bundle. `options` may be NULL. */
kvcast_model* kvcast_model_load(const char* path, const kvcast_load_options* options, char** error);
void kvcast_model_free(kvcast_model* model);

typedef struct kvcast_model_info {
  size_t struct_size;
  int32_t is_bundle; /* KV prediction is possible */
  int32_t has_tokenizer;
  int64_t vocab_size;
  int64_t context_tokens; /* longest prompt plus answer */
  int64_t weight_bytes;
  int32_t threads;
  const char* dtype; /* resolved; this and what follows lives as long as the model */
  const char* kv_dtype;
  const char* default_prefill; /* the strategy used when none is asked for */
} kvcast_model_info;

void kvcast_model_describe(const kvcast_model* model, kvcast_model_info* info);

/* Token ids of a text, BOS first if asked for: an array to kvcast_free, of *count. */
int32_t* kvcast_tokenize(const kvcast_model* model, const char* text, size_t bytes, int add_bos,
                         size_t* count, char** error);
/* The text of token ids, ended by 0, to kvcast_free. `bytes` may be NULL. */
char* kvcast_detokenize(const kvcast_model* model, const int32_t* tokens, size_t count,
                        size_t* bytes, char** error);

/* ---- conversations as the model was trained on them ---- */

typedef struct kvcast_message {
  const char* role; /* "system", "user", "assistant", "tool" */
  const char* content;
  const char* more; /* what else it says, as OpenAI's API has it, the text of a JSON object:
                       "tool_calls" of an assistant, "tool_call_id" of a tool's result; or NULL */
} kvcast_message;

typedef struct kvcast_chat_options {
  size_t struct_size;
  const char* tools; /* that the answer may call, as OpenAI's API has them: the text of a JSON list;
                        NULL: none */
  const char* tool_choice; /* "auto" (NULL): the model calls one if it likes; "required": the answer
                              calls one; a tool's name: it calls that; "none" */
} kvcast_chat_options;

kvcast_chat* kvcast_chat_new(const kvcast_model* model, char** error);
void kvcast_chat_free(kvcast_chat* chat);
/* The prompt of a conversation up to the opening of the assistant's next message: an array to
 * kvcast_free, of *count. `options` may be NULL. */
int32_t* kvcast_chat_render(const kvcast_chat* chat, const kvcast_message* messages,
                            size_t message_count, const kvcast_chat_options* options, size_t* count,
                            char** error);
/* The message that an answer's text is, to go on with: what it says, and *more as in
 * kvcast_message: {"tool_calls": [...]} with the tools that it calls, NULL if none. `options`:
 * those of the prompt. Both texts are to kvcast_free. The arguments of a call are text as the model
 * wrote it, perhaps no whole JSON where the answer was cut. */
char* kvcast_chat_read(const kvcast_chat* chat, const char* text, size_t bytes,
                       const kvcast_chat_options* options, char** more, char** error);
/* The strings that end an answer beside the end of text, NULL behind the last one. Lives as long as
 * the chat. */
const char* kvcast_chat_stop(const kvcast_chat* chat, size_t index);

/* ---- answers, one conversation ---- */

typedef struct kvcast_generate_options {
  size_t struct_size;
  const char* prefill;      /* "exact", "kv-prediction:tail=16", ...; NULL: the model's */
  int64_t max_tokens;       /* 0: 64 */
  float temperature;        /* 0: greedy */
  float top_p;              /* 0: off */
  float min_p;              /* 0: off */
  float repetition_penalty; /* 0: off */
  int64_t top_k;            /* 0: off */
  uint64_t seed;            /* equal seeds give equal answers; prompt i of a batch has seed + i */
  const char* const* stop;  /* strings that an answer ends before */
  size_t stop_count;
  int32_t ignore_end_of_text; /* go on after the end-of-text token */
  const char* suffix; /* the answer is what belongs between the prompt, a text, and this (fill in
                         the middle), for models that have tokens for it; NULL: no */
  const char* drafts; /* tokens guessed from the text so far, or by the auxiliary, that one step
                         checks, which changes no answer: "auto" (NULL), "off" or at most how many
                         at a time */
} kvcast_generate_options;

typedef struct kvcast_completion {
  size_t struct_size;
  const char* text; /* ended by 0; lives as long as the answer and until its next call */
  size_t text_bytes;
  const int32_t* tokens; /* the end-of-text token is not among them */
  size_t token_count;
  const char* finish_reason; /* "end-of-text", "stop", "max-tokens", "context-full", "cancelled" */
  double tokenize_ms, auxiliary_ms, predictor_ms, base_ms;
  double ttft_ms;   /* from the start to the first token */
  double decode_ms; /* inside the library, all tokens after the first */
  int64_t prompt_tokens;
  int64_t predicted_tokens; /* of the prompt, whose keys and values were forecast */
  int64_t decode_tokens;    /* that decode_ms covers */
  /* What the gate said of the forecast (`gate=` in the strategy): below the threshold the prompt
   * was read exactly. Not a number: no forecast was judged. */
  double gate_score, gate_threshold;
  int64_t drafted_tokens;  /* guessed and checked (`drafts`) */
  int64_t accepted_tokens; /* of these, what the answer has */
} kvcast_completion;

/* A conversation. Each prompt continues it. NULL: not enough memory. */
kvcast_session* kvcast_session_new(const kvcast_model* model);
void kvcast_session_free(kvcast_session* session);
/* Forgets the conversation. */
void kvcast_session_reset(kvcast_session* session);
/* All tokens so far; valid until the session's next call. */
const int32_t* kvcast_session_tokens(const kvcast_session* session, size_t* count);
int64_t kvcast_session_cache_bytes(const kvcast_session* session);

/* Begins an answer to a text (BOS before the first one of a conversation) or to token ids as they
 * are. A session writes one answer at a time. `options` may be NULL. */
kvcast_answer* kvcast_answer_text(kvcast_session* session, const char* prompt, size_t bytes,
                                  const kvcast_generate_options* options, char** error);
kvcast_answer* kvcast_answer_tokens(kvcast_session* session, const int32_t* prompt, size_t count,
                                    const kvcast_generate_options* options, char** error);
/* Runs the model for one more token, or several where drafts come true. 1: *piece is what it added,
 * whole UTF-8, perhaps nothing, valid until the answer's next call; 0: the answer is over; -1: an
 * error. */
int kvcast_answer_next(kvcast_answer* answer, const char** piece, size_t* bytes, char** error);
/* Called with each piece; nonzero ends the answer. */
typedef int (*kvcast_piece_callback)(void* user, const char* piece, size_t bytes);
/* All that is left, piece by piece. 0, or -1: an error. */
int kvcast_answer_run(kvcast_answer* answer, kvcast_piece_callback callback, void* user,
                      char** error);
/* Makes the answer end at the next token, or the prefill between two layers. From any thread. */
void kvcast_answer_cancel(kvcast_answer* answer);
/* Ends the answer here; what was written stays in the conversation. */
void kvcast_answer_end(kvcast_answer* answer);
/* What there is so far, or for good. */
void kvcast_answer_completion(const kvcast_answer* answer, kvcast_completion* completion);
/* Ends the answer if it is not over. */
void kvcast_answer_free(kvcast_answer* answer);

/* ---- many prompts at once ---- */

typedef struct kvcast_tokens {
  const int32_t* data;
  size_t count;
} kvcast_tokens;

typedef struct kvcast_batch_options {
  size_t struct_size;
  int64_t max_batch;       /* answers decoded together; 0: 64 */
  int64_t max_cache_bytes; /* of KV caches; 0: 2 GiB */
} kvcast_batch_options;

/* Called on the caller's thread now and then with how many prompts are done; nonzero stops. */
typedef int (*kvcast_progress_callback)(void* user, size_t done);

kvcast_batch* kvcast_batch_new(const kvcast_model* model, const kvcast_batch_options* options,
                               char** error);
void kvcast_batch_free(kvcast_batch* batch);
/* Answers `count` prompts; answers[i], which is over, is to be freed by kvcast_answer_free. 0, or
 * -1: an error, and no answers. `options`, `progress` may be NULL. */
int kvcast_batch_generate(kvcast_batch* batch, const kvcast_tokens* prompts, size_t count,
                          const kvcast_generate_options* options, kvcast_progress_callback progress,
                          void* user, kvcast_answer** answers, char** error);
/* Natural-log probabilities of the tokens of continuations[i] behind contexts[i] (at least one
 * token each), which `prefill` (NULL: the model's) reads: all of them one after the other into
 * `logprobs`, and into `most_probable` (may be NULL) whether greedy choice would have taken the
 * token. 0, or -1: an error. */
int kvcast_batch_score(kvcast_batch* batch, const kvcast_tokens* contexts,
                       const kvcast_tokens* continuations, size_t count, const char* prefill,
                       kvcast_progress_callback progress, void* user, float* logprobs,
                       unsigned char* most_probable, char** error);

#ifdef __cplusplus
}
#endif

#endif
