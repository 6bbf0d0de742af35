// Division of attention among threads: over sequences, KV heads and blocks of rows; where those are
// too few (decode), over chunks of keys too.
#include <algorithm>
#include <atomic>
#include <cassert>
#include <vector>

#include "base/team.h"
#include "kernels/kernel_table.h"
#include "kernels/kernels.h"
#include "kernels/memory.h"

namespace kvcast {
namespace {

/// Below this many multiply-adds a call is shorter than waking a thread.
constexpr int64_t kSerialWork = 50'000;

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Where the tasks and partial states of one sequence start.
struct Offsets {
  int64_t first_block = 0;    ///< of (KV head, block of rows) pairs
  int64_t first_task = 0;     ///< of (pair, chunk) triples
  int64_t first_partial = 0;  ///< floats
  int64_t row_blocks = 0;
  int64_t chunks = 0;  ///< of the last row
};

class Call {
 public:
  Call(std::span<const AttentionArgs> sequences, const AttentionShape& shape, int threads)
      : sequences_(sequences),
        shape_(shape),
        threads_(threads),
        table_(kernels()),
        rows_per_block_(attention_rows_per_block(shape)) {
    thread_local std::vector<Offsets> offsets;
    offsets.clear();
    Offsets next;
    for (const AttentionArgs& s : sequences_) {
      next.row_blocks = ceil_divide(s.rows, rows_per_block_);
      next.chunks = ceil_divide(s.first_position + s.rows, kChunkKeys);
      offsets.push_back(next);
      const int64_t blocks = next.row_blocks * shape_.kv_heads;
      next.first_block += blocks;
      next.first_task += blocks * next.chunks;
      next.first_partial += blocks * next.chunks * partial_floats_per_chunk();
    }
    offsets.push_back(next);
    offsets_ = offsets;
    split_chunks_ =
        threads_ > 1 && next.first_block < 2 * threads_ && next.first_task > next.first_block;
    thread_local Scratch scratch;
    scratch_bytes_ =
        padded_scratch_bytes(static_cast<int64_t>(table_.attend_scratch_bytes(shape_)));
    const int64_t partial_bytes =
        split_chunks_ ? next.first_partial * static_cast<int64_t>(sizeof(float)) : 0;
    scratch_ = scratch.reserve(static_cast<size_t>(threads_ * scratch_bytes_ + partial_bytes));
    if (split_chunks_) partials_ = reinterpret_cast<float*>(scratch_ + threads_ * scratch_bytes_);
  }

  void run() {
    run_together(threads_, [this](int worker) { work(scratch_of(worker)); });
    if (!split_chunks_) return;
    parallel_for(offsets_.back().first_block, threads_,
                 [this](int64_t block, int worker) { merge(block, scratch_of(worker)); });
  }

 private:
  [[nodiscard]] int64_t partial_floats_per_chunk() const {
    return rows_per_block_ * (shape_.query_heads / shape_.kv_heads) *
           attention_state_floats(shape_);
  }

  [[nodiscard]] std::byte* scratch_of(int worker) const {
    return scratch_ + worker * scratch_bytes_;
  }

  void work(std::byte* scratch) {
    const int64_t tasks = split_chunks_ ? offsets_.back().first_task : offsets_.back().first_block;
    for (int64_t task = next_task_.fetch_add(1, std::memory_order_relaxed); task < tasks;
         task = next_task_.fetch_add(1, std::memory_order_relaxed)) {
      AttendArgs args;
      if (split_chunks_) {
        const size_t sequence = find_sequence(task, &Offsets::first_task);
        const int64_t chunks = offsets_[sequence].chunks;
        const int64_t local = task - offsets_[sequence].first_task;
        args = describe(sequence, local / chunks);
        args.chunk_begin = local % chunks;
        args.chunk_end = std::min(args.chunk_begin + 1, args.chunk_end);
        if (args.chunk_begin >= args.chunk_end) continue;
      } else {
        const size_t sequence = find_sequence(task, &Offsets::first_block);
        args = describe(sequence, task - offsets_[sequence].first_block);
        args.partial = nullptr;
      }
      args.scratch = scratch;
      table_.attention(shape_.kv_type).attend(args);
    }
  }

