#include "tokenizer/token_index.h"

#include <bit>
#include <cstring>
#include <utility>

namespace kvcast {

uint64_t hash_bytes(std::string_view bytes) {
  constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15ULL;
  uint64_t hash = bytes.size() * kMultiplier;
  while (!bytes.empty()) {
    uint64_t word = 0;
    const size_t taken = bytes.size() < sizeof word ? bytes.size() : sizeof word;
    std::memcpy(&word, bytes.data(), taken);
    hash = (hash ^ word) * kMultiplier;
    hash ^= hash >> 32;
    bytes.remove_prefix(taken);
  }
  hash *= kMultiplier;  // the last bytes of the text have reached the upper half only
  return hash ^ hash >> 32;
}

void TokenIndex::reserve(size_t tokens) { grow(std::bit_ceil(tokens * 2 + 1)); }

size_t TokenIndex::slot_of(std::string_view text, uint32_t hash) const {
  for (size_t at = hash & (slots_.size() - 1);; at = (at + 1) & (slots_.size() - 1)) {
    const Slot& slot = slots_[at];
    if (slot.id < 0) return at;
    if (slot.hash == hash && std::string_view(texts_).substr(slot.begin, slot.length) == text) {
      return at;
    }
  }
}

void TokenIndex::grow(size_t slots) {
  if (slots <= slots_.size()) return;
  const auto old = std::exchange(slots_, std::vector<Slot>(slots));
  for (const Slot& slot : old) {
    if (slot.id < 0) continue;
    const std::string_view text = std::string_view(texts_).substr(slot.begin, slot.length);
    slots_[slot_of(text, slot.hash)] = slot;
  }
}

bool TokenIndex::insert(std::string_view text, int32_t id) {
  if ((size_ + 1) * 2 > slots_.size()) grow(slots_.empty() ? 16 : slots_.size() * 2);
  const auto hash = static_cast<uint32_t>(hash_bytes(text));
  Slot& slot = slots_[slot_of(text, hash)];
  if (slot.id >= 0) return false;
  slot = {hash, static_cast<uint32_t>(texts_.size()), static_cast<uint32_t>(text.size()), id};
  texts_.append(text);
  ++size_;
  return true;
}

int32_t TokenIndex::find(std::string_view text) const {
  if (slots_.empty()) return -1;
  return slots_[slot_of(text, static_cast<uint32_t>(hash_bytes(text)))].id;
}

}  // namespace kvcast
