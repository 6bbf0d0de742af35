// A number that tells descriptions apart (FNV-1a); against accidents, not against malice.
#pragma once

#include <cstdint>
#include <string_view>

namespace kvcast {

class Digest {
 public:
  void add(std::string_view text) {
    for (const char c : text) add_byte(static_cast<uint8_t>(c));
    add(text.size());
  }
  void add(uint64_t number) {
    for (int shift = 0; shift < 64; shift += 8) add_byte(static_cast<uint8_t>(number >> shift));
  }
  [[nodiscard]] uint64_t value() const { return value_; }

 private:
  void add_byte(uint8_t byte) { value_ = (value_ ^ byte) * 0x100000001B3ULL; }
  uint64_t value_ = 0xCBF29CE484222325ULL;
};

}  // namespace kvcast
