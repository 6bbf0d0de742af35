// Any bytes as config.json, generation_config.json, kvcast.json or model.safetensors.index.json.
// What is accepted as a config must survive being written and read again.
#include <string>

#include "fuzz.h"
#include "io/safetensors.h"
#include "model/bundle.h"
#include "model/config.h"
#include "support/gguf_bytes.h"

namespace kvcast {
namespace {

/// A bundle whose files are replaced one at a time, in a folder that has a model in GGUF too.
class Bundle : public ScratchDirectory {
 public:
  Bundle() {
    for (const char* part : {"base", "auxiliary"}) {
      std::filesystem::create_directories(folder() / part);
      std::filesystem::copy(
          KVCAST_SOURCE_DIR / "tests/golden/openelm-tiny-kvp-c" / part / "config.json",
          folder() / part);
    }
    write("named.gguf", named_model());
  }
  [[nodiscard]] std::filesystem::path folder() const { return path() / "bundle"; }
  void write_in(std::string_view name, std::string_view contents) const {
    write("bundle/" + std::string(name), contents);
  }

 private:
  /// The configuration of a Llama with the base's vocabulary, and next to no weights.
  static std::string named_model() {
    const auto whole = [](std::string_view key, uint32_t value) {
      return gguf_pair(key, GgufType::kU32, little_endian(value));
    };
    GgufBytes file;
    file.pairs = {
        gguf_pair("general.architecture", GgufType::kString, gguf_string("llama")),
        whole("llama.embedding_length", 32),
        whole("llama.block_count", 2),
        whole("llama.feed_forward_length", 32),
        whole("llama.attention.head_count", 2),
        whole("llama.context_length", 64),
        gguf_pair("llama.attention.layer_norm_rms_epsilon", GgufType::kF32, little_endian(1e-5F)),
    };
    constexpr uint64_t kVocab = 96;
    file.tensors = {gguf_tensor("token_embd.weight", {32, kVocab}, 0, 0)};
    file.data.resize(32 * kVocab * sizeof(float));
    return file.str();
  }
};

/// Both files of a model, with a NUL between them; the second may be missing.
void fuzz_config(const Bundle& directory, std::string_view text) {
  const size_t end = std::min(text.find('\0'), text.size());
  directory.write("config.json", text.substr(0, end));
  if (end < text.size()) directory.write("generation_config.json", text.substr(end + 1));
  const auto config = read_model_config(directory.path());
  std::filesystem::remove(directory.path() / "generation_config.json");
  if (!config) return check_message(config.error().message);
  FUZZ_CHECK(config->parameter_count() > 0);
  directory.write("config.json", to_config_json(*config));
  const auto again = read_model_config(directory.path());
  if (!again) std::fprintf(stderr, "%s\n", again.error().message.c_str());
  FUZZ_CHECK(again.has_value());
  FUZZ_CHECK(*config == *again);
}

void fuzz_manifest(const Bundle& directory, std::string_view text) {
  directory.write_in("kvcast.json", text);
  const auto manifest = read_bundle_manifest(directory.folder());
  if (!manifest) return check_message(manifest.error().message);
  const auto base = read_model_config(manifest->base);
  FUZZ_CHECK(base.has_value());
  const int64_t layers = base->n_layers();
  int64_t auxiliary_layers = 0;
  if (!manifest->auxiliary.empty()) {
    const auto auxiliary = read_model_config(manifest->auxiliary);
    FUZZ_CHECK(auxiliary.has_value() && auxiliary->vocab_size == base->vocab_size);
    auxiliary_layers = auxiliary->n_layers();
  }
  const ForecastPlan& plan = manifest->plan;
  FUZZ_CHECK(plan.base_layers() == layers && plan.exact_layers >= 0 && plan.exact_layers <= layers);
  for (int64_t i = plan.exact_layers; i < layers; ++i) {
    const ForecastInput& input = plan.inputs[i];
    const bool of_base = input.reader == PromptReader::kBase;
    FUZZ_CHECK(input.layer >= 0 && input.layer < (of_base ? plan.exact_layers : auxiliary_layers));
    for (const int64_t layer : input.earlier) FUZZ_CHECK(layer >= 0 && layer < input.layer);
  }
  for (const auto* stands_in : {&manifest->shared_layers, &manifest->adapted_layers}) {
    FUZZ_CHECK(stands_in->empty() || std::ssize(*stands_in) == auxiliary_layers);
    for (const int64_t layer : *stands_in) FUZZ_CHECK(layer >= -1 && layer < layers);
  }
  const auto inside = manifest->predictor.lexically_relative(directory.folder());
  FUZZ_CHECK(!inside.empty() && *inside.begin() != "..");
}

void fuzz_index(const Bundle& directory, std::string_view text) {
  directory.write_in("model.safetensors.index.json", text);
  const auto checkpoint = Safetensors::open_checkpoint(directory.folder());
  FUZZ_CHECK(!checkpoint);  // there are no shards
  check_message(checkpoint.error().message);
}

}  // namespace
}  // namespace kvcast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvcast;
  static const Bundle directory;
  Input input(data, size);
  switch (input.byte()) {
    case 'c':
      fuzz_config(directory, input.rest());
      break;
    case 'b':
      fuzz_manifest(directory, input.rest());
      break;
    case 'i':
      fuzz_index(directory, input.rest());
      break;
    default:
      break;
  }
  return 0;
}
