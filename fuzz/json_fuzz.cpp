// Any bytes as config.json, kvcast.json or model.safetensors.index.json. What is accepted as a
// config must survive being written and read again.
#include "fuzz.h"
#include "io/safetensors.h"
#include "model/bundle.h"
#include "model/config.h"

namespace kvcast {
namespace {

/// A bundle whose files are replaced one at a time.
class Bundle : public ScratchDirectory {
 public:
  Bundle() {
    for (const char* part : {"base", "auxiliary"}) {
      std::filesystem::create_directory(path() / part);
      std::filesystem::copy(
          KVCAST_SOURCE_DIR / "tests/golden/openelm-tiny-kvp-c" / part / "config.json",
          path() / part);
    }
  }
};

void fuzz_config(const ScratchDirectory& directory, std::string_view text) {
  directory.write("config.json", text);
  const auto config = read_model_config(directory.path());
  if (!config) return check_message(config.error().message);
  FUZZ_CHECK(config->parameter_count() > 0);
  directory.write("config.json", to_config_json(*config));
  const auto again = read_model_config(directory.path());
  if (!again) std::fprintf(stderr, "%s\n", again.error().message.c_str());
  FUZZ_CHECK(again.has_value());
  FUZZ_CHECK(*config == *again);
}

void fuzz_manifest(const ScratchDirectory& directory, std::string_view text) {
  directory.write("kvcast.json", text);
  const auto manifest = read_bundle_manifest(directory.path());
  if (!manifest) return check_message(manifest.error().message);
  const ForecastPlan& plan = manifest->plan;
  FUZZ_CHECK(plan.base_layers() == 5 && plan.exact_layers >= 0 && plan.exact_layers <= 5);
  for (int64_t i = plan.exact_layers; i < 5; ++i) {
    const ForecastInput& input = plan.inputs[i];
    const bool of_base = input.reader == PromptReader::kBase;
    FUZZ_CHECK(input.layer >= 0 && input.layer < (of_base ? plan.exact_layers : 3));
  }
  const auto inside = manifest->predictor.lexically_relative(directory.path());
  FUZZ_CHECK(!inside.empty() && *inside.begin() != "..");
}

void fuzz_index(const ScratchDirectory& directory, std::string_view text) {
  directory.write("model.safetensors.index.json", text);
  const auto checkpoint = Safetensors::open_checkpoint(directory.path());
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
