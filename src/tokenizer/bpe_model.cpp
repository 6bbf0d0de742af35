#include "tokenizer/bpe_model.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <utility>

#include "base/utf8.h"

namespace kvcast {
namespace {

constexpr uint32_t kNoMerge = UINT32_MAX;
constexpr size_t kNone = SIZE_MAX;
/// Below this much text, remembering words costs more than it saves.
constexpr size_t kMinRememberedBytes = 4096;
constexpr size_t kKnownWords = 8192;

size_t hash_pair(int32_t left, int32_t right) {
  const uint64_t key =
      static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  return static_cast<size_t>((key * 0x9E3779B97F4A7C15ULL) >> 24);
}

}  // namespace

void BpeModel::reserve_merges(size_t merges) { grow_merges(std::bit_ceil(merges * 3 / 2 + 1)); }

size_t BpeModel::slot_of(int32_t left, int32_t right) const {
  const size_t mask = merges_.size() - 1;
  for (size_t at = hash_pair(left, right) & mask;; at = (at + 1) & mask) {
    const Merge& merge = merges_[at];
    if (merge.result < 0 || (merge.left == left && merge.right == right)) return at;
  }
}

void BpeModel::grow_merges(size_t slots) {
  if (slots <= merges_.size()) return;
  const auto old = std::exchange(merges_, std::vector<Merge>(slots));
  for (const Merge& merge : old) {
    if (merge.result >= 0) merges_[slot_of(merge.left, merge.right)] = merge;
  }
}

void BpeModel::add_merge(int32_t left, int32_t right, int32_t result, uint32_t rank) {
  if ((merge_count_ + 1) * 4 > merges_.size() * 3) {
    grow_merges(merges_.empty() ? 16 : merges_.size() * 2);
  }
  Merge& slot = merges_[slot_of(left, right)];
  if (slot.result >= 0) return;
  slot = {left, right, result, rank};
  ++merge_count_;
}

const BpeModel::Merge* BpeModel::find_merge(int32_t left, int32_t right) const {
  if (merges_.empty()) return nullptr;
  const Merge& slot = merges_[slot_of(left, right)];
  return slot.result < 0 ? nullptr : &slot;
}

BpeScratch::BpeScratch(size_t text_bytes) {
  if (text_bytes >= kMinRememberedBytes) known_.resize(kKnownWords);
}

void BpeModel::encode(std::string_view word, BpeScratch& scratch,
                      std::vector<int32_t>& tokens) const {
  BpeScratch::KnownWord* known = nullptr;
  if (!scratch.known_.empty() && word.size() <= BpeScratch::kMaxWordBytes) {
    known = &scratch.known_[hash_bytes(word) % kKnownWords];
    if (known->length == word.size() && std::memcmp(known->text, word.data(), word.size()) == 0) {
      const size_t end = tokens.size();
      tokens.resize(end + known->count);
      std::copy_n(tokens.begin() + static_cast<std::ptrdiff_t>(known->first), known->count,
                  tokens.begin() + static_cast<std::ptrdiff_t>(end));
      return;
    }
  }
  const size_t first = tokens.size();
  if (const int32_t whole = words.find(word); whole >= 0) {
    tokens.push_back(whole);
  } else {
    spell(word, scratch);
    merge(scratch);
    for (size_t at = 0; at != kNone && !scratch.symbols_.empty(); at = scratch.symbols_[at].next) {
      tokens.push_back(scratch.symbols_[at].token);
    }
  }
  if (known) {
    std::memcpy(known->text, word.data(), word.size());
    known->length = static_cast<uint8_t>(word.size());
    known->count = static_cast<uint32_t>(tokens.size() - first);
    known->first = first;
  }
}

/// The word as the smallest tokens: bytes, or characters.
void BpeModel::spell(std::string_view word, BpeScratch& scratch) const {
  auto& symbols = scratch.symbols_;
  symbols.clear();
  const auto push = [&](int32_t token) {
    const size_t at = symbols.size();
    symbols.push_back({token, kNoMerge, at == 0 ? kNone : at - 1, at + 1});
  };
  const auto push_unknown = [&] {
    const bool fused = fuse_unknown && !symbols.empty() && symbols.back().token == unknown;
    if (unknown >= 0 && !fused) push(unknown);
  };
  while (!word.empty()) {
    const size_t length = byte_level ? 1 : std::max<size_t>(1, first_utf8_character(word).bytes);
    const std::string_view character = word.substr(0, length);
    word.remove_prefix(length);
    const int32_t token =
        byte_level ? bytes[static_cast<uint8_t>(character[0])] : characters.find(character);
    const auto has_token = [&](char c) { return bytes[static_cast<uint8_t>(c)] >= 0; };
    if (token >= 0) {
      push(token);
    } else if (byte_fallback && std::all_of(character.begin(), character.end(), has_token)) {
      for (const char c : character) push(bytes[static_cast<uint8_t>(c)]);
    } else {
      push_unknown();
    }
  }
  if (!symbols.empty()) symbols.back().next = kNone;
}

void BpeModel::merge(BpeScratch& scratch) const {
  auto& symbols = scratch.symbols_;
  auto& heap = scratch.heap_;
  heap.clear();
  const auto order = std::greater<>();
  const auto consider = [&](size_t at) {
    auto& symbol = symbols[at];
    symbol.rank = kNoMerge;
    if (symbol.next == kNone) return;
    if (const Merge* merge = find_merge(symbol.token, symbols[symbol.next].token)) {
      symbol.rank = merge->rank;
      heap.emplace_back(merge->rank, at);
      std::push_heap(heap.begin(), heap.end(), order);
    }
  };
  for (size_t at = 0; at < symbols.size(); ++at) consider(at);
  while (!heap.empty()) {
    const auto [rank, at] = heap.front();
    std::pop_heap(heap.begin(), heap.end(), order);
    heap.pop_back();
    auto& symbol = symbols[at];
    if (symbol.rank != rank) continue;  // one of the two has been merged with another
    auto& eaten = symbols[symbol.next];
    symbol.token = find_merge(symbol.token, eaten.token)->result;
    symbol.next = eaten.next;
    eaten.rank = kNoMerge;
    if (symbol.next != kNone) symbols[symbol.next].previous = at;
    consider(at);
    if (symbol.previous != kNone) consider(symbol.previous);
  }
}

}  // namespace kvcast
