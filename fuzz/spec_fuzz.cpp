// Strings from a command line or a request: prefill specs, token ids, dtypes, architecture names. A
// prompt is refused, or read as the spec says, at once and piece by piece, to finite logits.
#include <array>
#include <cmath>
#include <span>
#include <vector>

#include "command.h"
#include "fuzz.h"
#include "model/architectures.h"
#include "prefill/mixing.h"
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

constexpr int64_t kVocab = 40;
constexpr int64_t kContext = 48;

ModelConfig tiny_config(int64_t layers, int64_t model_dim) {
  return make_openelm_config({.n_layers = layers,
                              .model_dim = model_dim,
                              .head_dim = 16,
                              .gqa_groups = 2,
                              .ffn_dim_divisor = 16,
                              .vocab_size = kVocab,
                              .max_context_tokens = kContext});
}

/// A plain model, a bundle with a gate, and one whose base reads the prompt itself.
const Models& models(uint8_t which) {
  static const ModelConfig auxiliary = tiny_config(2, 32);
  static const auto made = [] {
    std::array<Models, 3> all;
    all[0] = random_models(tiny_config(3, 48), nullptr, {}, WeightType::kF32, 1);
    all[1] = random_models(tiny_config(3, 48), &auxiliary, canonical_layer_map(3, 2),
                           WeightType::kF32, 1);
    all[1].gate = 0.0;
    ForecastPlan plan;
    plan.sink_tokens = 2;
    plan.exact_layers = 1;
    const ForecastInput input = {.reader = PromptReader::kBase, .kind = InputKind::kResidual};
    plan.inputs = {{}, input, input};
    all[2] = random_models(tiny_config(3, 48), nullptr, {}, WeightType::kF32, 1);
    all[2].predictor = Predictor::random(tiny_config(3, 48), {}, plan, WeightType::kF32, 1, 3);
    all[2].plan = plan;
    return all;
  }();
  return made[which % made.size()];
}

/// Nothing is pending, and the logits are numbers.
void check_read(const Sequence& sequence, std::span<const float> logits) {
  FUZZ_CHECK(sequence.pending_tokens() == 0);
  for (const float each : logits) FUZZ_CHECK(std::isfinite(each));
}

void read_in_pieces(const PrefillStrategy& strategy, const Models& models, int64_t max_rows,
                    Sequence& sequence) {
  Sequence* const one[] = {&sequence};
  std::vector<float> logits(kVocab);
  PrefillWorkspace workspace;
  PrefillReport report;
  PrefillState state = PrefillState::kMore;
  while (state == PrefillState::kMore) {
    state = strategy.advance(models, sequence, max_rows, logits.data(), workspace, {}, report);
  }
  if (state == PrefillState::kLastRun) next_logits(models, one, logits.data(), workspace);
  check_read(sequence, logits);
}

void fuzz_prompt(Input& input) {
  const Models& read_by = models(input.byte());
  const int64_t max_rows = 1 + input.byte() % kContext;
  const int64_t answer_tokens = int64_t{1} << input.byte() % 63;
  const auto strategy = PrefillStrategy::parse(input.text(64));
  if (!strategy) return check_message(strategy.error().message);
  std::vector<int32_t> tokens;
  for (const char each : input.rest()) tokens.push_back(static_cast<signed char>(each));
  const auto fits = check_prompt(**strategy, read_by, tokens);
  if (!fits) return check_message(fits.error().message);

  Sequence whole(read_by), pieces(read_by);
  pieces.tokens = whole.tokens = tokens;
  reserve_answer(**strategy, read_by, whole, std::ssize(tokens), answer_tokens);
  Sequence* const one[] = {&whole};
  std::vector<float> logits(kVocab);
  PrefillWorkspace workspace;
  (*strategy)->prefill(read_by, one, logits.data(), workspace, {});
  check_read(whole, logits);
  read_in_pieces(**strategy, read_by, max_rows, pieces);
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
    case 'r':
      fuzz_prompt(input);
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
