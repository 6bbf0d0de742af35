#include "runtime/prefix_pool.h"

#include <algorithm>
#include <span>

namespace kvcast {
namespace {

int64_t common_prefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
}

/// Takes over what `cache` holds before `position`: its memory as it is, or a copy if most of that
/// was for rows that never came.
void take_over(KVCache& cache, int64_t position, KVCache& kept) {
  const int64_t capacity = cache.head_stride() / cache.head_dim();
  constexpr int64_t kGranule = 64;  // rows; less than this is not worth a copy
  if (capacity > position + position / 4 + kGranule) return kept.copy_from(cache, position);
  cache.truncate(position);
  kept = std::move(cache);
}

}  // namespace

int64_t PrefixPool::take(CacheFamily family, int64_t limit, Sequence& sequence) {
  auto best = entries_.end();
  int64_t best_rows = kFewestRows - 1;
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    if (entry->family != family) continue;
    const int64_t rows = std::min(common_prefix(entry->sequence.tokens, sequence.tokens), limit);
    if (rows > best_rows) {
      best = entry;
      best_rows = rows;
    }
  }
  if (best == entries_.end()) return 0;
  sequence.base.copy_from(best->sequence.base, best_rows);
  sequence.auxiliary.copy_from(best->sequence.auxiliary, best_rows);
  entries_.splice(entries_.begin(), entries_, best);
  return best_rows;
}

void PrefixPool::put(CacheFamily family, int64_t rows, Sequence&& sequence) {
  if (family == CacheFamily::kNone || rows < kFewestRows || max_bytes_ <= 0) return;
  const auto tokens = std::span(sequence.tokens).first(static_cast<size_t>(rows));
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    const int64_t shared =
        entry->family == family ? common_prefix(entry->sequence.tokens, tokens) : 0;
    if (shared == rows) {
      entries_.splice(entries_.begin(), entries_, entry);
      return;
    }
    const bool covered =
        entry->family == family && shared == static_cast<int64_t>(entry->sequence.tokens.size());
    if (covered) bytes_ -= entry->bytes;
    entry = covered ? entries_.erase(entry) : std::next(entry);
  }
  Entry entry{family, Sequence(models_), 0};
  entry.sequence.tokens.assign(tokens.begin(), tokens.end());
  take_over(sequence.base, rows, entry.sequence.base);
  take_over(sequence.auxiliary, rows, entry.sequence.auxiliary);
  entry.bytes = entry.sequence.base.bytes() + entry.sequence.auxiliary.bytes();
  bytes_ += entry.bytes;
  entries_.push_front(std::move(entry));
  shrink_to(max_bytes_);
}

void PrefixPool::shrink_to(int64_t bytes) {
  while (bytes_ > bytes && !entries_.empty()) {
    bytes_ -= entries_.back().bytes;
    entries_.pop_back();
  }
}

}  // namespace kvcast
