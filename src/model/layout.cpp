#include "model/layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <map>

namespace kvcast {
namespace {

std::string tensor_name(const StoredForm& form, const Weight& weight) {
  const auto found = std::ranges::find(form.names, weight.role, &TensorName::role);
  assert(found != form.names.end());
  if (weight.layer < 0) return std::string(found->pattern);
  return fmt::format(fmt::runtime(found->pattern), weight.layer);
}

bool has_heads(Role role) {
  return role == Role::kQuery || role == Role::kKey || role == Role::kQueryBias ||
         role == Role::kKeyBias;
}

bool has_tokens(Role role) { return role == Role::kEmbeddings || role == Role::kLmHead; }

/// Where `form` keeps each of `weights`.
std::vector<TensorPart> places(const std::vector<Weight>& weights, const StoredForm& form,
                               const ModelConfig& config) {
  std::map<std::string, int64_t> rows;
  std::vector<TensorPart> parts;
  for (const Weight& weight : weights) {
    std::string name = tensor_name(form, weight);
    int64_t& end = rows[name];
    const bool interleaved = form.interleaved_heads && has_heads(weight.role);
    parts.push_back({std::move(name), 0, end, weight.rows, interleaved ? config.head_dim : 0});
    end += weight.rows + (has_tokens(weight.role) ? config.unused_tokens : 0);
  }
  for (TensorPart& part : parts) part.stored_rows = rows[part.name];
  return parts;
}

/// Adds a part, as a longer last one where it goes on in the same tensor.
void append(std::vector<TensorPart>& parts, const TensorPart& part) {
  if (!parts.empty() && parts.back().name == part.name &&
      parts.back().first_row + parts.back().rows == part.first_row &&
      parts.back().interleaved == part.interleaved) {
    parts.back().rows += part.rows;
  } else {
    parts.push_back(part);
  }
}

}  // namespace

std::vector<Weight> layer_weights(const ModelConfig& config, int64_t layer) {
  const int64_t dim = config.model_dim, ffn = config.layers[layer].ffn_dim;
  const int64_t q = config.query_width(layer), kv = config.kv_width(layer);
  std::vector<Weight> weights;
  const auto add = [&](Role role, int64_t rows, int64_t columns = 0) {
    weights.push_back({role, layer, rows, columns});
  };
  add(Role::kAttentionNorm, dim);
  add(Role::kQuery, q, dim);
  add(Role::kKey, kv, dim);
  add(Role::kValue, kv, dim);
  if (config.qkv_bias) {
    add(Role::kQueryBias, q);
    add(Role::kKeyBias, kv);
    add(Role::kValueBias, kv);
  }
  if (config.normalize_qk) {
    add(Role::kQueryNorm, config.head_dim);
    add(Role::kKeyNorm, config.head_dim);
  }
  add(Role::kAttentionOutput, dim, q);
  add(Role::kFeedForwardNorm, dim);
  add(Role::kGate, ffn, dim);
  add(Role::kUp, ffn, dim);
  add(Role::kDown, dim, ffn);
  return weights;
}

std::vector<Weight> model_weights(const ModelConfig& config) {
  std::vector<Weight> weights = {{Role::kEmbeddings, -1, config.vocab_size, config.model_dim}};
  if (!config.tied_embeddings) {
    weights.push_back({Role::kLmHead, -1, config.vocab_size, config.model_dim});
  }
  weights.push_back({Role::kFinalNorm, -1, config.model_dim, 0});
  for (int64_t i = 0; i < config.n_layers(); ++i) {
    const auto layer = layer_weights(config, i);
    weights.insert(weights.end(), layer.begin(), layer.end());
  }
  return weights;
}

int64_t TensorPart::stored_row(int64_t row) const {
  if (interleaved == 0) return first_row + row;
  const int64_t head = row / interleaved, half = interleaved / 2;
  const int64_t in_head = row % interleaved;
  return first_row + head * interleaved + in_head % half * 2 + in_head / half;
}

LayoutEntry LayoutEntry::whole(std::string name, int64_t rows, int64_t columns) {
  LayoutEntry entry{.name = name, .rows = rows, .columns = columns, .parts = {}};
  entry.parts.push_back({std::move(name), rows, 0, rows, 0});
  return entry;
}

std::vector<int64_t> LayoutEntry::shape() const {
  return is_matrix() ? std::vector{rows, columns} : std::vector{rows};
}

std::vector<LayoutEntry> tensor_layout(const ModelConfig& config, const StoredForm& form,
                                       const StoredForm& stored) {
  assert(!form.interleaved_heads);
  const auto weights = model_weights(config);
  const auto sources = places(weights, stored, config);
  std::vector<LayoutEntry> layout;
  for (size_t i = 0; i < weights.size(); ++i) {
    const Weight& weight = weights[i];
    std::string name = tensor_name(form, weight);
    if (layout.empty() || layout.back().name != name) {
      layout.push_back({weight.role, weight.layer, std::move(name), 0, weight.columns, {}});
    }
    layout.back().rows += weight.rows;
    append(layout.back().parts, sources[i]);
  }
  return layout;
}

}  // namespace kvcast
