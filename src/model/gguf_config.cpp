#include "model/gguf_config.h"

#include <fmt/format.h>

#include <map>
#include <string>

#include "base/macros.h"
#include "io/json.h"
#include "model/json_fields.h"

namespace kvcast {
namespace {

struct Key {
  std::string_view gguf;  // begins with the architecture, if with "."
  const char* config;
  bool whole;
};
constexpr Key kKeys[] = {
    {".embedding_length", "hidden_size", true},
    {".block_count", "num_hidden_layers", true},
    {".feed_forward_length", "intermediate_size", true},
    {".attention.head_count", "num_attention_heads", true},
    {".attention.head_count_kv", "num_key_value_heads", true},
    {".attention.key_length", "head_dim", true},
    {".attention.layer_norm_rms_epsilon", "rms_norm_eps", false},
    {".attention.sliding_window", "sliding_window", true},
    {".context_length", "max_position_embeddings", true},
    {".rope.freq_base", "rope_theta", false},
    {"tokenizer.ggml.bos_token_id", "bos_token_id", true},
};
constexpr std::string_view kEndTokens[] = {"tokenizer.ggml.eos_token_id",
                                           "tokenizer.ggml.eot_token_id"};
constexpr std::string_view kEmbeddings = "token_embd.weight", kLmHead = "output.weight",
                           kQueryBias = "blk.0.attn_q.bias", kRopeFactors = "rope_freqs.weight";

/// One file's translation.
class Translator {
 public:
  Translator(const Gguf& file, std::string architecture)
      : file_(file), values_(file.values()), architecture_(std::move(architecture)) {}

  Result<ModelConfig> read(const ModelFamily& family) {
    for (const Key& key : kKeys) KVCAST_CHECK(add(key));
    KVCAST_CHECK(add_what_tensors_say());
    KVCAST_CHECK(add_end_tokens());
    KVCAST_CHECK(add_rope_scaling());
    KVCAST_CHECK(check_whole_heads());
    json_["hidden_act"] = "silu";
    json_["use_sliding_window"] = json_.contains("sliding_window");
    return family.read(JsonFields(json_, file_.path().string(), &names_));
  }

 private:
  [[nodiscard]] std::string full(std::string_view key) const {
    return key.front() == '.' ? architecture_ + std::string(key) : std::string(key);
  }

  Status add(const Key& key) {
    const std::string name = full(key.gguf);
    names_[key.config] = name;
    if (!values_.contains(name)) return {};
    if (key.whole) {
      KVCAST_TRY(json_[key.config], values_.integer(name));
    } else {
      KVCAST_TRY(json_[key.config], values_.number(name));
    }
    return {};
  }

  Status add_what_tensors_say() {
    KVCAST_TRY(const TensorView embeddings, file_.find(kEmbeddings));
    names_["vocab_size"] = fmt::format("{} rows", kEmbeddings);
    json_["vocab_size"] = embeddings.shape.front();
    json_["tie_word_embeddings"] = !file_.contains(kLmHead);
    names_["attention_bias"] = kQueryBias;
    json_["attention_bias"] = file_.contains(kQueryBias);
    return {};
  }

  Status add_end_tokens() {
    Json tokens = Json::array();
    for (const std::string_view key : kEndTokens) {
      if (!values_.contains(key)) continue;
      KVCAST_TRY(const int64_t token, values_.integer(key));
      tokens.push_back(token);
    }
    names_["eos_token_id"] = kEndTokens[0];
    json_["eos_token_id"] = std::move(tokens);
    return {};
  }

  Status add_rope_scaling() {
    if (file_.contains(kRopeFactors)) {
      KVCAST_TRY(const TensorView tensor, file_.find(kRopeFactors));
      KVCAST_TRY(const TensorView view, file_.find_float(kRopeFactors, tensor.shape));
      std::vector<float> factors(static_cast<size_t>(view.element_count()));
      to_float(view, factors);
      names_["rope_scaling"] = kRopeFactors;
      json_["rope_scaling"] = {{"rope_type", "longrope"},
                               {"attention_factor", 1.0},
                               {"short_factor", factors},
                               {"long_factor", factors}};
      return {};
    }
    const std::string key = full(".rope.scaling.type");
    if (!values_.contains(key)) return {};
    KVCAST_TRY(const std::string_view type, values_.text(key));
    if (type == "none") return {};
    names_["rope_scaling"] = key;
    json_["rope_scaling"] = {{"rope_type", type}};
    const std::string factor = full(".rope.scaling.factor");
    if (values_.contains(factor)) {
      KVCAST_TRY(json_["rope_scaling"]["factor"], values_.number(factor));
    }
    return {};
  }

  /// RoPE turns whole heads, and keys are as wide as values.
  Status check_whole_heads() const {
    const std::string key = full(".attention.key_length");
    for (const char* suffix : {".attention.value_length", ".rope.dimension_count"}) {
      const std::string other = full(suffix);
      if (!values_.contains(other)) continue;
      int64_t head_dim = 0;
      if (values_.contains(key)) {
        KVCAST_TRY(head_dim, values_.integer(key));
      } else {
        KVCAST_TRY(const int64_t width, values_.integer(full(".embedding_length")));
        KVCAST_TRY(const int64_t heads, values_.integer(full(".attention.head_count")));
        if (heads <= 0) continue;  // refused by the family
        head_dim = width / heads;
      }
      KVCAST_TRY(const int64_t found, values_.integer(other));
      if (found == head_dim) continue;
      return fail(fmt::format("{}: key \"{}\": expected the width of a head, {}, found {}",
                              file_.path().string(), other, head_dim, found));
    }
    return {};
  }

  const Gguf& file_;
  const GgufMetadata& values_;
  std::string architecture_;
  Json json_ = Json::object();
  std::map<std::string, std::string> names_;  // config.json's keys -> the file's
};

}  // namespace

Result<GgufModel> read_gguf_model(const Gguf& file) {
  KVCAST_TRY(const std::string_view architecture, file.values().text("general.architecture"));
  KVCAST_TRY(const ModelFamily* family,
             find_gguf_family(std::string(architecture), file.path().string()));
  KVCAST_TRY(ModelConfig config, Translator(file, std::string(architecture)).read(*family));
  return GgufModel{family, std::move(config)};
}

}  // namespace kvcast
