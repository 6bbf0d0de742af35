#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/macros.h"
#include "base/table.h"
#include "command.h"
#include "model/flops.h"
#include "model/kv_cache.h"
#include "model/plan_json.h"
#include "model_info.h"
#include "models_folder.h"

namespace kvcast {
namespace {

using OrderedJson = nlohmann::ordered_json;

// ---- text ----

std::string stored_text(const std::map<std::string, Stored>& stored) {
  std::string text;
  for (const auto& [dtype, of_dtype] : stored) {
    text += fmt::format("{}{} {} tensors, {} bytes", text.empty() ? "" : "; ", dtype,
                        of_dtype.tensors, with_thousands(of_dtype.bytes));
  }
  return text;
}

int64_t layer_parameters(const ModelConfig& config, int64_t layer) {
  ModelConfig without = config;
  without.layers.erase(without.layers.begin() + layer);
  return config.parameter_count() - without.parameter_count();
}

std::string model_text(std::string_view role, const ModelInfo& info) {
  const ModelConfig& config = info.config;
  std::string text = fmt::format(
      "{}: {}\n  family {}, {} parameters, {} layers, model_dim {}, head_dim {}, vocabulary {}, "
      "context {} "
      "tokens\n  embeddings {}, q/k norm {}, q/k/v bias {}, RoPE theta {:g}{}\n  stored: {}\n"
      "  keys and values of a token: {} bytes in f32, {} in bf16, {} in int8 (--kv-dtype)\n\n",
      role, info.directory.string(), config.family, with_thousands(config.parameter_count()),
      config.n_layers(), config.model_dim, config.head_dim, config.vocab_size,
      config.max_context_tokens, config.tied_embeddings ? "tied" : "untied",
      config.normalize_qk ? "on" : "off", config.qkv_bias ? "on" : "off", config.rope.theta,
      config.rope.factors.empty() ? "" : " with scaled frequencies", stored_text(info.stored),
      with_thousands(kv_token_bytes(config, KvType::kF32)),
      with_thousands(kv_token_bytes(config, KvType::kBf16)),
      with_thousands(kv_token_bytes(config, KvType::kInt8)));
  Table table;
  table.headers = {"layer",    "query heads", "KV heads",  "query width",
                   "KV width", "FFN width",   "parameters"};
  for (int64_t i = 0; i < config.n_layers(); ++i) {
    const LayerConfig& layer = config.layers[i];
    table.rows.push_back({std::to_string(i), std::to_string(layer.query_heads),
                          std::to_string(layer.kv_heads), std::to_string(config.query_width(i)),
                          std::to_string(config.kv_width(i)), std::to_string(layer.ffn_dim),
                          with_thousands(layer_parameters(config, i))});
  }
  return text + table.to_markdown() + "\n";
}

int64_t flops_prompt_tokens(const Info& info) {
  return std::min<int64_t>(512, info.model.config.max_context_tokens);
}

std::string plan_text(const ForecastPlan& plan) {
  if (const auto map = plan.layer_map(); !map.empty()) {
    return fmt::format("layer map: {}", fmt::join(map, " "));
  }
  std::string text = fmt::format(
      "{} exact layers, {} sink tokens; base layer <- input:", plan.exact_layers, plan.sink_tokens);
  for (int64_t i = plan.exact_layers; i < plan.base_layers(); ++i) {
    const ForecastInput& input = plan.inputs[i];
    text += fmt::format(" {}<-{} ", i, prompt_reader_name(input.reader));
    for (const int64_t layer : input.earlier) text += fmt::format("{}+", layer);
    text += fmt::format("{} {}", input.layer, input_kind_name(input.kind));
  }
  return text;
}

/// The paper's, or, where the base's own layers read the prompt, by the same approximation.
double approximate_reduction(const ModelConfig& base, const ModelConfig& auxiliary,
                             const ForecastPlan& plan, int64_t tokens) {
  if (plan.exact_layers == 0) return paper_reduction(base, auxiliary);
  return approximate_exact_flops(base, tokens) /
         approximate_kv_prediction_flops(base, auxiliary, plan, tokens);
}

std::string bundle_text(const Info& info) {
  const auto& [manifest, auxiliary, predictor] = *info.bundle;
  const ModelConfig& base = info.model.config;
  const int64_t tokens = flops_prompt_tokens(info);
  const double exact = exact_cost(base, tokens).total();
  const double predicted =
      kv_prediction_cost(base, auxiliary.config, manifest.plan, tokens).total();
  return fmt::format(
      "predictor: {}\n  {} parameters\n  stored: {}\n{}\n{}"
      "prefill of {} tokens: exact {:.4g} GFLOP, kv-prediction {:.4g} GFLOP, reduction {:.2f} "
      "(the paper's approximation: {:.2f})\n",
      manifest.predictor.string(),
      with_thousands(predictor_parameter_count(base, auxiliary.config, manifest.plan)),
      stored_text(predictor), plan_text(manifest.plan),
      manifest.default_prefill.empty()
          ? ""
          : fmt::format("default prefill: {}\n", manifest.default_prefill),
      tokens, exact * 1e-9, predicted * 1e-9, exact / predicted,
      approximate_reduction(base, auxiliary.config, manifest.plan, tokens));
}

std::string to_text(const Info& info) {
  std::string text;
  if (info.bundle) {
    text += fmt::format("KV-prediction bundle: {}\n\n", info.path.string());
    text += model_text("base", info.model);
    if (!info.bundle->manifest.auxiliary.empty()) {
      text += model_text("auxiliary", info.bundle->auxiliary);
    }
    text += bundle_text(info);
  } else {
    text += model_text("model", info.model);
  }
  if (info.tokenizer) {
    text += fmt::format("tokenizer: {}, {} pieces, BOS {}, EOS {}", info.tokenizer->file.string(),
                        info.tokenizer->vocab_size, info.tokenizer->bos_token,
                        info.tokenizer->eos_token);
  } else {
    text += "tokenizer: none; give one with --tokenizer FILE";
  }
  return text;
}

// ---- JSON ----

OrderedJson stored_json(const std::map<std::string, Stored>& stored) {
  OrderedJson json = OrderedJson::object();
  for (const auto& [dtype, of_dtype] : stored) {
    json[dtype] = {
        {"tensors", of_dtype.tensors}, {"elements", of_dtype.elements}, {"bytes", of_dtype.bytes}};
  }
  return json;
}

OrderedJson model_json(const ModelInfo& info) {
  const ModelConfig& config = info.config;
  OrderedJson layers = OrderedJson::array();
  for (int64_t i = 0; i < config.n_layers(); ++i) {
    layers.push_back({{"query_heads", config.layers[i].query_heads},
                      {"kv_heads", config.layers[i].kv_heads},
                      {"query_width", config.query_width(i)},
                      {"kv_width", config.kv_width(i)},
                      {"ffn_dim", config.layers[i].ffn_dim},
                      {"parameters", layer_parameters(config, i)}});
  }
  return {{"directory", info.directory.string()},
          {"family", config.family},
          {"parameters", config.parameter_count()},
          {"model_dim", config.model_dim},
          {"head_dim", config.head_dim},
          {"vocab_size", config.vocab_size},
          {"context_tokens", config.max_context_tokens},
          {"tied_embeddings", config.tied_embeddings},
          {"normalize_qk", config.normalize_qk},
          {"qkv_bias", config.qkv_bias},
          {"eos_tokens", config.eos_tokens},
          {"rope_theta", config.rope.theta},
          {"stored", stored_json(info.stored)},
          {"kv_token_bytes",
           {{"f32", kv_token_bytes(config, KvType::kF32)},
            {"bf16", kv_token_bytes(config, KvType::kBf16)},
            {"int8", kv_token_bytes(config, KvType::kInt8)}}},
          {"layers", std::move(layers)}};
}

OrderedJson bundle_json(const Info& info) {
  const auto& [manifest, auxiliary, predictor] = *info.bundle;
  const ModelConfig& base = info.model.config;
  const int64_t tokens = flops_prompt_tokens(info);
  const double exact = exact_cost(base, tokens).total();
  const double predicted =
      kv_prediction_cost(base, auxiliary.config, manifest.plan, tokens).total();
  Json plan = Json::object();
  write_plan(manifest.plan, plan);
  return {{"auxiliary", manifest.auxiliary.empty() ? OrderedJson() : model_json(auxiliary)},
          {"predictor",
           {{"file", manifest.predictor.string()},
            {"parameters", predictor_parameter_count(base, auxiliary.config, manifest.plan)},
            {"stored", stored_json(predictor)}}},
          {"layer_map", manifest.plan.layer_map()},
          {"plan", std::move(plan)},
          {"default_prefill", manifest.default_prefill},
          {"flops",
           {{"prompt_tokens", tokens},
            {"exact", exact},
            {"kv_prediction", predicted},
            {"reduction", exact / predicted},
            {"paper_reduction",
             approximate_reduction(base, auxiliary.config, manifest.plan, tokens)}}}};
}

std::string to_json(const Info& info) {
  OrderedJson json = {{"path", info.path.string()},
                      {"kind", info.bundle ? "bundle" : "model"},
                      {info.bundle ? "base" : "model", model_json(info.model)}};
  if (info.bundle) json.update(bundle_json(info));
  json["tokenizer"] = nullptr;
  if (info.tokenizer) {
    json["tokenizer"] = {{"file", info.tokenizer->file.string()},
                         {"vocab_size", info.tokenizer->vocab_size},
                         {"bos_token", info.tokenizer->bos_token},
                         {"eos_token", info.tokenizer->eos_token}};
  }
  return json.dump(2, ' ', false, OrderedJson::error_handler_t::replace);
}

struct InfoOptions {
  std::string path;  ///< empty: the bundle that ships with kvcast
  bool json = false;
};

Result<int> run_info(const InfoOptions& options) {
  KVCAST_TRY(const std::filesystem::path path, find_model(options.path));
  KVCAST_TRY(const Info info, gather_info(path));
  fmt::print("{}\n", options.json ? to_json(info) : to_text(info));
  return kExitOk;
}

}  // namespace

void register_info(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<InfoOptions>();
  CLI::App* command = app.add_subcommand("info", "what a model directory or bundle holds");
  command->add_option("MODEL", options->path, kModelHelp);
  command->add_flag("--json", options->json, "print JSON");
  command->callback([options, &exit_code] {
    const auto result = run_info(*options);
    exit_code = result ? *result : report_error(result.error());
  });
}

}  // namespace kvcast
