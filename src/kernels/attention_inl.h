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
/// Codes of 8 bits reach 127, heads have at most 512 elements and blocks 64 keys:
/// 32767 * 127 * 512 < 2^31.
constexpr float kLargestHalf = 32767.0F;

int64_t padded_head_dim(const AttentionShape& shape) { return (shape.head_dim + 15) / 16 * 16; }
int64_t largest_query_block(const AttentionShape& shape) {
  return attention_rows_per_block(shape) * (shape.query_heads / shape.kv_heads);
}

/// Room for one factor per query, and for a whole vector from any of them on.
int64_t factors_floats(const AttentionShape& shape) {
  return (largest_query_block(shape) + 15) / 16 * 16 + 16;
}

/// The running softmax of a block of queries. Sums are kept in lanes (lane i has the keys i, i +
/// kWidth, ... of each block) until the end: adding lanes up costs as much as a block's additions.
struct States {
  float* mixed;   // [queries, width]
  float* sums;    // [queries, kLanes]
  float* maxima;  // [queries], base 2
  int64_t queries, width;

  static constexpr int64_t kLanes = 16;

  /// In memory for queries * (width + kStateExtra) floats.
  States(float* memory, int64_t queries_count, int64_t padded_head_dim)
      : mixed(memory),
        sums(mixed + queries_count * padded_head_dim),
        maxima(sums + queries_count * kLanes),
        queries(queries_count),
        width(padded_head_dim) {}

  void reset() const {
    for (float* x = mixed; x < maxima; x += Simd::kWidth) Simd::store(x, Simd::zero());
    for (int64_t q = 0; q < queries; ++q) maxima[q] = kMinusInfinity;
  }
  [[nodiscard]] float sum(int64_t q) const { return Simd::sum(Simd::load(sums + q * kLanes)); }
};

/// Lane i: the largest lane of x[i].
KVCAST_INLINE Simd::F largest_of_rows(Simd::F (&x)[Simd::kWidth]) {
  Simd::transpose(x);
  KVCAST_UNROLL
  for (int step = Simd::kWidth / 2; step > 0; step /= 2) {
    KVCAST_UNROLL
    for (int i = 0; i < step; ++i) x[i] = Simd::max(x[i], x[i + step]);
  }
  return x[0];
}

