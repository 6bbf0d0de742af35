// One conversation: its tokens, a cache per model, who answers.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kvcast/session.h"
#include "model/kv_cache.h"
#include "prefill/models.h"

namespace kvcast {

/// One conversation. `tokens` is all of it, prompts and answers; each cache holds K/V of the first
/// next_position() of these tokens. Whatever a cache does not hold yet is *pending* for its model:
/// the next prefill or decode step that uses the model runs it. Not thread-safe.
struct Sequence {
  explicit Sequence(const Models& models);

  std::vector<int32_t> tokens;
  KVCache base;
  KVCache auxiliary;  // no layers for a plain model
  /// Who decodes: the base, except after prefill with the strategy `auxiliary`.
  enum class Answerer { kBase, kAuxiliary } answerer = Answerer::kBase;
  /// What was said of this turn's forecast, if it was judged.
  std::optional<GateDecision> gate;
  /// The auxiliary's share of the logits of this turn's answer while the base's cache is not exact.
  double mix = 0;

  [[nodiscard]] const Transformer& answering_model(const Models& models) const {
    return answerer == Answerer::kBase ? *models.base : *models.auxiliary;
  }
  [[nodiscard]] KVCache& answering_cache() {
    return answerer == Answerer::kBase ? base : auxiliary;
  }
  [[nodiscard]] const KVCache& answering_cache() const {
    return answerer == Answerer::kBase ? base : auxiliary;
  }
  /// Tokens that the answering model has not run yet.
  [[nodiscard]] int64_t pending_tokens() const {
    return static_cast<int64_t>(tokens.size()) - answering_cache().next_position();
  }
  /// A second sequence with these tokens, and what the caches hold before `position`.
  [[nodiscard]] Sequence fork(const Models& models, int64_t position) const;
};

/// Which cache of a sequence a run fills.
using CacheMember = KVCache Sequence::*;
constexpr CacheMember cache_of(Sequence::Answerer answerer) {
  return answerer == Sequence::Answerer::kBase ? &Sequence::base : &Sequence::auxiliary;
}

/// Takes the caches back to where they were when it was made, unless dismissed.
class CacheRollback {
 public:
  explicit CacheRollback(std::span<Sequence* const> sequences);
  ~CacheRollback();
  CacheRollback(const CacheRollback&) = delete;
  CacheRollback& operator=(const CacheRollback&) = delete;
  void dismiss() { positions_.clear(); }

 private:
  struct Position {
    Sequence* sequence;
    int64_t base, auxiliary;
  };
  std::vector<Position> positions_;
};

}  // namespace kvcast
