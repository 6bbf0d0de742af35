/* kvcast.h from C: loads a bundle, streams an answer, chats, scores, and reads errors. */
#include <kvcast.h>
#include <stdio.h>
#include <string.h>

static int fail(const char* what, char* error) {
  fprintf(stderr, "%s: %s\n", what, error != NULL ? error : "");
  kvcast_free(error);
  return 1;
}

static int print_piece(void* user, const char* piece, size_t bytes) {
  *(size_t*)user += bytes;
  fwrite(piece, 1, bytes, stdout);
  return 0;
}

static int answer(const kvcast_model* model) {
  static const char prompt[] = "The city of Rome was";
  char* error = NULL;
  size_t printed = 0;
  kvcast_generate_options options = {
      .struct_size = sizeof options, .prefill = "kv-prediction", .max_tokens = 8};
  kvcast_completion done = {.struct_size = sizeof done};
  kvcast_session* session = kvcast_session_new(model);
  kvcast_answer* answer = kvcast_answer_text(session, prompt, strlen(prompt), &options, &error);
  if (answer == NULL) return fail("answer", error);
  kvcast_session_free(session); /* the answer keeps it alive */
  if (kvcast_answer_run(answer, print_piece, &printed, &error) != 0) return fail("run", error);
  kvcast_answer_completion(answer, &done);
  printf("\n%.1f ms to the first of %zu tokens, %s\n", done.ttft_ms, done.token_count,
         done.finish_reason);
  if (printed != done.text_bytes || strlen(done.text) != done.text_bytes || done.token_count != 8)
    return fail("completion", NULL);
  kvcast_answer_free(answer);
  return 0;
}

static int score(const kvcast_model* model) {
  char* error = NULL;
  kvcast_tokens context = {NULL, 0}, continuation = {NULL, 0};
  int32_t *before, *behind;
  float logprobs[16];
  kvcast_batch* batch = kvcast_batch_new(model, NULL, &error);
  if (batch == NULL) return fail("batch", error);
  before = kvcast_tokenize(model, "One, two,", 9, 1, &context.count, &error);
  behind = kvcast_tokenize(model, "three", 5, 0, &continuation.count, &error);
  if (before == NULL || behind == NULL) return fail("tokenize", error);
  context.data = before;
  continuation.data = behind;
  if (kvcast_batch_score(batch, &context, &continuation, 1, NULL, NULL, NULL, logprobs, NULL,
                         &error) != 0)
    return fail("score", error);
  if (!(logprobs[0] < 0)) return fail("a log-probability is negative", NULL);
  kvcast_free(before);
  kvcast_free(behind);
  kvcast_batch_free(batch);
  return 0;
}

/* The shipped bundle's chat has no place for tools: what one reads is text, what one offers an error.
 */
static int chat(const kvcast_model* model) {
  static const char text[] = "A river is water.";
  char *error = NULL, *content, *more = NULL;
  size_t count = 0;
  int32_t* prompt;
  kvcast_message messages[] = {{.role = "system", .content = "Be brief."},
                               {.role = "user", .content = "What is a river?"}};
  kvcast_chat_options options = {.struct_size = sizeof options};
  kvcast_chat* format = kvcast_chat_new(model, &error);
  if (format == NULL) return fail("chat", error);
  prompt = kvcast_chat_render(format, messages, 2, NULL, &count, &error);
  if (prompt == NULL || count < 8) return fail("render", error);
  kvcast_free(prompt);
  content = kvcast_chat_read(format, text, strlen(text), &options, &more, &error);
  if (content == NULL || strcmp(content, text) != 0 || more != NULL) return fail("read", error);
  kvcast_free(content);
  options.tools = "[{\"type\": \"function\", \"function\": {\"name\": \"look\"}}]";
  if (kvcast_chat_render(format, messages, 2, &options, &count, &error) != NULL ||
      strstr(error, "no place for") == NULL)
    return fail("tools were to be refused", error);
  kvcast_free(error);
  kvcast_chat_free(format);
  return 0;
}

int main(int argc, char** argv) {
  char* error = NULL;
  kvcast_model* model;
  if (argc != 2) return fail("usage: answer MODEL", NULL);
  if (strcmp(kvcast_version(), KVCAST_VERSION) != 0)
    return fail("header and library are of different releases", NULL);
  if (kvcast_model_load("/no/such/model", NULL, &error) != NULL ||
      strstr(error, "/no/such/model") == NULL)
    return fail("an error that names the file was expected", error);
  kvcast_free(error);
  error = NULL;
  model = kvcast_model_load(argv[1], NULL, &error);
  if (model == NULL) return fail("load", error);
  if (answer(model) != 0 || score(model) != 0 || chat(model) != 0) return 1;
  kvcast_model_free(model);
  return 0;
}