/// total <- total merged with `chunk`, which comes after it. Every query has seen a key in total or
/// sees one in chunk.
void merge(const States& total, const States& chunk) {
  for (int64_t q = 0; q < total.queries; q += Simd::kWidth) {
    const int64_t count = total.queries - q < Simd::kWidth ? total.queries - q : Simd::kWidth;
    const Simd::F before = Simd::load_first(total.maxima + q, count);
    const Simd::F after = Simd::load_first(chunk.maxima + q, count);
    const Simd::F maximum = Simd::max(before, after);
    Simd::store_first(total.maxima + q, maximum, count);
    float keep[Simd::kWidth], take[Simd::kWidth];
    Simd::store(keep, exp2(Simd::sub(before, maximum)));
    Simd::store(take, exp2(Simd::sub(after, maximum)));
    for (int64_t i = 0; i < count; ++i) {
      const Simd::F a = Simd::set(keep[i]);
      const Simd::F b = Simd::set(take[i]);
      const auto merge_row = [&](float* to, const float* from, int64_t floats) {
        for (int64_t x = 0; x < floats; x += Simd::kWidth) {
          Simd::store(to + x, Simd::fma(Simd::load(from + x), b, Simd::mul(Simd::load(to + x), a)));
        }
      };
      merge_row(total.mixed + (q + i) * total.width, chunk.mixed + (q + i) * total.width,
                total.width);
      merge_row(total.sums + (q + i) * States::kLanes, chunk.sums + (q + i) * States::kLanes,
                Simd::kWidth);
    }
  }
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
  float* queries = reinterpret_cast<float*>(args.scratch);          // [queries, width], scaled
  float* keys = queries + largest_query_block(args.shape) * width;  // [width, 64]
  float* values = keys + width * kKeyBlock;                         // [64, width], if padded
  float* scores = values + kKeyBlock * width;                       // [queries, 64]
  float* factors = scores + largest_query_block(args.shape) * kKeyBlock;  // [queries, padded]
  float* key_steps = factors + factors_floats(args.shape);                // [64], if kScaled
  float* value_steps = key_steps + kKeyBlock;                             // [64], if kScaled
  float* query_steps = value_steps + kKeyBlock;                           // [queries, padded]
  float* mix_steps = query_steps + factors_floats(args.shape);            // [queries, padded]
  float* chunk = mix_steps + factors_floats(args.shape);                  // States
  float* total = chunk + largest_query_block(args.shape) * state_floats;  // States

  [[nodiscard]] States states(float* memory) const { return {memory, queries_count, width}; }
  /// Keys that query q sees.
  [[nodiscard]] int64_t visible(int64_t q) const {
    return args.sequence->first_position + args.row_begin + q / group + 1;
  }
  [[nodiscard]] const Element* cached(const void* cache, int64_t key) const {
    return static_cast<const Element*>(cache) + args.kv_head * args.sequence->head_stride +
           key * Cache::stride(head_dim);
  }

  /// Copies the queries, scaled for a softmax in base 2.
  void load_queries() const {
    const float factor = 1.44269504F / __builtin_sqrtf(static_cast<float>(head_dim));
    for (int64_t row = args.row_begin, q = 0; row < args.row_end; ++row) {
      const float* const from =
          args.sequence->q + row * args.sequence->q_stride + args.kv_head * group * head_dim;
      for (int64_t head = 0; head < group; ++head, ++q) {
        query_steps[q] =
            Cache::store_query(from + head * head_dim, head_dim, factor, queries + q * width);
      }
    }
  }

  void load_keys_from(int64_t key, int64_t count) const {
    load_keys<Cache>(cached(args.sequence->keys, key), count, head_dim, keys,
                     waits_for_memory ? cached(args.sequence->values, key) : nullptr);
    if constexpr (Cache::kScaled) {
      load_steps(cached(args.sequence->keys, key), Cache::stride(head_dim), count, key_steps);
      load_steps(cached(args.sequence->values, key), Cache::stride(head_dim), count, value_steps);
    }
  }

  /// scores[q, 0 .. padded count) for q >= first.
  void compute_scores(int64_t first, int64_t count) const {
    small_product<typename Cache::Dot>({.a = queries + first * width,
                                        .a_stride = width * 4,
                                        .b = keys,
                                        .b_stride = kKeyBlock * 4,
                                        .depth = head_dim / Cache::kPerGroup,
                                        .out = scores + first * kKeyBlock,
                                        .out_stride = kKeyBlock * 4,
                                        .columns = padded(count),
                                        .steps = query_steps + first},
                                       queries_count - first);
  }
  /// Keys in whole vectors: what is computed of a block that has fewer than 64.
  static int64_t padded(int64_t count) {
    return (count + Simd::kWidth - 1) / Simd::kWidth * Simd::kWidth;
  }

  /// The largest step of the values of the block's first `seen` keys; NaN if one is.
  [[nodiscard]] float largest_value_step(int64_t seen) const {
    Simd::F lanes = Simd::zero(), zero_or_nan = Simd::zero();
    for (int64_t i = 0; i < kKeyBlock && i < seen; i += Simd::kWidth) {
      const Simd::F x =
          load_up_to(value_steps + i, seen - i < Simd::kWidth ? seen - i : int64_t{Simd::kWidth});
      lanes = Simd::max(lanes, x);
      zero_or_nan = Simd::fma(x, Simd::zero(), zero_or_nan);
    }
    return Simd::largest(lanes) + Simd::sum(zero_or_nan);
  }

  /// scores[q, :] of the keys [key, key + count) -> probabilities relative to the query's new
  /// maximum, as the operand of the next product, zero for keys it does not see; factors[q]: what
  /// its earlier probabilities are worth by that maximum. For q >= first, kWidth at a time: their
  /// maxima, and what follows from them, are one vector, and no query waits for another.
  template <class Operand>
  void soften(int64_t first, int64_t key, int64_t count, const States& s) const {
    for (int64_t q = first; q < queries_count; q += Simd::kWidth) {
      const int64_t rows = queries_count - q < Simd::kWidth ? queries_count - q : Simd::kWidth;
      if (count == kKeyBlock && visible(q) - key >= kKeyBlock) {
        soften_rows<Operand, true>(q, rows, key, count, s);
      } else {
        soften_rows<Operand, false>(q, rows, key, count, s);
      }
    }
  }

  template <class Operand, bool kAllSeen>
  void soften_rows(int64_t q, int64_t rows, int64_t key, int64_t count, const States& s) const {
    const auto for_each_vector_of = [&](int64_t row, auto&& f) KVCAST_LAMBDA_INLINE {
      if constexpr (kAllSeen) {
        KVCAST_UNROLL
        for (int64_t i = 0; i < kKeyBlock; i += Simd::kWidth) f(i, int64_t{Simd::kWidth});
      } else {
        const int64_t visible_keys = visible(row) - key;
        const int64_t seen = visible_keys < count ? visible_keys : count;
        for (int64_t i = 0; i < count; i += Simd::kWidth) {
          f(i, seen <= i ? 0 : seen - i < Simd::kWidth ? seen - i : int64_t{Simd::kWidth});
        }
      }
    };
    const auto first_lanes = [](Simd::F x, float otherwise, int64_t lanes) KVCAST_LAMBDA_INLINE {
      return kAllSeen ? x : Simd::first_or(x, Simd::set(otherwise), lanes);
    };
    const auto score = [&](const float* row, int64_t i) KVCAST_LAMBDA_INLINE {
      if constexpr (!Cache::kScaled) return Simd::load(row + i);
      return Simd::mul(Simd::load(row + i), Simd::load(key_steps + i));
    };
    Simd::F largest[Simd::kWidth];
    for (int64_t r = 0; r < Simd::kWidth; ++r) largest[r] = Simd::set(kMinusInfinity);
    for (int64_t r = 0; r < rows; ++r) {
      const float* const row = scores + (q + r) * kKeyBlock;
      for_each_vector_of(q + r, [&](int64_t i, int64_t lanes) KVCAST_LAMBDA_INLINE {
        largest[r] = Simd::max(largest[r], first_lanes(score(row, i), kMinusInfinity, lanes));
      });
    }
    const Simd::F before = Simd::load_first(s.maxima + q, rows);
    const Simd::F maxima = Simd::max(before, largest_of_rows(largest));
    Simd::store_first(s.maxima + q, maxima, rows);
    Simd::store(factors + q, exp2(Simd::sub(before, maxima)));
    float largest_step = 0.0F;  // of the values that a query sees
    if constexpr (Operand::kIntegers && kAllSeen) largest_step = largest_value_step(kKeyBlock);
    for (int64_t r = 0; r < rows; ++r) {
      if constexpr (Operand::kIntegers) {
        if (!kAllSeen) largest_step = largest_value_step(visible(q + r) - key);
        mix_steps[q + r] = largest_step * (1.0F / kLargestHalf);
      }
      const Simd::F value_scale =
          Simd::set(largest_step >= kSmallestLargest ? kLargestHalf / largest_step : 0.0F);
      float* const row = scores + (q + r) * kKeyBlock;
      float* const sums = s.sums + (q + r) * States::kLanes;
      const Simd::F maximum = Simd::set(s.maxima[q + r]);
      Simd::F sum = Simd::zero();
      for_each_vector_of(q + r, [&](int64_t i, int64_t lanes) KVCAST_LAMBDA_INLINE {
        const Simd::F x = Simd::sub(score(row, i), maximum);
        const Simd::F p = first_lanes(Operand::probabilities(x), 0.0F, lanes);
        if constexpr (Operand::kScaled) {
          Simd::F weighted = Simd::mul(p, Simd::load(value_steps + i));
          if constexpr (Operand::kIntegers) weighted = Simd::mul(weighted, value_scale);
          Operand::store_probabilities(row, i, first_lanes(weighted, 0.0F, lanes));
        } else {
          Operand::store_probabilities(row, i, p);
        }
        sum = Simd::add(sum, p);
      });
      Simd::store(sums, Simd::fma(Simd::load(sums), Simd::set(factors[q + r]), sum));
    }
  }

  /// mixed <- mixed * factors + scores * values, q >= first.
  void mix_values(int64_t first, int64_t key, int64_t count, const States& s) const {
    const void* const source =
        Cache::prepare_values(cached(args.sequence->values, key), count, head_dim, width, values);
    small_product<typename Cache::Dot>({.a = scores + first * kKeyBlock,
                                        .a_stride = kKeyBlock * 4,
                                        .b = source,
                                        .b_stride = width * 4,
                                        .depth = (count + Cache::kPerGroup - 1) / Cache::kPerGroup,
                                        .out = s.mixed + first * width,
                                        .out_stride = width * 4,
                                        .columns = width,
                                        .keep = factors + first,
                                        .steps = mix_steps + first},
                                       queries_count - first);
  }

  /// The first query that sees `key`.
  [[nodiscard]] int64_t first_seeing(int64_t key) const {
    const int64_t row = key - args.sequence->first_position - args.row_begin;
    return row > 0 ? row * group : 0;
  }
  [[nodiscard]] int64_t last_visible() const { return visible(queries_count - 1); }

  /// One chunk from empty states.
  void run_chunk(int64_t c, const States& s) const {
    s.reset();
    const int64_t chunk_end = (c + 1) * kChunkKeys;
    const int64_t end = last_visible() < chunk_end ? last_visible() : chunk_end;
    for (int64_t key = c * kChunkKeys; key < end; key += kKeyBlock) {
      const int64_t count = end - key < kKeyBlock ? end - key : kKeyBlock;
      const int64_t first = first_seeing(key);
      load_keys_from(key, count);
      compute_scores(first, count);
      soften<Cache>(first, key, count, s);
      mix_values(first, key, count, s);
    }
  }

  void write_out(const States& s) const {
    const AttentionArgs& sequence = *args.sequence;
    for (int64_t q = 0; q < queries_count; ++q) {
      const Simd::F inverse = Simd::set(1.0F / s.sum(q));
      const OutRow out = OutRow::of(sequence.out, sequence.out_bf16,
                                    (args.row_begin + q / group) * sequence.out_stride +
                                        (args.kv_head * group + q % group) * head_dim);
      for_each_lane_group(0, head_dim, [&](int64_t i, int64_t count) {
        out.store(i, Simd::mul(Simd::load(s.mixed + q * width + i), inverse), count);
      });
    }
  }
};

