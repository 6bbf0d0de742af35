// The strategies that drop tokens (method §8), against equalities and against a plain reference on
// the golden bundle's base.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "prefill/pruned_rows.h"
#include "support/tensors.h"

namespace kvcast {
namespace {

const std::filesystem::path kBundle =
    std::filesystem::path(KVCAST_GOLDEN_DIR) / "openelm-tiny-kvp-c";

std::vector<float> run(const Models& models, const std::string& spec, Sequence& sequence) {
  std::vector<float> logits(static_cast<size_t>(models.base->config().vocab_size));
  Sequence* const batch[] = {&sequence};
  PrefillWorkspace workspace;
  (*PrefillStrategy::parse(spec))->prefill(models, batch, logits.data(), workspace, {});
  return logits;
}

/// OpenELM one token and one number at a time, in double. A key or value row exists only for tokens
/// that reach its layer.
class PlainModel {
 public:
  explicit PlainModel(const std::filesystem::path& directory)
      : config_(*read_model_config(directory)),
        file_(*Safetensors::open(directory / "model.safetensors")) {}

  using Vector = std::vector<double>;
  using Rows = std::vector<int64_t>;  // positions

  /// Takes `rows` through layers [0, last). `next(layer, attention)` says which rows go on to
  /// `layer`, from what the last token paid each of them in the layer before.
  template <typename Next>
  std::vector<Vector> run(const std::vector<int32_t>& tokens, Rows rows, int64_t last, Next next) {
    const Vector embeddings = tensor("transformer.token_embeddings.weight");
    const auto dim = static_cast<size_t>(config_.model_dim);
    std::vector<Vector> hidden(tokens.size());
    for (const int64_t row : rows) {
      const auto* from = embeddings.data() + static_cast<size_t>(tokens[row]) * dim;
      hidden[row].assign(from, from + dim);
    }
    Vector attention;
    for (int64_t layer = 0; layer < last; ++layer) {
      rows = next(layer, rows, attention);
      attention = run_layer(layer, rows, hidden);
    }
    return hidden;
  }

  Vector logits(const Vector& hidden) {
    return multiply(tensor("transformer.token_embeddings.weight"),
                    norm(hidden, tensor("transformer.norm.weight")));
  }

  [[nodiscard]] int64_t n_layers() const { return config_.n_layers(); }

 private:
  Vector tensor(const std::string& name) {
    const auto floats = float_values(*file_, name);
    return {floats.begin(), floats.end()};
  }

  static Vector multiply(const Vector& matrix, const Vector& x) {
    Vector out(matrix.size() / x.size());
    for (size_t i = 0; i < out.size(); ++i) {
      for (size_t j = 0; j < x.size(); ++j) out[i] += matrix[i * x.size() + j] * x[j];
    }
    return out;
  }

  [[nodiscard]] Vector norm(Vector x, const Vector& weight) const {
    double sum = 0;
    for (const double value : x) sum += value * value;
    const double scale = 1 / std::sqrt(sum / static_cast<double>(x.size()) + config_.norm_eps);
    for (size_t i = 0; i < x.size(); ++i) x[i] *= scale * weight[i];
    return x;
  }

  /// One head: its norm, then RoPE.
  [[nodiscard]] Vector head(const Vector& heads, int64_t index, const Vector& weight,
                            int64_t position) const {
    const int64_t dim = config_.head_dim, half = dim / 2;
    const Vector x = norm({heads.begin() + index * dim, heads.begin() + (index + 1) * dim}, weight);
    Vector out(x.size());
    for (int64_t j = 0; j < half; ++j) {
      const double angle =
          static_cast<double>(position) *
          std::pow(static_cast<double>(config_.rope.theta), -2.0 * static_cast<double>(j) / dim);
      out[j] = x[j] * std::cos(angle) - x[j + half] * std::sin(angle);
      out[j + half] = x[j + half] * std::cos(angle) + x[j] * std::sin(angle);
    }
    return out;
  }

