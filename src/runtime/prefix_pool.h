#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <vector>

#include "prefill/strategy.h"
#include "runtime/prefix_store.h"

namespace kvcast {

/// KV caches that finished requests left, for later prompts that begin alike. Entries of one cache
/// family (CacheUse) only ever serve that family, so exact and forecast rows
/// never mix. Bounded in bytes, least recently used out first. Not thread-safe.
class PrefixPool {
 public:
  PrefixPool(const Models& models, int64_t max_bytes) : models_(models), max_bytes_(max_bytes) {}

  /// Fills the empty caches of `sequence` with the longest stored prefix of its first `limit`
  /// tokens that the family may go on from: exact rows serve what heals too, and of what heals the
  /// exact rows serve what is exact. Returns its length; 0 if that is shorter than kFewestRows.
  int64_t take(CacheFamily family, int64_t limit, Sequence& sequence);

  /// Keeps the first `rows` rows of a sequence that is not needed any more, unless an entry
  /// already covers them. `pinned`: they stay, whatever else wants the room, if all that stays is
  /// within the pool's bound; else they are kept as any other.
  void put(CacheFamily family, int64_t rows, Sequence&& sequence, bool pinned = false);

  /// What is exact goes to this store too, and comes from it.
  void keep_in(std::unique_ptr<PrefixStore> store) { store_ = std::move(store); }

  /// Gives the entry last used that still has forecast rows to heal to `refine`, which makes some
  /// of them exact, or returns false to have the entry dropped. One that is exact throughout joins
  /// the exact family. False: there is none.
  bool refine_next(const std::function<bool(Sequence&)>& refine);

  /// Drops entries that are not pinned, oldest first, until at most `bytes` are held.
  void shrink_to(int64_t bytes);
  [[nodiscard]] int64_t bytes() const { return bytes_; }
  [[nodiscard]] int64_t max_bytes() const { return max_bytes_; }
  [[nodiscard]] int64_t pinned_bytes() const { return pinned_bytes_; }

  /// Copying fewer rows costs more than running them.
  static constexpr int64_t kFewestRows = 8;

 private:
  struct Entry {
    CacheFamily family;
    /// Tokens and caches of exactly the reusable rows. What is exact does not change any more.
    std::shared_ptr<Sequence> sequence;
    int64_t bytes = 0;
    bool pinned = false;
  };
  using Entries = std::list<Entry>;
  /// Rows of an entry that a family may go on from.
  static int64_t rows_for(CacheFamily family, const Entry& entry);
  Entries::iterator erase(Entries::iterator entry);
  void pin(Entry& entry);
  void add(CacheFamily family, std::shared_ptr<Sequence> sequence, bool pinned);
  const Models& models_;
  int64_t max_bytes_;
  int64_t bytes_ = 0, pinned_bytes_ = 0;
  Entries entries_;  // most recently used first
  std::unique_ptr<PrefixStore> store_;
};

}  // namespace kvcast