  void merge(int64_t block, std::byte* scratch) const {
    const size_t sequence = find_sequence(block, &Offsets::first_block);
    AttendArgs args = describe(sequence, block - offsets_[sequence].first_block);
    args.scratch = scratch;
    table_.merge(args);
  }

  [[nodiscard]] size_t find_sequence(int64_t index, int64_t Offsets::*first) const {
    const auto after =
        std::upper_bound(offsets_.begin(), offsets_.end(), index,
                         [first](int64_t value, const Offsets& o) { return value < o.*first; });
    return static_cast<size_t>(after - offsets_.begin()) - 1;
  }

  /// Block `local` of a sequence with all its chunks; the last rows, which see most, come first.
  [[nodiscard]] AttendArgs describe(size_t sequence, int64_t local) const {
    const AttentionArgs& s = sequences_[sequence];
    const Offsets& o = offsets_[sequence];
    AttendArgs args;
    args.sequence = &s;
    args.shape = shape_;
    args.kv_head = local % shape_.kv_heads;
    args.row_begin = (o.row_blocks - 1 - local / shape_.kv_heads) * rows_per_block_;
    args.row_end = std::min(args.row_begin + rows_per_block_, s.rows);
    args.chunk_end = ceil_divide(s.first_position + args.row_end, kChunkKeys);
    if (partials_ != nullptr) {
      args.partial = partials_ + o.first_partial + local * o.chunks * partial_floats_per_chunk();
    }
    return args;
  }

  std::span<const AttentionArgs> sequences_;
  const AttentionShape& shape_;
  int threads_;
  const KernelTable& table_;
  int64_t rows_per_block_;
  std::span<const Offsets> offsets_;  // [sequences + 1], the last one holds the totals
  bool split_chunks_ = false;
  std::byte* scratch_ = nullptr;  // [threads, scratch_bytes_], then the partial states
  int64_t scratch_bytes_ = 0;
  float* partials_ = nullptr;
  std::atomic<int64_t> next_task_{0};
};

/// Each KV head's sums into scratch, then their mean in the order of the heads.
void write_last_row(const AttentionArgs& sequence, const AttentionShape& shape, int threads) {
  thread_local Scratch memory;
  const KernelTable& table = kernels();
  const int64_t keys = sequence.first_position + sequence.rows;
  const int64_t scratch_bytes =
      padded_scratch_bytes(static_cast<int64_t>(table.attend_scratch_bytes(shape)));
  const int64_t sums_bytes = shape.kv_heads * keys * static_cast<int64_t>(sizeof(float));
  std::byte* const scratch =
      memory.reserve(static_cast<size_t>(threads * scratch_bytes + sums_bytes));
  float* const sums = reinterpret_cast<float*>(scratch + threads * scratch_bytes);
  parallel_for(shape.kv_heads, threads, [&](int64_t head, int worker) {
    AttendArgs args;
    args.sequence = &sequence;
    args.shape = shape;
    args.kv_head = head;
    args.row_begin = sequence.rows - 1;
    args.row_end = sequence.rows;
    args.scratch = scratch + worker * scratch_bytes;
    table.attention(shape.kv_type).last_row(args, sums + head * keys);
  });
  const float weight = 1.0F / static_cast<float>(shape.query_heads);
  for (int64_t j = 0; j < keys; ++j) {
    float sum = 0.0F;
    for (int64_t head = 0; head < shape.kv_heads; ++head) sum += sums[head * keys + j];
    sequence.last_row_probabilities[j] = sum * weight;
  }
}

}  // namespace

void attention(std::span<const AttentionArgs> sequences, const AttentionShape& shape, int threads) {
  assert(threads > 0 && shape.kv_heads > 0 && shape.query_heads % shape.kv_heads == 0);
  int64_t work = 0;
  for (const AttentionArgs& s : sequences) {
    work += s.rows * (s.first_position + s.rows) * shape.query_heads * shape.head_dim;
  }
  if (work == 0) return;
  const int useful = work < kSerialWork ? 1 : threads;
  Call(sequences, shape, useful).run();
  for (const AttentionArgs& s : sequences) {
    if (s.last_row_probabilities != nullptr && s.rows > 0) write_last_row(s, shape, useful);
  }
}

}  // namespace kvcast