  /// Updates the rows' hidden states; returns the last row's attention to each, mean over heads.
  Vector run_layer(int64_t layer, const Rows& rows, std::vector<Vector>& hidden) {
    const auto weight = [&](const char* suffix) {
      return tensor("transformer.layers." + std::to_string(layer) + "." + suffix);
    };
    const Vector qkv_proj = weight("attn.qkv_proj.weight"), q_norm = weight("attn.q_norm.weight"),
                 k_norm = weight("attn.k_norm.weight"), attn_norm = weight("attn_norm.weight"),
                 out_proj = weight("attn.out_proj.weight"), ffn_norm = weight("ffn_norm.weight"),
                 proj_1 = weight("ffn.proj_1.weight"), proj_2 = weight("ffn.proj_2.weight");
    const int64_t query_heads = config_.layers[layer].query_heads,
                  kv_heads = config_.layers[layer].kv_heads, dim = config_.head_dim;
    std::vector<Vector> qkv;
    for (const int64_t row : rows) qkv.push_back(multiply(qkv_proj, norm(hidden[row], attn_norm)));
    Vector last_attention(rows.size());
    std::vector<Vector> mixed(rows.size());
    for (size_t r = 0; r < rows.size(); ++r) {
      for (int64_t h = 0; h < query_heads; ++h) {
        const int64_t kv = h / (query_heads / kv_heads);
        const Vector q = head(qkv[r], h, q_norm, rows[r]);
        Vector weights;
        for (size_t c = 0; c <= r; ++c) {
          const Vector k = head(qkv[c], query_heads + kv, k_norm, rows[c]);
          const double score = std::inner_product(q.begin(), q.end(), k.begin(), 0.0);
          weights.push_back(std::exp(score / std::sqrt(static_cast<double>(dim))));
        }
        const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
        Vector value(static_cast<size_t>(dim));
        for (size_t c = 0; c <= r; ++c) {
          for (int64_t j = 0; j < dim; ++j) {
            value[j] += weights[c] / sum * qkv[c][(query_heads + kv_heads + kv) * dim + j];
          }
          if (r + 1 == rows.size()) {
            last_attention[c] += weights[c] / sum / static_cast<double>(query_heads);
          }
        }
        mixed[r].insert(mixed[r].end(), value.begin(), value.end());
      }
    }
    for (size_t r = 0; r < rows.size(); ++r) {
      Vector& x = hidden[rows[r]];
      add(x, multiply(out_proj, mixed[r]));
      const Vector gate_up = multiply(proj_1, norm(x, ffn_norm));
      Vector inner(gate_up.size() / 2);
      for (size_t j = 0; j < inner.size(); ++j) {
        inner[j] = gate_up[j] / (1 + std::exp(-gate_up[j])) * gate_up[inner.size() + j];
      }
      add(x, multiply(proj_2, inner));
    }
    return last_attention;
  }

  static void add(Vector& to, const Vector& what) {
    for (size_t i = 0; i < to.size(); ++i) to[i] += what[i];
  }

  ModelConfig config_;
  std::unique_ptr<Safetensors> file_;
};

class PruningOnTheGoldenBundle : public testing::Test {
 protected:
  PruningOnTheGoldenBundle() : models_(*load_models(kBundle, WeightType::kF32, 2)) {
    for (int i = 0; i < 24; ++i) tokens_.push_back((i * 29 + 3) % vocab_size());
    all_.resize(tokens_.size());
    std::iota(all_.begin(), all_.end(), 0);
  }
  [[nodiscard]] int32_t vocab_size() const {
    return static_cast<int32_t>(models_.base->config().vocab_size);
  }

  static std::vector<float> floats(const PlainModel::Vector& values) {
    return {values.begin(), values.end()};
  }

  /// The rows of `rows` with most attention.
  static PlainModel::Rows best(const PlainModel::Rows& rows, const PlainModel::Vector& attention,
                               int64_t count) {
    auto order = rows;
    order.pop_back();
    std::ranges::sort(order, [&](int64_t a, int64_t b) {
      const auto at = [&](int64_t row) { return std::ranges::find(rows, row) - rows.begin(); };
      return attention[at(a)] > attention[at(b)];
    });
    order.resize(count - 1);
    order.push_back(rows.back());
    std::ranges::sort(order);
    return order;
  }

