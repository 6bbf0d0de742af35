#include "model/config.h"

#include <cmath>

#include "base/macros.h"
#include "model/families/common.h"
#include "model/family.h"
#include "model/gguf_config.h"

namespace kvcast {

std::vector<double> Rope::frequencies(int64_t head_dim) const {
  std::vector<double> frequencies;
  for (int64_t j = 0; j < head_dim / 2; ++j) {
    const double exponent = -2.0 * static_cast<double>(j) / static_cast<double>(head_dim);
    const double factor = factors.empty() ? 1.0 : static_cast<double>(factors[j]);
    frequencies.push_back(std::pow(static_cast<double>(theta), exponent) / factor);
  }
  return frequencies;
}

void ModelConfig::use_tokens(int64_t count) {
  unused_tokens += vocab_size - count;
  vocab_size = count;
}

int64_t ModelConfig::parameter_count() const {
  int64_t count = 0;
  for (const Weight& weight : model_weights(*this)) count += weight.elements();
  return count;
}

Result<ModelConfig> read_model_config(const std::filesystem::path& model) {
  if (is_gguf_file(model)) {
    KVCAST_TRY(const auto file, Gguf::open(model));
    return read_gguf_model(*file).map([](GgufModel read) { return std::move(read.config); });
  }
  const auto path = model / "config.json";
  KVCAST_TRY(const Json json, read_json_object(path));
  const JsonFields fields(json, path.string());
  KVCAST_TRY(const ModelFamily* family, find_family(fields));
  KVCAST_TRY(ModelConfig config, family->read(fields));
  const auto generation = model / "generation_config.json";
  std::error_code ignored;
  if (std::filesystem::exists(generation, ignored)) {
    KVCAST_TRY(const Json settings, read_json_object(generation));
    KVCAST_CHECK(read_end_tokens(JsonFields(settings, generation.string()), config));
  }
  return config;
}

std::string to_config_json(const ModelConfig& config) {
  return family_of(config).write(config).dump(1) + "\n";
}

}  // namespace kvcast
