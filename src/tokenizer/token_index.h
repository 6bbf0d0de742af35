// From a token's text to its id: a table with open addressing, made once and then only read.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvcast {

/// Fast, and good enough for tables whose keys are compared.
[[nodiscard]] uint64_t hash_bytes(std::string_view bytes);

class TokenIndex {
 public:
  void reserve(size_t tokens);
  /// False, and nothing changed, if `text` is there already. At most 2^32 bytes in all.
  bool insert(std::string_view text, int32_t id);
  /// -1 if there is none.
  [[nodiscard]] int32_t find(std::string_view text) const;
  [[nodiscard]] size_t size() const { return size_; }

 private:
  struct Slot {
    uint32_t hash = 0, begin = 0, length = 0;
    int32_t id = -1;
  };
  [[nodiscard]] size_t slot_of(std::string_view text, uint32_t hash) const;
  void grow(size_t slots);

  std::string texts_;
  std::vector<Slot> slots_;  // a power of two
  size_t size_ = 0;
};

}  // namespace kvcast
