// The server's JSON edge: whatever the bytes, a typed request within its limits or an error; and
// the calls in whatever a model answers.
#include "fuzz.h"
#include "runtime/tool_calls.h"
#include "server/requests.h"

namespace kvcast {
namespace {

void check_fields(const GenerationFields& fields, const RequestLimits& limits) {
  FUZZ_CHECK(validate(fields.sampling));
  FUZZ_CHECK(fields.n >= 1 && fields.n <= limits.max_choices);
  FUZZ_CHECK(fields.max_tokens.value_or(0) >= kAsManyTokensAsFit);
  FUZZ_CHECK(fields.logprobs.value_or(0) >= 0 &&
             fields.logprobs.value_or(0) <= limits.max_logprobs);
  FUZZ_CHECK(static_cast<int64_t>(fields.stop.size()) <= limits.max_stop_strings);
  for (const std::string& stop : fields.stop) FUZZ_CHECK(!stop.empty());
}

void check_error(const ApiError& error) {
  FUZZ_CHECK(error.status == 400 && !error.message.empty());
  FUZZ_CHECK(error_body(error).starts_with("{\"error\":"));
}

void fuzz_completion(std::string_view body) {
  const RequestLimits limits;
  const auto request = parse_completion_request(body, limits);
  if (!request) return check_error(request.error());
  check_fields(request->fields, limits);
  FUZZ_CHECK(!request->prompts.empty());
  FUZZ_CHECK(static_cast<int64_t>(request->prompts.size()) <= limits.max_prompts);
}

void fuzz_chat(std::string_view body, bool as_response) {
  const RequestLimits limits;
  const auto request =
      as_response ? parse_responses_request(body, limits) : parse_chat_request(body, limits);
  if (!request) return check_error(request.error());
  check_fields(request->fields, limits);
  FUZZ_CHECK(!request->messages.empty());
  const ToolFields& tools = request->tools;
  FUZZ_CHECK(tools.json.empty() == tools.names.empty());
  FUZZ_CHECK(static_cast<int64_t>(tools.names.size()) <= limits.max_tools);
  FUZZ_CHECK(!tools.must_call || !tools.names.empty());
}

/// What an answer says and calls, read in pieces of `step` bytes.
AnswerParts read_answer(std::string_view answer, size_t step, bool parallel) {
  ToolCallReader reader({"look", "go"}, parallel);
  AnswerParts whole;
  for (size_t at = 0; at < answer.size(); at += step) {
    AnswerParts parts;
    reader.add(answer.substr(at, step), parts);
    whole.content += parts.content;
    for (const ToolCallPart& part : parts.calls) {
      const bool is_new = part.index == static_cast<int64_t>(whole.calls.size());
      FUZZ_CHECK(is_new == !part.name.empty());
      if (is_new) {
        whole.calls.push_back(part);
      } else {
        FUZZ_CHECK(part.index + 1 == static_cast<int64_t>(whole.calls.size()));
        whole.calls.back().arguments += part.arguments;
      }
    }
  }
  AnswerParts rest;
  reader.end(rest);
  FUZZ_CHECK(rest.calls.empty());
  whole.content += rest.content;
  return whole;
}

/// The same whatever pieces an answer comes in; without calls all of it is text.
void fuzz_answer(std::string_view answer, size_t step, bool parallel) {
  const AnswerParts whole = read_answer(answer, answer.size() + 1, parallel);
  const AnswerParts parts = read_answer(answer, step, parallel);
  FUZZ_CHECK(whole.content == parts.content && whole.calls.size() == parts.calls.size());
  for (size_t i = 0; i < whole.calls.size(); ++i) {
    FUZZ_CHECK(whole.calls[i].name == parts.calls[i].name);
    FUZZ_CHECK(whole.calls[i].arguments == parts.calls[i].arguments);
  }
  FUZZ_CHECK(!whole.calls.empty() || whole.content == answer);
}

}  // namespace
}  // namespace kvcast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvcast;
  Input input(data, size);
  const uint8_t which = input.byte();
  const std::string_view body = input.rest();
  if (which == 'c') {
    fuzz_completion(body);
  } else if (which == 'm') {
    fuzz_chat(body, false);
  } else if (which == 'r') {
    fuzz_chat(body, true);
  } else if (which == 'a' || which == 'b') {
    const size_t step = body.empty() ? 1 : 1 + static_cast<unsigned char>(body.front()) % 16;
    fuzz_answer(body.substr(std::min<size_t>(1, body.size())), step, which == 'a');
  } else if (which == 't') {
    if (const auto request = parse_tokenize_request(body, {}); !request)
      check_error(request.error());
  } else if (which == 'd') {
    if (const auto tokens = parse_detokenize_request(body); !tokens) check_error(tokens.error());
  }
  return 0;
}
