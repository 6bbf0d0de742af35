// Attention of one block of queries, blocked over keys with an online softmax (Milakov and
// Gimelshein 2018; FlashAttention). Included after the file's Simd, gemm_inl.h and math_inl.h.
//
// Keys are taken in blocks of 64 at multiples of 64, and in chunks of kChunkKeys whose states are
// merged in order. A masked key counts exactly zero. So a row's result depends on nothing but its
// own query and the cache: not on the rows beside it, the prompt's chunking or the threads.
#pragma once

#include "kernels/attention_cache_inl.h"
#include "kernels/elementwise_inl.h"
#include "kernels/math_inl.h"

namespace kvcast {
namespace {

/// For so few queries a block of the cache takes longer to come from memory than to be used: the
/// next one is fetched meanwhile. For more it comes from the processor's cache, and fetching costs.
constexpr int64_t kFewQueries = 16;
constexpr float kMinusInfinity = -__builtin_inff();

int64_t padded_head_dim(const AttentionShape& shape) { return (shape.head_dim + 15) / 16 * 16; }
int64_t largest_query_block(const AttentionShape& shape) {
  return attention_rows_per_block(shape) * (shape.query_heads / shape.kv_heads);
}

/// A query's running softmax: mixed values [padded head_dim], then maximum (base 2) and sum.
struct State {
  float* mixed;
  float& maximum() { return mixed[width]; }
  float& sum() { return mixed[width + 1]; }
  int64_t width;

  void reset() {
    for (int64_t i = 0; i < width; i += Simd::kWidth) Simd::store(mixed + i, Simd::zero());
    maximum() = kMinusInfinity;
    sum() = 0.0F;
  }
  void scale(float factor) {
    const Simd::F f = Simd::set(factor);
    for (int64_t i = 0; i < width; i += Simd::kWidth) {
      Simd::store(mixed + i, Simd::mul(Simd::load(mixed + i), f));
    }
  }
};

float exp2_scalar(float x) {
  float lanes[Simd::kWidth];
  Simd::store(lanes, exp2(Simd::set(x)));
  return lanes[0];
}

/// scores[64] -> probabilities relative to the state's new maximum, zero from `visible` on.
void soften(float* scores, int64_t visible, State state) {
  Simd::F largest = Simd::set(kMinusInfinity);
  for (int64_t i = 0; i < kKeyBlock; i += Simd::kWidth) {
    if (i >= visible) break;
    const Simd::F x = Simd::load(scores + i);
    largest = Simd::max(largest, i + Simd::kWidth <= visible
                                     ? x
                                     : Simd::first_or(x, Simd::set(kMinusInfinity), visible - i));
  }
  const float before = state.maximum();
  const float block = Simd::largest(largest);
  const float maximum = block > before ? block : before;
  if (maximum > before) {
    const float factor = exp2_scalar(before - maximum);
    state.scale(factor);
    state.sum() *= factor;
    state.maximum() = maximum;
  }
  const Simd::F offset = Simd::set(maximum);
  Simd::F sum = Simd::zero();
  for (int64_t i = 0; i < kKeyBlock; i += Simd::kWidth) {
    Simd::F p = Simd::zero();
    if (i < visible) {
      p = exp2(Simd::sub(Simd::load(scores + i), offset));
      if (i + Simd::kWidth > visible) p = Simd::first_or(p, Simd::zero(), visible - i);
    }
    Simd::store(scores + i, p);
    sum = Simd::add(sum, p);
  }
  state.sum() += Simd::sum(sum);
}

/// total <- total merged with `chunk`, which comes after it.
void merge_state(State total, State chunk) {
  if (chunk.maximum() == kMinusInfinity) return;  // no visible key
  if (total.maximum() == kMinusInfinity) {
    for (int64_t i = 0; i < total.width + Simd::kWidth; i += Simd::kWidth) {
      Simd::store(total.mixed + i, Simd::load(chunk.mixed + i));
    }
    return;
  }
  const float maximum = chunk.maximum() > total.maximum() ? chunk.maximum() : total.maximum();
  const float a = exp2_scalar(total.maximum() - maximum);
  const float b = exp2_scalar(chunk.maximum() - maximum);
  const Simd::F va = Simd::set(a);
  const Simd::F vb = Simd::set(b);
  for (int64_t i = 0; i < total.width; i += Simd::kWidth) {
    const Simd::F old = Simd::mul(Simd::load(total.mixed + i), va);
    Simd::store(total.mixed + i, Simd::fma(Simd::load(chunk.mixed + i), vb, old));
  }
  total.maximum() = maximum;
  total.sum() = total.sum() * a + chunk.sum() * b;
}

/// One block of queries at work: pointers into the scratch memory. Operands of products hold groups
/// of 4 bytes: floats, or pairs of bf16.
template <class Cache>
struct AttendBlock {
  using Element = typename Cache::Element;
  const AttendArgs& args;
  int64_t group = args.shape.query_heads / args.shape.kv_heads;
  int64_t head_dim = args.shape.head_dim;
  int64_t width = padded_head_dim(args.shape);
  int64_t state_floats = width + kStateExtra;
  int64_t queries_count = (args.row_end - args.row_begin) * group;  // query = row * group + head
  bool waits_for_memory = queries_count <= kFewQueries;
  float* queries = reinterpret_cast<float*>(args.scratch);              // [queries, width], scaled
  float* keys = queries + largest_query_block(args.shape) * width;      // [width, 64]
  float* values = keys + width * kKeyBlock;                             // [64, width], if padded
  float* scores = values + kKeyBlock * width;                           // [queries, 64]
  float* chunk = scores + largest_query_block(args.shape) * kKeyBlock;  // [queries, state]
  float* total = chunk + largest_query_block(args.shape) * state_floats;  // [queries, state]

