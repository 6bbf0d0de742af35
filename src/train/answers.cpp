#include "train/answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <numeric>

#include "train/data/error.h"
#include "train/data/random.h"
#include "train/data/shard_index.h"
#include "train/model_files.h"

namespace kvcast::train {
namespace {

using Chats = std::vector<std::vector<int32_t>>;

Chats read_prompts(const std::filesystem::path& path) {
  const auto file = unwrap(Safetensors::open(path));
  const auto tensor = [&](const char* name) {
    const auto found = file->find(name);
    if (!found || found->dtype != DType::kI64) {
      throw TrainError(
          fmt::format("{}: tensor {}: expected I64, as `prompts` writes it", path.string(), name));
    }
    return to_tensor(*found).contiguous();
  };
  const Tensor tokens = tensor("tokens"), ends = tensor("ends");
  const auto* ids = tokens.data_ptr<int64_t>();
  Chats prompts;
  int64_t first = 0;
  for (int64_t i = 0; i < ends.numel(); ++i) {
    const int64_t end = ends.data_ptr<int64_t>()[i];
    if (end <= first || end > tokens.numel()) {
      throw TrainError(fmt::format("{}: prompt {} ends at {}, expected {} to {}", path.string(), i,
                                   end, first + 1, tokens.numel()));
    }
    prompts.emplace_back(ids + first, ids + end);
    first = end;
  }
  return prompts;
}

/// One of the tokens that `logits` [B, V] make likely. [B]
Tensor sampled(const Tensor& logits, double temperature) {
  if (temperature <= 0.0) return logits.argmax(-1);
  // The largest of logit + Gumbel noise is a draw from the softmax.
  const Tensor noise = at::empty_like(logits).exponential_().log_();
  return (logits / temperature - noise).argmax(-1);
}

/// Blocks of whole sequences.
class BlockWriter {
 public:
  BlockWriter(const std::filesystem::path& directory, const std::string& stem,
              int64_t bytes_per_token, int64_t block_tokens)
      : name_(stem + "-00000.tok"),
        writer_(directory / name_, bytes_per_token),
        block_tokens_(block_tokens) {}

  void add(const std::vector<int32_t>& chat) {
    const auto room = static_cast<size_t>(block_tokens_ - writer_.tokens() % block_tokens_);
    writer_.append(std::span(chat).first(std::min(room, chat.size())));
    ++split_.documents;
  }

  SplitIndex finish() {
    writer_.commit();
    split_.tokens = writer_.tokens();
    split_.shards = {{name_, split_.tokens}};
    return split_;
  }

 private:
  std::string name_;
  ShardFileWriter writer_;
  int64_t block_tokens_;
  SplitIndex split_;
};

/// The prompts' numbers: neighbours are about equally long, batches in an order by chance.
std::vector<std::vector<size_t>> batches_of(const Chats& prompts, int64_t size, uint64_t seed) {
  std::vector<size_t> order(prompts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) { return prompts[i].size(); });
  const uint64_t count = (order.size() + static_cast<size_t>(size) - 1) / static_cast<size_t>(size);
  std::vector<std::vector<size_t>> batches;
  for (uint64_t n = 0; n < count; ++n) {
    const size_t first = permute(n, count, seed) * static_cast<size_t>(size);
    const size_t end = std::min(order.size(), first + static_cast<size_t>(size));
    batches.emplace_back(order.begin() + static_cast<ptrdiff_t>(first),
                         order.begin() + static_cast<ptrdiff_t>(end));
  }
  return batches;
}

}  // namespace

