#include "prefill/sequence.h"

namespace kvcast {

Sequence::Sequence(const Models& models)
    : base(models.base->config(), models.kv_type),
      auxiliary(models.auxiliary ? models.auxiliary->config() : ModelConfig{}, models.kv_type) {}

Sequence Sequence::fork(const Models& models, int64_t position) const {
  Sequence copy(models);
  copy.tokens = tokens;
  copy.answerer = answerer;
  copy.mix = mix;
  copy.base.reserve(base.capacity());  // room for the answer, as here
  copy.auxiliary.reserve(auxiliary.capacity());
  copy.base.copy_from(base, position);
  copy.auxiliary.copy_from(auxiliary, position);
  return copy;
}

CacheRollback::CacheRollback(std::span<Sequence* const> sequences) {
  for (Sequence* sequence : sequences) {
    positions_.push_back(
        {sequence, sequence->base.next_position(), sequence->auxiliary.next_position()});
  }
}

CacheRollback::~CacheRollback() {
  for (const Position& position : positions_) {
    position.sequence->base.truncate(position.base);
    position.sequence->auxiliary.truncate(position.auxiliary);
  }
}

}  // namespace kvcast