  Models models_;
  std::vector<int32_t> tokens_;
  PlainModel::Rows all_;
  PlainModel plain_{kBundle / "base"};
};

TEST_F(PruningOnTheGoldenBundle, KeepingEverythingIsExact) {
  Sequence exact(models_);
  exact.tokens = tokens_;
  const auto expected = run(models_, "exact", exact);
  for (const char* spec : {"random:1.0", "static:1.0", "lazy:1.0-1.0", "zero-cache:tail=24"}) {
    Sequence sequence(models_);
    sequence.tokens = tokens_;
    EXPECT_LT(relative_to_largest(run(models_, spec, sequence), expected), 1e-5) << spec;
    EXPECT_EQ(sequence.base.next_position(), 24) << spec;
    for (int64_t layer = 0; layer < sequence.base.n_layers(); ++layer) {
      EXPECT_EQ(sequence.base.rows(layer), 24) << spec;
    }
  }
}

TEST_F(PruningOnTheGoldenBundle, RandomIsThePlainModelOnTheRowsThatItKept) {
  Sequence sequence(models_);
  sequence.tokens = tokens_;
  const auto logits = run(models_, "random:0.4", sequence);
  const auto kept = sequence.base.positions(0);
  ASSERT_EQ(kept.size(), 10U);  // 9.6, rounded
  EXPECT_EQ(kept.back(), 23);
  const auto hidden = plain_.run(tokens_, {kept.begin(), kept.end()}, plain_.n_layers(),
                                 [](int64_t, const auto& rows, const auto&) { return rows; });
  EXPECT_LT(relative_to_largest(logits, floats(plain_.logits(hidden[23]))), 1e-4);
}

TEST_F(PruningOnTheGoldenBundle, StaticIsThePlainModelOnTheBestAttendedRows) {
  Sequence sequence(models_);
  sequence.tokens = tokens_;
  const auto logits = run(models_, "static:0.5", sequence);
  const int64_t scored = std::max<int64_t>(1, std::llround(0.25 * plain_.n_layers()));
  PlainModel::Vector sum(tokens_.size());
  const auto collect = [&](int64_t, const auto& rows, const PlainModel::Vector& attention) {
    for (size_t i = 0; i < attention.size(); ++i) sum[i] += attention[i];
    return rows;
  };
  (void)plain_.run(tokens_, all_, scored + 1, collect);  // the attention of layers before the last
  const auto kept = best(all_, sum, 12);
  EXPECT_TRUE(std::ranges::equal(sequence.base.positions(0), kept));
  const auto hidden = plain_.run(tokens_, kept, plain_.n_layers(),
                                 [](int64_t, const auto& rows, const auto&) { return rows; });
  EXPECT_LT(relative_to_largest(logits, floats(plain_.logits(hidden[23]))), 1e-4);
}

TEST_F(PruningOnTheGoldenBundle, LazyIsThePlainModelThatDropsRowsOnTheWay) {
  Sequence sequence(models_);
  sequence.tokens = tokens_;
  const auto logits = run(models_, "lazy:0.75-0.25", sequence);
  const int64_t layers = plain_.n_layers();
  int dropping_layers = 0;
  const auto hidden = plain_.run(
      tokens_, all_, layers,
      [&](int64_t layer, const PlainModel::Rows& rows, const PlainModel::Vector& attention) {
        const double depth = static_cast<double>(layer) / static_cast<double>(layers);
        const double keep = depth < 0.3 ? 1 : 0.75 - 0.5 * std::min(1.0, (depth - 0.3) / 0.6);
        const int64_t count = std::llround(keep * 24);
        const auto next = count < std::ssize(rows) ? best(rows, attention, count) : rows;
        dropping_layers += next.size() < rows.size();
        EXPECT_TRUE(std::ranges::equal(sequence.base.positions(layer), next)) << layer;
        return next;
      });
  EXPECT_GT(dropping_layers, 1);
  EXPECT_LT(relative_to_largest(logits, floats(plain_.logits(hidden[23]))), 1e-4);
}

TEST_F(PruningOnTheGoldenBundle, ZeroCacheIsThePlainModelOnTheTailAtItsPlace) {
  Sequence sequence(models_);
  sequence.tokens = tokens_;
  const auto logits = run(models_, "zero-cache:tail=3", sequence);
  const auto hidden = plain_.run(tokens_, {21, 22, 23}, plain_.n_layers(),
                                 [](int64_t, const auto& rows, const auto&) { return rows; });
  EXPECT_LT(relative_to_largest(logits, floats(plain_.logits(hidden[23]))), 1e-4);
}

TEST_F(PruningOnTheGoldenBundle, NextTurnKeepsEarlierRowsAndDropsOnlyNewOnes) {
  for (const char* spec : {"random:0.5", "static:0.5", "lazy:0.5-0.5"}) {
    Sequence sequence(models_);
    sequence.tokens.assign(tokens_.begin(), tokens_.begin() + 10);
    run(models_, "exact", sequence);
    sequence.tokens = tokens_;
    run(models_, spec, sequence);
    const int64_t last = sequence.base.n_layers() - 1;
    EXPECT_EQ(sequence.base.rows(last), 10 + 7) << spec;
    EXPECT_EQ(sequence.base.positions(last)[9], 9) << spec;
    EXPECT_EQ(sequence.base.next_position(), 24) << spec;
    sequence.base.truncate(10);
    EXPECT_EQ(sequence.base.rows(last), 10) << spec;
  }
}

TEST(HighestRows, AreTheBestAndTheLastInOrder) {
  const float scores[] = {0.1F, 0.5F, 0.2F, 0.5F, 0.0F};
  EXPECT_EQ(highest_rows(scores, 1), (std::vector<int64_t>{4}));
  EXPECT_EQ(highest_rows(scores, 2), (std::vector<int64_t>{1, 4}));
  EXPECT_EQ(highest_rows(scores, 4), (std::vector<int64_t>{1, 2, 3, 4}));
}

}  // namespace
}  // namespace kvcast
