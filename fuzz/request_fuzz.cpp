// The server's JSON edge: whatever the bytes, a typed request within its limits or an error.
#include "fuzz.h"
#include "server/requests.h"

namespace kvcast {
namespace {

void check_fields(const GenerationFields& fields, const RequestLimits& limits) {
  FUZZ_CHECK(validate(fields.sampling));
  FUZZ_CHECK(fields.n >= 1 && fields.n <= limits.max_choices);
  FUZZ_CHECK(fields.max_tokens.value_or(0) >= 0);
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

void fuzz_chat(std::string_view body) {
  const RequestLimits limits;
  const auto request = parse_chat_request(body, limits);
  if (!request) return check_error(request.error());
  check_fields(request->fields, limits);
  FUZZ_CHECK(!request->messages.empty());
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
    fuzz_chat(body);
  } else if (which == 't') {
    if (const auto request = parse_tokenize_request(body, {}); !request)
      check_error(request.error());
  } else if (which == 'd') {
    if (const auto tokens = parse_detokenize_request(body); !tokens) check_error(tokens.error());
  }
  return 0;
}