  [[nodiscard]] State state_of(float* states, int64_t q) const {
    return {states + q * state_floats, width};
  }
  [[nodiscard]] State total_state(int64_t q) const { return state_of(total, q); }
  /// Keys that query q sees.
  [[nodiscard]] int64_t visible(int64_t q) const {
    return args.sequence->first_position + args.row_begin + q / group + 1;
  }
  [[nodiscard]] const Element* cached(const void* cache, int64_t key) const {
    return static_cast<const Element*>(cache) + args.kv_head * args.sequence->head_stride +
           key * head_dim;
  }

  /// Copies the queries, scaled for a softmax in base 2.
  void load_queries() const {
    const float factor = 1.44269504F / __builtin_sqrtf(static_cast<float>(head_dim));
    for (int64_t q = 0; q < queries_count; ++q) {
      const float* const from = args.sequence->q +
                                (args.row_begin + q / group) * args.sequence->q_stride +
                                (args.kv_head * group + q % group) * head_dim;
      Cache::store_query(from, head_dim, factor, queries + q * width);
    }
  }

  void load_keys_from(int64_t key, int64_t count) const {
    load_keys<Cache>(cached(args.sequence->keys, key), count, head_dim, keys,
                     waits_for_memory ? cached(args.sequence->values, key) : nullptr);
  }

  /// scores[q, :] for q >= first.
  void compute_scores(int64_t first) const {
    small_product<typename Cache::Dot>({.a = queries + first * width,
                                        .a_stride = width * 4,
                                        .b = keys,
                                        .b_stride = kKeyBlock * 4,
                                        .depth = head_dim / Cache::kPerGroup,
                                        .out = scores + first * kKeyBlock,
                                        .out_stride = kKeyBlock * 4,
                                        .columns = kKeyBlock,
                                        .accumulate = false},
                                       queries_count - first);
  }

  /// states += scores * values, q >= first.
  void mix_values(int64_t first, int64_t key, int64_t count, float* states) const {
    const void* const source =
        Cache::prepare_values(cached(args.sequence->values, key), count, head_dim, width, values);
    small_product<typename Cache::Dot>({.a = scores + first * kKeyBlock,
                                        .a_stride = kKeyBlock * 4,
                                        .b = source,
                                        .b_stride = width * 4,
                                        .depth = (count + Cache::kPerGroup - 1) / Cache::kPerGroup,
                                        .out = states + first * state_floats,
                                        .out_stride = state_floats * 4,
                                        .columns = width,
                                        .accumulate = true},
                                       queries_count - first);
  }

  /// The first query that sees `key`.
  [[nodiscard]] int64_t first_seeing(int64_t key) const {
    const int64_t row = key - args.sequence->first_position - args.row_begin;
    return row > 0 ? row * group : 0;
  }
  [[nodiscard]] int64_t last_visible() const { return visible(queries_count - 1); }

