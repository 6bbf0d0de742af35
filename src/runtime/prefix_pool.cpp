#include "runtime/prefix_pool.h"

#include <algorithm>
#include <span>

#include "prefill/refine.h"

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

int64_t PrefixPool::rows_for(CacheFamily family, const Entry& entry) {
  const bool all = entry.family == family ||
                   (family == CacheFamily::kHealing && entry.family == CacheFamily::kExact);
  if (all) return std::ssize(entry.sequence.tokens);
  const bool exact_part = family == CacheFamily::kExact && entry.family == CacheFamily::kHealing;
  return exact_part ? entry.sequence.base.exact_rows() : 0;
}

int64_t PrefixPool::take(CacheFamily family, int64_t limit, Sequence& sequence) {
  auto best = entries_.end();
  int64_t best_rows = kFewestRows - 1;
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    const int64_t rows = std::min(
        {rows_for(family, *entry), limit, common_prefix(entry->sequence.tokens, sequence.tokens)});
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
    const int64_t shared = common_prefix(entry->sequence.tokens, tokens);
    if (std::min(rows_for(family, *entry), shared) == rows) {
      entries_.splice(entries_.begin(), entries_, entry);
      return;
    }
    const bool same = entry->family == family ||
                      (family == CacheFamily::kExact && entry->family == CacheFamily::kHealing);
    const bool covered = same && shared == std::ssize(entry->sequence.tokens);
    entry = covered ? erase(entry) : std::next(entry);
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

bool PrefixPool::refine_next(const std::function<bool(Sequence&)>& refine) {
  const auto entry = std::ranges::find(entries_, CacheFamily::kHealing, &Entry::family);
  if (entry == entries_.end()) return false;
  if (!refine(entry->sequence)) {
    erase(entry);
  } else if (inexact_rows(entry->sequence) == 0) {
    Sequence exact = std::move(entry->sequence);
    erase(entry);
    const int64_t rows = std::ssize(exact.tokens);
    put(CacheFamily::kExact, rows, std::move(exact));
  }
  return true;
}

PrefixPool::Entries::iterator PrefixPool::erase(Entries::iterator entry) {
  bytes_ -= entry->bytes;
  return entries_.erase(entry);
}

void PrefixPool::shrink_to(int64_t bytes) {
  while (bytes_ > bytes && !entries_.empty()) {
    bytes_ -= entries_.back().bytes;
    entries_.pop_back();
  }
}

}  // namespace kvcast
