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
  const int64_t capacity = cache.capacity();
  constexpr int64_t kGranule = 64;  // rows; less than this is not worth a copy
  if (capacity > position + position / 4 + kGranule) return kept.copy_from(cache, position);
  cache.truncate(position);
  kept = std::move(cache);
}

}  // namespace

int64_t PrefixPool::rows_for(CacheFamily family, const Entry& entry) {
  const bool all = entry.family == family ||
                   (family == CacheFamily::kHealing && entry.family == CacheFamily::kExact);
  if (all) return std::ssize(entry.sequence->tokens);
  const bool exact_part = family == CacheFamily::kExact && entry.family == CacheFamily::kHealing;
  return exact_part ? entry.sequence->base.exact_rows() : 0;
}

int64_t PrefixPool::take(CacheFamily family, int64_t limit, Sequence& sequence) {
  auto best = entries_.end();
  int64_t best_rows = kFewestRows - 1;
  const auto wanted =
      std::span(sequence.tokens).first(static_cast<size_t>(std::max<int64_t>(limit, 0)));
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    const int64_t rows = std::min(
        {rows_for(family, *entry), limit, common_prefix(entry->sequence->tokens, sequence.tokens)});
    if (rows > best_rows) {
      best = entry;
      best_rows = rows;
    }
  }
  if (store_ && (family == CacheFamily::kExact || family == CacheFamily::kHealing)) {
    if (auto stored = store_->load(wanted, best_rows)) {
      best_rows = common_prefix(stored->tokens, wanted);
      sequence.base.copy_from(stored->base, best_rows);
      sequence.auxiliary.truncate(0);
      add(CacheFamily::kExact, std::move(stored), false);
      return best_rows;
    }
  }
  if (best == entries_.end()) return 0;
  sequence.base.copy_from(best->sequence->base, best_rows);
  // An exact prompt has no use for what an auxiliary read, nor memory.
  if (family != CacheFamily::kExact) {
    sequence.auxiliary.copy_from(best->sequence->auxiliary, best_rows);
  }
  entries_.splice(entries_.begin(), entries_, best);
  return best_rows;
}

void PrefixPool::put(CacheFamily family, int64_t rows, Sequence&& sequence, bool pinned) {
  if (family == CacheFamily::kNone || rows < kFewestRows || max_bytes_ <= 0) return;
  const auto tokens = std::span(sequence.tokens).first(static_cast<size_t>(rows));
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    const int64_t shared = common_prefix(entry->sequence->tokens, tokens);
    if (std::min(rows_for(family, *entry), shared) == rows) {
      if (pinned) pin(*entry);
      entries_.splice(entries_.begin(), entries_, entry);
      return;
    }
    const bool same = entry->family == family ||
                      (family == CacheFamily::kExact && entry->family == CacheFamily::kHealing);
    const bool covered = same && !entry->pinned && shared == std::ssize(entry->sequence->tokens);
    entry = covered ? erase(entry) : std::next(entry);
  }
  auto kept = std::make_shared<Sequence>(models_);
  kept->tokens.assign(tokens.begin(), tokens.end());
  take_over(sequence.base, rows, kept->base);
  take_over(sequence.auxiliary, rows, kept->auxiliary);
  if (store_ && family == CacheFamily::kExact) store_->save(kept);
  add(family, std::move(kept), pinned);
}

void PrefixPool::add(CacheFamily family, std::shared_ptr<Sequence> sequence, bool pinned) {
  const int64_t bytes = sequence->base.bytes() + sequence->auxiliary.bytes();
  bytes_ += bytes;
  entries_.push_front({family, std::move(sequence), bytes});
  if (pinned) pin(entries_.front());
  shrink_to(max_bytes_);
}

void PrefixPool::pin(Entry& entry) {
  if (entry.pinned || pinned_bytes_ + entry.bytes > max_bytes_) return;
  entry.pinned = true;
  pinned_bytes_ += entry.bytes;
}

bool PrefixPool::refine_next(const std::function<bool(Sequence&)>& refine) {
  const auto entry = std::ranges::find(entries_, CacheFamily::kHealing, &Entry::family);
  if (entry == entries_.end()) return false;
  if (!refine(*entry->sequence)) {
    erase(entry);
  } else if (inexact_rows(*entry->sequence) == 0) {
    const std::shared_ptr<Sequence> exact = entry->sequence;
    const bool pinned = entry->pinned;
    erase(entry);
    const int64_t rows = std::ssize(exact->tokens);
    put(CacheFamily::kExact, rows, std::move(*exact), pinned);
  }
  return true;
}

PrefixPool::Entries::iterator PrefixPool::erase(Entries::iterator entry) {
  bytes_ -= entry->bytes;
  if (entry->pinned) pinned_bytes_ -= entry->bytes;
  return entries_.erase(entry);
}

void PrefixPool::shrink_to(int64_t bytes) {
  for (auto entry = entries_.end(); bytes_ > bytes && entry != entries_.begin();) {
    --entry;
    if (!entry->pinned) entry = erase(entry);
  }
}

}  // namespace kvcast
