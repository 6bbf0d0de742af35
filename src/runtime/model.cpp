#include "kvcast/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>

#include "base/macros.h"
#include "base/processors.h"
#include "io/gguf.h"
#include "kernels/isa.h"
#include "model/bundle.h"
#include "model/checkpoint.h"
#include "model/model_text.h"
#include "prefill/strategy.h"
#include "runtime/model_impl.h"
#include "tokenizer/tokenizer_files.h"

namespace kvcast {
namespace {

constexpr int kMaxThreads = 1024;

/// A tokenizer is optional: models without one still work on token ids.
Status load_model_tokenizer(Model::Impl& impl, const std::filesystem::path& base_directory,
                            const std::filesystem::path& explicit_file) {
  impl.tokenizer_hint = fmt::format("{}: no {}; give one with --tokenizer FILE",
                                    base_directory.string(), fmt::join(kTokenizerFiles, " or "));
  KVCAST_TRY(impl.tokenizer, open_tokenizer(base_directory, explicit_file));
  if (!impl.tokenizer) return {};
  return check_tokenizer(*impl.tokenizer, impl.tokenizer->source(), impl.models.base->config());
}

}  // namespace

Status check_tokenizer(const Tokenizer& tokenizer, const std::filesystem::path& file,
                       const ModelConfig& model) {
  if (tokenizer.vocab_size() <= model.vocab_size) return {};
  return fail(fmt::format("{}: {} tokens, but the model's vocab_size is {}", file.string(),
                          tokenizer.vocab_size(), model.vocab_size));
}

KvType kv_type_of(Dtype asked, Dtype weights) {
  if (asked == Dtype::kInt8) return KvType::kInt8;
  const Dtype chosen = asked == Dtype::kAuto ? weights : asked;
  return chosen == Dtype::kF32 ? KvType::kF32 : KvType::kBf16;
}

Dtype dtype_of(KvType type) {
  if (type == KvType::kInt8) return Dtype::kInt8;
  return type == KvType::kF32 ? Dtype::kF32 : Dtype::kBf16;
}

Dtype dtype_of(WeightType type) {
  switch (type) {
    case WeightType::kF32:
      return Dtype::kF32;
    case WeightType::kBf16:
      return Dtype::kBf16;
    case WeightType::kInt8:
      return Dtype::kInt8;
    case WeightType::kInt4Blocks:
      return Dtype::kInt4;
    case WeightType::kInt8Blocks:
      break;
  }
  return Dtype::kInt8Blocks;
}

std::optional<WeightType> weight_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF32:
      return WeightType::kF32;
    case Dtype::kBf16:
      return WeightType::kBf16;
    case Dtype::kInt8:
      return WeightType::kInt8;
    case Dtype::kInt4:
      return WeightType::kInt4Blocks;
    case Dtype::kInt8Blocks:
      return WeightType::kInt8Blocks;
    case Dtype::kAuto:
      break;
  }
  return std::nullopt;
}

Result<Dtype> parse_dtype(std::string_view name) {
  for (const Dtype dtype :
       {Dtype::kAuto, Dtype::kF32, Dtype::kBf16, Dtype::kInt8, Dtype::kInt4, Dtype::kInt8Blocks}) {
    if (name == dtype_text(dtype)) return dtype;
  }
  return fail(fmt::format(
      "unknown dtype \"{}\": expected auto, f32, bf16, int8, int4 or int8-blocks", name));
}

Result<Dtype> parse_kv_dtype(std::string_view name) {
  for (const Dtype dtype : {Dtype::kAuto, Dtype::kF32, Dtype::kBf16, Dtype::kInt8}) {
    if (name == dtype_text(dtype)) return dtype;
  }
  return fail(fmt::format("unknown KV dtype \"{}\": expected auto, f32, bf16 or int8", name));
}

std::string_view dtype_text(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF32:
      return "f32";
    case Dtype::kBf16:
      return "bf16";
    case Dtype::kInt8:
      return "int8";
    case Dtype::kInt4:
      return "int4";
    case Dtype::kInt8Blocks:
      return "int8-blocks";
    case Dtype::kAuto:
      break;
  }
  return "auto";
}

Result<std::shared_ptr<const Model>> Model::load(const std::filesystem::path& directory,
                                                 const LoadOptions& options) {
  try {
    return Impl::load(directory, options);
  } catch (const std::bad_alloc&) {
    return fail(fmt::format("{}: not enough memory for the weights", directory.string()));
  }
}

Result<std::shared_ptr<const Model>> Model::Impl::load(const std::filesystem::path& directory,
                                                       const LoadOptions& options) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(directory, ignored) && !is_gguf_file(directory)) {
    return fail(
        fmt::format("{}: expected a model directory with config.json, a bundle with kvcast.json "
                    "or a GGUF file",
                    directory.string()));
  }
  if (options.threads < 0 || options.threads > kMaxThreads) {
    return fail(fmt::format("threads: {} is not within 0..{}", options.threads, kMaxThreads));
  }
  KVCAST_CHECK(parse_kv_dtype(dtype_text(options.kv_dtype)));
  KVCAST_CHECK(isa_from_environment());  // a KVCAST_ISA that cannot be met is an error here
  const int threads = options.threads > 0 ? options.threads : available_processors();
  auto impl = std::make_unique<Impl>();
  impl->path = directory;
  KVCAST_TRY(impl->models, load_models(directory, weight_type(options.dtype), threads));
  impl->dtype = dtype_of(impl->models.base->weights().main_type());
  impl->models.kv_type = kv_type_of(options.kv_dtype, impl->dtype);
  impl->default_prefill = impl->models.is_bundle() ? "kv-prediction" : "exact";
  std::filesystem::path base_directory = directory;
  if (kvcast::is_bundle(directory)) {
    KVCAST_TRY(const BundleManifest manifest, read_bundle_manifest(directory));
    base_directory = manifest.base;
    if (!manifest.default_prefill.empty()) impl->default_prefill = manifest.default_prefill;
  }
  auto strategy = PrefillStrategy::parse(impl->default_prefill);
  if (!strategy) {
    return fail(fmt::format("{}: default_prefill: {}", (directory / "kvcast.json").string(),
                            strategy.error().message));
  }
  KVCAST_CHECK(load_model_tokenizer(*impl, base_directory, options.tokenizer));
  return std::shared_ptr<const Model>(new Model(std::move(impl)));
}

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::~Model() = default;

bool Model::is_bundle() const { return impl_->models.is_bundle(); }
bool Model::has_tokenizer() const { return impl_->tokenizer != nullptr; }
int64_t Model::vocab_size() const { return impl_->models.base->config().vocab_size; }
int64_t Model::context_tokens() const { return impl_->models.base->config().max_context_tokens; }
int Model::threads() const { return impl_->models.base->threads(); }
Dtype Model::dtype() const { return impl_->dtype; }
Dtype Model::kv_dtype() const { return dtype_of(impl_->models.kv_type); }
int64_t Model::weight_bytes() const { return impl_->models.weight_bytes(); }
const std::string& Model::default_prefill() const { return impl_->default_prefill; }

Result<std::vector<int32_t>> Model::tokenize(std::string_view text, bool add_bos) const {
  if (!impl_->tokenizer) return fail(impl_->tokenizer_hint);
  return impl_->tokenizer->encode(text, add_bos);
}

Result<std::string> Model::detokenize(std::span<const int32_t> tokens) const {
  if (!impl_->tokenizer) return fail(impl_->tokenizer_hint);
  return impl_->tokenizer->decode(tokens);
}

}  // namespace kvcast