Chats answer(const Model& model, const Chats& prompts, int64_t answer_tokens, double temperature,
             int32_t eos) {
  const at::NoGradGuard no_grad;
  const auto count = static_cast<int64_t>(prompts.size());
  const auto [shortest, longest] =
      std::ranges::minmax(prompts, {}, [](const auto& prompt) { return prompt.size(); });
  const auto least = static_cast<int64_t>(shortest.size());
  const int64_t most = static_cast<int64_t>(longest.size()) + answer_tokens;
  // Prompts, then -1 where the model goes on.
  Tensor ids = at::full({count, most}, -1, at::kLong);
  for (int64_t i = 0; i < count; ++i) {
    std::ranges::copy(prompts[static_cast<size_t>(i)], ids.data_ptr<int64_t>() + i * most);
  }
  const at::Device device = model.token_embeddings.device();
  ids = ids.to(device);
  DecodeCache cache = decode_cache(model, count, most);
  Tensor done = at::zeros({count}, ids.options().dtype(at::kBool));
  Tensor hidden = decode(model, ids.narrow(1, 0, least), 0, cache);
  for (int64_t at = least; at < most; ++at) {
    const Tensor next = sampled(logits(model, hidden.select(1, hidden.size(1) - 1)), temperature);
    Tensor column = ids.select(1, at);
    const Tensor free = column.lt(0);  // beyond the prompt
    column.copy_(at::where(free, next.masked_fill(done, eos), column));
    done = done.logical_or(free.logical_and(column.eq(eos)));
    // Looking at `done` waits for the device: not at every step.
    if (at % 16 == 0 && done.all().item<bool>()) break;
    if (at + 1 < most) hidden = decode(model, column.unsqueeze(1), at, cache);
  }
  const Tensor written = ids.cpu();
  Chats chats;
  for (int64_t i = 0; i < count; ++i) {
    const auto* row = written.data_ptr<int64_t>() + i * most;
    const auto prompt = static_cast<int64_t>(prompts[static_cast<size_t>(i)].size());
    int64_t end = prompt;
    while (end < prompt + answer_tokens && row[end] >= 0 && row[end] != eos) ++end;
    if (end < prompt + answer_tokens && row[end] == eos) ++end;
    chats.emplace_back(row, row + end);
  }
  return chats;
}

AnswersReport write_answers(const AnswersRecipe& recipe, const at::Device& device, bool quiet) {
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  ShardIndex index = read_shard_index(recipe.shards);
  const Chats prompts = read_prompts(recipe.prompts);
  const auto compute = recipe.precision == Precision::kBF16 ? at::kBFloat16 : at::kFloat;
  const LoadedModel base = load_model(recipe.base, {.dtype = compute, .device = device});
  size_t longest = 0;
  for (const auto& prompt : prompts) longest = std::max(longest, prompt.size());
  const Model model = bind_model(
      base.config,
      rope_table(base.config, static_cast<int64_t>(longest) + recipe.answer_tokens, device),
      base.values, "");
  at::manual_seed(recipe.seed);
  const int64_t bytes = index.bytes_per_token();
  BlockWriter train(recipe.shards, recipe.source, bytes, recipe.sequence_tokens);
  BlockWriter held_out(recipe.shards, recipe.source + "-held-out", bytes, recipe.sequence_tokens);
  AnswersReport report;
  for (const auto& batch : batches_of(prompts, recipe.batch, recipe.seed)) {
    if (recipe.max_minutes > 0 && seconds() > 60.0 * recipe.max_minutes) break;
    Chats asked;
    for (const size_t i : batch) asked.push_back(prompts[i]);
    const Chats chats = answer(model, asked, recipe.answer_tokens, recipe.temperature,
                               static_cast<int32_t>(index.eos_token));
    for (size_t n = 0; n < chats.size(); ++n) {
      const bool out = falls_in_fraction(mix(recipe.seed, batch[n]), recipe.held_out_fraction);
      (out ? held_out : train).add(chats[n]);
      ++report.chats;
      report.tokens += std::ssize(chats[n]);
    }
    report.seconds = seconds();
    if (!quiet) {
      fmt::print(stderr, "answers  {} of {} chats  {} tokens  {:.0f} s\n", report.chats,
                 prompts.size(), report.tokens, report.seconds);
    }
  }
  std::erase_if(index.sources, [&](const SourceIndex& s) { return s.name == recipe.source; });
  index.sources.push_back({.name = recipe.source,
                           .epochs = recipe.epochs,
                           .block_tokens = recipe.sequence_tokens,
                           .train = train.finish(),
                           .held_out = held_out.finish()});
  write_shard_index(recipe.shards, index);
  return report;
}

}  // namespace kvcast::train
