// Strings from a command line or a request: prefill specs, token ids, dtypes, architecture names.
#include "command.h"
#include "fuzz.h"
#include "model/architectures.h"
#include "prefill/strategy.h"

namespace kvcast {
namespace {

void fuzz_prefill(std::string_view text) {
  const auto strategy = PrefillStrategy::parse(text);
  if (!strategy) return check_message(strategy.error().message);
  const std::string spec = (*strategy)->spec();
  const auto again = PrefillStrategy::parse(spec);
  FUZZ_CHECK(again.has_value());
  FUZZ_CHECK((*again)->spec() == spec);
}

void fuzz_token_ids(const std::string& text) {
  const auto ids = parse_token_ids(text);
  if (!ids) return check_message(ids.error().message);
  std::string written;
  for (const int32_t id : *ids) written += std::to_string(id) + ",";
  FUZZ_CHECK(parse_token_ids(written) == *ids);
}

void fuzz_names(std::string_view text) {
  if (const auto dtype = parse_dtype(text)) {
    FUZZ_CHECK(dtype_text(*dtype) == text);
  } else {
    check_message(dtype.error().message);
  }
  if (const auto config = named_architecture(text)) {
    FUZZ_CHECK(config->n_layers() > 0);
  } else {
    check_message(config.error().message);
  }
}

}  // namespace
}  // namespace kvcast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvcast;
  Input input(data, size);
  switch (input.byte()) {
    case 'p':
      fuzz_prefill(input.rest());
      break;
    case 't':
      fuzz_token_ids(std::string(input.rest()));
      break;
    case 'n':
      fuzz_names(input.rest());
      break;
    default:
      break;
  }
  return 0;
}
