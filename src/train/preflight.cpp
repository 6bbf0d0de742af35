#include "train/preflight.h"

#include <fmt/format.h>

#include "base/mapped_file.h"
#include "model/architectures.h"
#include "model/bundle.h"
#include "model/checkpoint.h"
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

/// Two folders' tokenizers, as far as both have one in the same form.
void check_same_tokenizer(const fs::path& one, const fs::path& other) {
  for (const char* name : {"tokenizer.model", "tokenizer.json"}) {
    const fs::path a = one / name, b = other / name;
    if (!fs::exists(a) || !fs::exists(b) || fs::equivalent(a, b)) continue;
    if (unwrap(read_text_file(a)) == unwrap(read_text_file(b))) continue;
    throw TrainError(fmt::format("{}: expected the same tokenizer as {}", a.string(), b.string()));
  }
}

}  // namespace

void check_model(const fs::path& model, const DataRecipe& data, const ShardIndex& index) {
  const Checkpoint checkpoint = unwrap(open_checkpoint(model));
  check_fits(checkpoint.config, data, index);
  check_tensors(checkpoint);
  check_same_tokenizer(model, data.shards);
}

void check_pair(const PairRecipe& pair, const DataRecipe& data, const ShardIndex& index) {
  const Checkpoint base = unwrap(open_checkpoint(pair.base));
  if (!pair.keep.empty()) {
    unwrap(layer_pruned_kept_layers(base.config.n_layers(), pair.keep));
  } else {
    const Checkpoint auxiliary = unwrap(open_checkpoint(pair.auxiliary));
    if (base.config.vocab_size != auxiliary.config.vocab_size) {
      throw TrainError(fmt::format(
          "{}: a vocabulary of {}, the base has {}; both need the same tokenizer",
          pair.auxiliary.string(), auxiliary.config.vocab_size, base.config.vocab_size));
    }
    check_same_tokenizer(pair.auxiliary, pair.base);
    check_fits(auxiliary.config, data, index);
    check_tensors(auxiliary);
    if (!pair.layer_map.empty()) {
      unwrap(check_layer_map(pair.layer_map, base.config, auxiliary.config, "layer_map"));
    }
  }
  check_model(pair.base, data, index);
}

}  // namespace kvcast::train
