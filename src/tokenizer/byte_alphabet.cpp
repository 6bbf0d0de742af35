#include "tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

namespace kvcast {
namespace {

constexpr size_t kCharacters = 256 + 68;

bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<uint16_t, 256> character{};
  std::array<int16_t, kCharacters> byte{};

  Alphabet() {
    byte.fill(-1);
    uint16_t next = 0x100;
    for (unsigned value = 0; value < 256; ++value) {
      character[value] = stands_for_itself(value) ? static_cast<uint16_t>(value) : next++;
      byte[character[value]] = static_cast<int16_t>(value);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet made;
  return made;
}

}  // namespace

std::optional<std::string> bytes_of_written(std::string_view written) {
  std::string bytes;
  bytes.reserve(written.size());
  for (size_t at = 0; at < written.size(); ++at) {
    unsigned character = static_cast<unsigned char>(written[at]);
    if (character >= 0x80) {  // all of the alphabet beyond ASCII has two bytes
      if ((character & 0xE0U) != 0xC0 || at + 1 == written.size()) return std::nullopt;
      character = (character & 0x1FU) << 6 | (static_cast<unsigned char>(written[++at]) & 0x3FU);
    }
    if (character >= kCharacters || alphabet().byte[character] < 0) return std::nullopt;
    bytes += static_cast<char>(alphabet().byte[character]);
  }
  return bytes;
}

std::string written_bytes(std::string_view bytes) {
  std::string written;
  for (const char c : bytes) {
    const unsigned character = alphabet().character[static_cast<unsigned char>(c)];
    if (character < 0x80) {
      written += static_cast<char>(character);
    } else {
      written += static_cast<char>(0xC0U | character >> 6);
      written += static_cast<char>(0x80U | (character & 0x3FU));
    }
  }
  return written;
}

}  // namespace kvcast