  /// One chunk from an empty state.
  void run_chunk(int64_t c, float* states) const {
    for (int64_t q = 0; q < queries_count; ++q) state_of(states, q).reset();
    const int64_t chunk_end = (c + 1) * kChunkKeys;
    const int64_t end = last_visible() < chunk_end ? last_visible() : chunk_end;
    for (int64_t key = c * kChunkKeys; key < end; key += kKeyBlock) {
      const int64_t count = end - key < kKeyBlock ? end - key : kKeyBlock;
      const int64_t first = first_seeing(key);
      load_keys_from(key, count);
      compute_scores(first);
      for (int64_t q = first; q < queries_count; ++q) {
        const int64_t seen = visible(q) - key;
        soften(scores + q * kKeyBlock, seen < count ? seen : count, state_of(states, q));
        Cache::prepare_scores(scores + q * kKeyBlock);
      }
      mix_values(first, key, count, states);
    }
  }

  void write_out(int64_t q, State state) const {
    const Simd::F inverse = Simd::set(1.0F / state.sum());
    const AttentionArgs& sequence = *args.sequence;
    const OutRow out = OutRow::of(sequence.out, sequence.out_bf16,
                                  (args.row_begin + q / group) * sequence.out_stride +
                                      (args.kv_head * group + q % group) * head_dim);
    for_each_lane_group(0, head_dim, [&](int64_t i, int64_t count) {
      out.store(i, Simd::mul(Simd::load(state.mixed + i), inverse), count);
    });
  }
};

size_t attend_scratch_bytes(const AttentionShape& shape) {
  const int64_t width = padded_head_dim(shape);
  const int64_t queries = largest_query_block(shape);
  const int64_t floats =
      queries * (width + kKeyBlock + 2 * (width + kStateExtra)) + 2 * kKeyBlock * width;
  return static_cast<size_t>(floats) * sizeof(float);
}

template <class Cache>
void attend(const AttendArgs& args) {
  const AttendBlock<Cache> block{args};
  block.load_queries();
  if (args.partial != nullptr) {
    for (int64_t c = args.chunk_begin; c < args.chunk_end; ++c) {
      block.run_chunk(c, args.partial + c * block.queries_count * block.state_floats);
    }
    return;
  }
  block.run_chunk(args.chunk_begin, block.total);
  for (int64_t c = args.chunk_begin + 1; c < args.chunk_end; ++c) {
    block.run_chunk(c, block.chunk);
    for (int64_t q = 0; q < block.queries_count; ++q) {
      merge_state(block.total_state(q), block.state_of(block.chunk, q));
    }
  }
  for (int64_t q = 0; q < block.queries_count; ++q) block.write_out(q, block.total_state(q));
}

void merge_chunks(const AttendArgs& args) {
  const AttendBlock<CacheF32> block{args};  // states and output are the same for every cache
  for (int64_t q = 0; q < block.queries_count; ++q) {
    block.total_state(q).reset();
    for (int64_t c = args.chunk_begin; c < args.chunk_end; ++c) {
      float* const from = args.partial + (c * block.queries_count + q) * block.state_floats;
      merge_state(block.total_state(q), {from, block.width});
    }
    block.write_out(q, block.total_state(q));
  }
}

/// Two passes over the keys: maximum and sum of each head, then the probabilities.
template <class Cache>
void last_row_probabilities(const AttendArgs& args, float* sums) {
  const AttendBlock<Cache> block{args};
  block.load_queries();
  const int64_t keys = block.last_visible();
  for (int64_t q = 0; q < block.queries_count; ++q) block.total_state(q).reset();
  for (int pass = 0; pass < 2; ++pass) {
    for (int64_t key = 0; key < keys; key += kKeyBlock) {
      const int64_t count = keys - key < kKeyBlock ? keys - key : kKeyBlock;
      block.load_keys_from(key, count);
      block.compute_scores(0);
      for (int64_t j = 0; pass == 1 && j < count; ++j) sums[key + j] = 0.0F;
      for (int64_t q = 0; q < block.queries_count; ++q) {
        float* const scores = block.scores + q * kKeyBlock;
        State state = block.total_state(q);
        const float weight = pass == 1 ? 1.0F / state.sum() : 0.0F;
        soften(scores, count, state);
        for (int64_t j = 0; pass == 1 && j < count; ++j) sums[key + j] += scores[j] * weight;
        if (pass == 1) state.sum() = 1.0F / weight;
      }
    }
  }
}

}  // namespace
}  // namespace kvcast
