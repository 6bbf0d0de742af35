// kvcast inspect: logits, tokens and the cache of one prompt as a safetensors file.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <deque>

#include "base/macros.h"
#include "command.h"
#include "io/safetensors.h"
#include "model/kv_cache_rows.h"
#include "prefill/mixing.h"
#include "prefill/strategy.h"
#include "runtime/model_impl.h"

namespace kvcast {
namespace {

struct InspectOptions {
  ModelOptions model;
  std::string tokens;
  std::string prefill;
  int64_t steps = 0;
  std::string out;
};

/// Owns what is to be written until it has been written.
class TensorFile {
 public:
  template <typename T>
  void add(std::string name, DType dtype, std::vector<int64_t> shape, std::vector<T> values) {
    auto& stored = storage_.emplace_back(values.size() * sizeof(T));
    if (!stored.empty()) std::memcpy(stored.data(), values.data(), stored.size());
    tensors_.push_back({std::move(name), dtype, std::move(shape), stored});
  }
  Status write(const std::filesystem::path& path) const {
    return write_safetensors(path, tensors_);
  }

 private:
  std::deque<std::vector<std::byte>> storage_;  // addresses stay valid as it grows
  std::vector<TensorToWrite> tensors_;
};

void add_cache(TensorFile& file, const KVCache& cache, const Transformer& model) {
  for (int64_t layer = 0; layer < cache.n_layers(); ++layer) {
    const std::vector<int64_t> shape = {cache.kv_heads(layer), cache.rows(layer), cache.head_dim()};
    file.add(fmt::format("key.{}", layer), DType::kF32, shape,
             keys_without_rope(cache, layer, model));
    file.add(fmt::format("value.{}", layer), DType::kF32, shape, cached_values(cache, layer));
  }
}

int64_t most_probable(std::span<const float> logits) {
  return std::ranges::max_element(logits) - logits.begin();
}

Status inspect(const InspectOptions& options) {
  KVCAST_TRY(const std::vector<int32_t> prompt, parse_token_ids(options.tokens));
  KVCAST_TRY(const auto model, options.model.load());
  const Models& models = model->impl().models;
  KVCAST_TRY(
      const auto strategy,
      PrefillStrategy::parse(options.prefill.empty() ? model->default_prefill() : options.prefill));
  Sequence sequence(models);
  sequence.tokens = prompt;
  if (auto ok = check_prompt(*strategy, models, prompt); !ok) {
    return fail(std::move(ok.error().message));
  }

  const int64_t vocab = model->vocab_size();
  std::vector<float> logits(static_cast<size_t>(vocab)), step_logits;
  Sequence* const batch[] = {&sequence};
  PrefillWorkspace workspace;
  strategy->prefill(models, batch, logits.data(), workspace, {});
  const int64_t context = sequence.answering_model(models).config().max_context_tokens;
  if (options.steps > context - static_cast<int64_t>(prompt.size())) {
    return fail(fmt::format("--steps: {} steps after {} prompt tokens exceed the context of {}",
                            options.steps, prompt.size(), context));
  }
  TensorFile file;
  file.add("prompt_logits", DType::kF32, {vocab}, logits);
  add_cache(file, sequence.answering_cache(), sequence.answering_model(models));
  std::vector<int64_t> tokens = {most_probable(logits)};
  for (int64_t step = 0; step < options.steps; ++step) {
    sequence.tokens.push_back(static_cast<int32_t>(tokens.back()));
    next_logits(models, batch, logits.data(), workspace);
    step_logits.insert(step_logits.end(), logits.begin(), logits.end());
    tokens.push_back(most_probable(logits));
  }
  file.add("step_logits", DType::kF32, {options.steps, vocab}, step_logits);
  const auto count = static_cast<int64_t>(tokens.size());
  file.add("tokens", DType::kI64, {count}, tokens);
  return file.write(options.out);
}

}  // namespace

void register_inspect(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App& command = *app.add_subcommand(
      "inspect", "write logits, greedy tokens and the KV cache of a prompt to a file");
  options->model.add_to(command);
  command.add_option("--tokens", options->tokens, "token ids of the prompt, e.g. \"5 17 3\"")
      ->check(checked_by(parse_token_ids))
      ->required();
  command.add_option("--prefill", options->prefill, "prefill strategy (default: the model's)")
      ->check(is_prefill_spec());
  command.add_option("--steps", options->steps, "decode steps after the prompt")
      ->check(is_whole_number(0))
      ->capture_default_str();
  command.add_option("--out", options->out, "safetensors file to write")->required();
  command.callback([options, &exit_code] {
    const Status status = inspect(*options);
    exit_code = status ? kExitOk : report_error(status.error());
  });
}

}  // namespace kvcast