size_t attend_scratch_bytes(const AttentionShape& shape) {
  const int64_t width = padded_head_dim(shape);
  const int64_t queries = largest_query_block(shape);
  const int64_t floats = queries * (width + kKeyBlock + 2 * (width + kStateExtra)) +
                         3 * factors_floats(shape) + 2 * kKeyBlock + 2 * kKeyBlock * width;
  return static_cast<size_t>(floats) * sizeof(float);
}

template <class Cache>
void attend(const AttendArgs& args) {
  const AttendBlock<Cache> block{args};
  block.load_queries();
  if (args.partial != nullptr) {
    for (int64_t c = args.chunk_begin; c < args.chunk_end; ++c) {
      block.run_chunk(c, block.states(args.partial + c * block.queries_count * block.state_floats));
    }
    return;
  }
  const States total = block.states(block.total);
  block.run_chunk(args.chunk_begin, total);
  for (int64_t c = args.chunk_begin + 1; c < args.chunk_end; ++c) {
    const States chunk = block.states(block.chunk);
    block.run_chunk(c, chunk);
    merge(total, chunk);
  }
  block.write_out(total);
}

void merge_chunks(const AttendArgs& args) {
  const AttendBlock<CacheF32> block{args};  // states and output are the same for every cache
  const States total = block.states(block.total);
  total.reset();
  for (int64_t c = args.chunk_begin; c < args.chunk_end; ++c) {
    merge(total, block.states(args.partial + c * block.queries_count * block.state_floats));
  }
  block.write_out(total);
}

