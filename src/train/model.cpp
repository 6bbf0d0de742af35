#include "train/model.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "train/data/error.h"
#include "train/recompute.h"

namespace kvcast::train {
namespace {

/// The rows between two blocks: what a block adds is joined with the norm of the block after it.
class ResidualStream {
 public:
  ResidualStream(double eps, Tensor sum, Tensor delta)
      : eps_(eps), sum_(std::move(sum)), delta_(std::move(delta)) {}

  /// What the last block computed, [B, T, model_dim].
  void add(Tensor delta) { delta_ = std::move(delta); }

  /// All rows so far, as one tensor.
  const Tensor& joined() {
    if (delta_.defined()) sum_ = sum_ + std::exchange(delta_, Tensor());
    return sum_;
  }

  /// All rows so far, normed: the next block's input.
  Tensor normed(const Tensor& weight) {
    const SumAndNorm out = add_rms_norm(sum_, delta_, weight, eps_);
    sum_ = out.sum;
    delta_ = Tensor();
    return out.normed;
  }

  [[nodiscard]] double eps() const { return eps_; }
  [[nodiscard]] const Tensor& sum() const { return sum_; }
  [[nodiscard]] const Tensor& delta() const { return delta_; }  // may be undefined

 private:
  double eps_;
  Tensor sum_, delta_;
};

/// The heads that rows [first, first + count) of layer i's qkv_proj make, [B, T, heads, head_dim].
Tensor project(const Model& model, size_t i, const Tensor& x, int64_t first, int64_t count) {
  const LayerTensors& w = model.layers[i];
  // Only where it is one: a part's gradient costs a copy of the whole.
  const auto part = [&](const Tensor& whole) {
    return whole.defined() && whole.size(0) != count ? whole.narrow(0, first, count) : whole;
  };
  return at::linear(x, part(w.qkv_proj), part(w.qkv_bias))
      .view({x.size(0), x.size(1), -1, model.config.head_dim});
}

/// q_norm or k_norm, for models that have them, and RoPE from position `first` on.
Tensor normed_and_turned(const Model& model, const Tensor& heads, const Tensor& weight,
                         int64_t first = 0) {
  return head_norm_rope(heads, weight, model.config.norm_eps, &model.rope, first);
}

/// What attention reads, [B, T, heads, head_dim] each; query and key with norm and RoPE.
struct Projections {
  Tensor query, key, value;
};

/// The layer's own projections of tokens at positions `first`...; what others read of them goes to
/// `cache`, if given.
Projections project_qkv(const Model& model, size_t i, const Tensor& x, LayerCache* cache,
                        int64_t first = 0) {
  const LayerTensors& w = model.layers[i];
  const LayerConfig& layer = model.config.layers[i];
  const auto parts = project(model, i, x, 0, w.qkv_proj.size(0))
                         .split_with_sizes({layer.query_heads, layer.kv_heads, layer.kv_heads}, 2);
  if (cache != nullptr) {
    const Tensor key = head_norm_rope(parts[1], w.k_norm, model.config.norm_eps, nullptr);
    *cache = {parts[1], key, parts[2]};
  }
  return {normed_and_turned(model, parts[0], w.q_norm, first),
          normed_and_turned(model, parts[1], w.k_norm, first), parts[2]};
}

/// Queries alone, for a layer whose keys and values come from elsewhere.
Tensor project_query(const Model& model, size_t i, const Tensor& x) {
  const LayerTensors& w = model.layers[i];
  const int64_t query_width = model.config.query_width(static_cast<int64_t>(i));
  return normed_and_turned(model, project(model, i, x, 0, query_width), w.q_norm);
}

/// Keys and values alone, for a last layer of which nothing else is needed.
LayerCache project_kv(const Model& model, size_t i, const Tensor& x) {
  const LayerTensors& w = model.layers[i];
  const int64_t query_width = model.config.query_width(static_cast<int64_t>(i));
  const int64_t kv_width = model.config.kv_width(static_cast<int64_t>(i));
  const auto parts = project(model, i, x, query_width, 2 * kv_width).chunk(2, 2);
  return {parts[0], head_norm_rope(parts[0], w.k_norm, model.config.norm_eps, nullptr), parts[1]};
}

/// What attention adds to the residual stream; row t of `query` sees keys 0..S - T + t.
Tensor attend(const Model& model, size_t i, const Tensor& query, const Tensor& key,
              const Tensor& value) {
  return at::linear(causal_attention(query, key, value), model.layers[i].out_proj);
}

/// What follows attention: both residual connections and the FFN.
void finish_layer(const Model& model, size_t i, ResidualStream& rows, const Tensor& attended) {
  const LayerTensors& w = model.layers[i];
  rows.add(attended);
  rows.add(at::linear(swiglu(at::linear(rows.normed(w.ffn_norm), w.proj_1)), w.proj_2));
}

/// A layer's computation on the rows, given further inputs; what it hands out besides.
using LayerBody = std::function<Tensors(const Model&, ResidualStream&, const Tensors&)>;

/// Runs one layer; of the recomputed ones nothing but its inputs is kept for the backward pass.
Tensors run_layer(const Model& model, size_t i, ResidualStream& rows, const Tensors& inputs,
                  const LayerBody& body) {
  const bool keep = static_cast<int64_t>(i) >= model.recompute_layers;
  if (keep || !at::GradMode::is_enabled()) return body(model, rows, inputs);
  const LayerTensors& w = model.layers[i];
  Tensors all = {rows.sum(), rows.delta()};
  for (const auto& [role, member] : kLayerTensors) all.push_back(w.*member);
  const size_t own = all.size();
  all.insert(all.end(), inputs.begin(), inputs.end());
  Model shape = model;
  shape.layers.assign(model.layers.size(), {});
  Tensors made = recomputed(
      [shape, i, body, own, eps = rows.eps()](const Tensors& in) {
        Model local = shape;
        auto next = in.begin() + 2;
        for (const auto& [role, member] : kLayerTensors) local.layers[i].*member = *next++;
        ResidualStream stream(eps, in[0], in[1]);
        Tensors out =
            body(local, stream, Tensors(in.begin() + static_cast<ptrdiff_t>(own), in.end()));
        out.insert(out.begin(), {stream.sum(), stream.delta()});
        return out;
      },
      all);
  rows = ResidualStream(rows.eps(), made[0], made[1]);
  return {made.begin() + 2, made.end()};
}

/// One whole layer with its own keys and values; `trace` only where no gradients are wanted.
void run_own_layer(const Model& model, size_t i, ResidualStream& rows, LayerCache* cache,
                   AttentionTrace* trace = nullptr) {
  const bool hand_out = cache != nullptr;
  const Tensors made = run_layer(
      model, i, rows, {}, [i, hand_out, trace](const Model& m, ResidualStream& r, const Tensors&) {
        LayerCache own;
        const auto [query, key, value] =
            project_qkv(m, i, r.normed(m.layers[i].attn_norm), hand_out ? &own : nullptr);
        const Tensor attended = attend(m, i, query, key, value);
        if (trace != nullptr) *trace = {query, attended};
        finish_layer(m, i, r, attended);
        return hand_out ? Tensors{own.key_prenorm, own.key, own.value} : Tensors{};
      });
  if (hand_out) *cache = {made[0], made[1], made[2]};
}

}  // namespace

RopeTable rope_table(const ModelConfig& config, int64_t positions, const at::Device& device) {
  return make_rope_table(positions, config.rope.frequencies(config.head_dim), device);
}

Tensor embed(const Model& model, const Tensor& tokens) {
  return at::embedding(model.token_embeddings, tokens);
}

Tensor run_layers(const Model& model, const Tensor& rows, const LayerRun& run) {
  ResidualStream stream(model.config.norm_eps, rows, {});
  for (int64_t i = run.first; i < run.last; ++i) {
    if (run.entering != nullptr) run.entering->push_back(stream.joined());
    LayerCache made;
    run_own_layer(model, static_cast<size_t>(i), stream, run.cache != nullptr ? &made : nullptr);
    if (run.cache != nullptr) run.cache->push_back(std::move(made));
  }
  return stream.joined();
}

Tensor final_norm(const Model& model, const Tensor& rows) {
  return rms_norm(rows, model.norm, model.config.norm_eps);
}

Tensor forward(const Model& model, const Tensor& tokens, Cache* cache,
               std::vector<AttentionTrace>* attention) {
  ResidualStream rows(model.config.norm_eps, embed(model, tokens), {});
  if (cache != nullptr) cache->resize(model.layers.size());
  if (attention != nullptr) attention->resize(model.layers.size());
  for (size_t i = 0; i < model.layers.size(); ++i) {
    run_own_layer(model, i, rows, cache != nullptr ? &(*cache)[i] : nullptr,
                  attention != nullptr ? &(*attention)[i] : nullptr);
  }
  return rows.normed(model.norm);
}

Cache forward_cache(const Model& model, const Tensor& tokens) {
  Cache cache(model.layers.size());
  ResidualStream rows(model.config.norm_eps, embed(model, tokens), {});
  const size_t last = model.layers.size() - 1;
  for (size_t i = 0; i < last; ++i) run_own_layer(model, i, rows, &cache[i]);
  cache[last] = project_kv(model, last, rows.normed(model.layers[last].attn_norm));
  return cache;
}

Tensor run_with_replaced_cache(const Model& model, const Tensor& rows, int64_t first,
                               const Cache& predicted) {
  ResidualStream stream(model.config.norm_eps, rows, {});
  for (size_t n = 0; n < predicted.size(); ++n) {
    const size_t i = static_cast<size_t>(first) + n;
    run_layer(model, i, stream, {predicted[n].key, predicted[n].value},
              [i](const Model& m, ResidualStream& r, const Tensors& replaced) {
                const Tensor query = project_query(m, i, r.normed(m.layers[i].attn_norm));
                const Tensor key = apply_rope(replaced[0], m.rope);
                finish_layer(m, i, r, attend(m, i, query, key, replaced[1]));
                return Tensors{};
              });
  }
  return stream.normed(model.norm);
}

Tensor run_after_prefix(const Model& model, const Tensor& rows, int64_t first,
                        const Cache& prefix) {
  ResidualStream stream(model.config.norm_eps, rows, {});
  for (size_t n = 0; n < prefix.size(); ++n) {
    const size_t i = static_cast<size_t>(first) + n;
    run_layer(model, i, stream, {prefix[n].key, prefix[n].value},
              [i](const Model& m, ResidualStream& r, const Tensors& before) {
                const auto [query, key, value] =
                    project_qkv(m, i, r.normed(m.layers[i].attn_norm), nullptr, before[0].size(1));
                const Tensor keys = at::cat({apply_rope(before[0], m.rope), key}, 1);
                const Tensor values = at::cat({before[1], value}, 1);
                finish_layer(m, i, r, attend(m, i, query, keys, values));
                return Tensors{};
              });
  }
  return stream.normed(model.norm);
}

Tensor run_with_prefixes(const Model& model, const Tensor& rows, int64_t first,
                         const Cache& predicted, const Tensor& own_from) {
  const Tensor positions = at::arange(rows.size(1), own_from.options());
  const Tensor own = positions.unsqueeze(0).ge(own_from.unsqueeze(1)).unsqueeze(2).unsqueeze(3);
  ResidualStream stream(model.config.norm_eps, rows, {});
  for (size_t n = 0; n < predicted.size(); ++n) {
    const size_t i = static_cast<size_t>(first) + n;
    run_layer(model, i, stream, {predicted[n].key, predicted[n].value},
              [i, own](const Model& m, ResidualStream& r, const Tensors& before) {
                const auto [query, key, value] =
                    project_qkv(m, i, r.normed(m.layers[i].attn_norm), nullptr);
                const Tensor keys = at::where(own, key, apply_rope(before[0], m.rope));
                const Tensor values = at::where(own, value, before[1]);
                finish_layer(m, i, r, attend(m, i, query, keys, values));
                return Tensors{};
              });
  }
  return stream.normed(model.norm);
}

Tensor forward_with_replaced_cache(const Model& model, const Tensor& tokens,
                                   const Cache& predicted) {
  return run_with_replaced_cache(model, embed(model, tokens), 0, predicted);
}

Tensor forward_after_prefix(const Model& model, const Tensor& tokens, const Cache& prefix) {
  return run_after_prefix(model, embed(model, tokens), 0, prefix);
}

DecodeCache decode_cache(const Model& model, int64_t sequences, int64_t capacity) {
  DecodeCache cache;
  for (const LayerConfig& layer : model.config.layers) {
    const auto rows = [&] {
      return at::empty({sequences, capacity, layer.kv_heads, model.config.head_dim},
                       model.token_embeddings.options());
    };
    cache.push_back({rows(), rows()});
  }
  return cache;
}

Tensor decode(const Model& model, const Tensor& tokens, int64_t first, DecodeCache& cache) {
  const int64_t count = tokens.size(1);
  ResidualStream rows(model.config.norm_eps, embed(model, tokens), {});
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const auto [query, key, value] =
        project_qkv(model, i, rows.normed(model.layers[i].attn_norm), nullptr, first);
    cache[i].key.narrow(1, first, count).copy_(key);
    cache[i].value.narrow(1, first, count).copy_(value);
    finish_layer(model, i, rows,
                 attend(model, i, query, cache[i].key.narrow(1, 0, first + count),
                        cache[i].value.narrow(1, 0, first + count)));
  }
  return rows.normed(model.norm);
}

Cache prefix_of(const Cache& cache, int64_t tokens) {
  Cache prefix;
  for (const auto& layer : cache) {
    prefix.push_back({layer.key_prenorm.narrow(1, 0, tokens), layer.key.narrow(1, 0, tokens),
                      layer.value.narrow(1, 0, tokens)});
  }
  return prefix;
}

Tensor attention_output(const Model& model, size_t i, const Tensor& query,
                        const LayerCache& cache) {
  return attend(model, i, query, apply_rope(cache.key, model.rope), cache.value);
}

Tensor logits(const Model& model, const Tensor& hidden) {
  return at::matmul(hidden, model.lm_head.t()).to(at::kFloat);
}

}  // namespace kvcast::train
