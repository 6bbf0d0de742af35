#include "train/preflight.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/mapped_file.h"
#include "model/architectures.h"
#include "model/bundle.h"
#include "model/checkpoint.h"
#include "model/model_text.h"
#include "model/weight_reader.h"
#include "train/data/error.h"
#include "train/pair.h"

namespace kvcast::train {
namespace {

namespace fs = std::filesystem;

/// Every weight is there in its shape; none is read.
void check_tensors(const Checkpoint& checkpoint) {
  const auto reader = unwrap(WeightReader::open(checkpoint.weights, std::nullopt, 1));
  for (const auto& entry : tensor_layout(checkpoint.config, kTrainedForm, checkpoint.form)) {
    unwrap(reader.check(entry));
  }
}

/// That the shards were made with this tokenizer, as far as both folders have it in one form.
void check_same_tokenizer(const fs::path& model, const DataRecipe& data) {
  const fs::path own = model / "tokenizer.model", other = data.shards / "tokenizer.model";
  if (!fs::exists(own) || !fs::exists(other)) return;
  if (unwrap(read_text_file(own)) == unwrap(read_text_file(other))) return;
  throw TrainError(
      fmt::format("{}: expected the same tokenizer as {}", own.string(), other.string()));
}

void check_checkpoint(const Checkpoint& checkpoint, const DataRecipe& data,
                      const ShardIndex& index) {
  check_fits(checkpoint.config, data, index);
  check_tensors(checkpoint);
  check_same_tokenizer(checkpoint.path, data);
}

}  // namespace

void check_model(const fs::path& model, const DataRecipe& data, const ShardIndex& index) {
  check_checkpoint(unwrap(open_checkpoint(model)), data, index);
}

void check_pair(const PairRecipe& pair, const DataRecipe& data, const ShardIndex& index) {
  Checkpoint base = unwrap(open_checkpoint(pair.base));
  if (!pair.keep.empty()) {
    unwrap(layer_pruned_kept_layers(base.config.n_layers(), pair.keep));
    return check_checkpoint(base, data, index);
  }
  Checkpoint auxiliary = unwrap(open_checkpoint(pair.auxiliary));
  unwrap(check_same_tokens({pair.base, base.config.vocab_size},
                           {pair.auxiliary, auxiliary.config.vocab_size}, "auxiliary"));
  // One tokenizer may be padded to two sizes.
  const int64_t tokens = std::min(base.config.vocab_size, auxiliary.config.vocab_size);
  base.config.use_tokens(tokens);
  auxiliary.config.use_tokens(tokens);
  if (!pair.layer_map.empty()) {
    unwrap(check_layer_map(pair.layer_map, base.config, auxiliary.config, "layer_map"));
  }
  check_checkpoint(base, data, index);
  check_checkpoint(auxiliary, data, index);
}

}  // namespace kvcast::train