/// Two passes over the keys: maximum and sum of each head, then the probabilities.
template <class Cache>
void last_row_probabilities(const AttendArgs& args, float* sums) {
  const AttendBlock<Cache> block{args};
  block.load_queries();
  const int64_t keys = block.last_visible();
  const States s = block.states(block.total);
  s.reset();
  const auto soften_each_block = [&](auto&& use) {
    for (int64_t key = 0; key < keys; key += kKeyBlock) {
      const int64_t count = keys - key < kKeyBlock ? keys - key : kKeyBlock;
      block.load_keys_from(key, count);
      block.compute_scores(0, count);
      block.template soften<CacheF32>(0, key, count, s);
      use(key, count);
    }
  };
  soften_each_block([](int64_t, int64_t) {});
  float* const weights = s.mixed;  // not used here
  for (int64_t q = 0; q < block.queries_count; ++q) weights[q] = 1.0F / s.sum(q);
  soften_each_block([&](int64_t key, int64_t count) {
    for (int64_t j = 0; j < count; ++j) {
      float sum = 0.0F;
      for (int64_t q = 0; q < block.queries_count; ++q) {
        sum += block.scores[q * kKeyBlock + j] * weights[q];
      }
      sums[key + j] = sum;
    }
  });
}

}  // namespace
}  // namespace kvcast
