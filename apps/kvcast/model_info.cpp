#include "model_info.h"

#include "base/macros.h"
#include "io/safetensors.h"
#include "model/checkpoint.h"
#include "model/model_text.h"

namespace kvcast {
namespace {

std::map<std::string, Stored> count_stored(const TensorSource& file) {
  std::map<std::string, Stored> stored;
  for (const auto& [name, tensor] : file.tensors()) {
    Stored& of_dtype = stored[std::string(dtype_name(tensor.dtype))];
    of_dtype.tensors += 1;
    of_dtype.elements += tensor.element_count();
    of_dtype.bytes += static_cast<int64_t>(tensor.bytes.size());
  }
  return stored;
}

Result<ModelInfo> gather_model(const std::filesystem::path& directory) {
  ModelInfo info;
  info.directory = directory;
  KVCAST_TRY(Checkpoint checkpoint, open_checkpoint(directory));
  info.config = std::move(checkpoint.config);
  info.stored = count_stored(*checkpoint.weights);
  return info;
}

}  // namespace

Result<Info> gather_info(const std::filesystem::path& path) {
  Info info;
  info.path = path;
  std::filesystem::path model = path;
  if (is_bundle(path)) {
    BundleInfo bundle;
    KVCAST_TRY(bundle.manifest, read_bundle_manifest(path));
    if (!bundle.manifest.auxiliary.empty()) {
      KVCAST_TRY(bundle.auxiliary, gather_model(bundle.manifest.auxiliary));
    }
    KVCAST_TRY(const auto predictor, Safetensors::open(bundle.manifest.predictor));
    bundle.predictor = count_stored(*predictor);
    model = bundle.manifest.base;
    info.bundle = std::move(bundle);
  }
  KVCAST_TRY(info.model, gather_model(model));
  KVCAST_TRY(const auto tokenizer, open_tokenizer(model));
  if (tokenizer) {
    info.tokenizer = {tokenizer->source(), tokenizer->vocab_size(), tokenizer->bos_token(),
                      tokenizer->eos_token()};
  }
  return info;
}

}  // namespace kvcast
