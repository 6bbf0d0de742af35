#include "base/utf8.h"

#include <algorithm>
#include <cstdint>

namespace kvcast {
namespace {

/// Length of a character and the range its second byte must lie in, by its first byte
/// (Unicode 15, table 3-7); length 0: not a first byte.
struct Lead {
  size_t length = 0;
  uint8_t second_low = 0x80, second_high = 0xBF;
};

Lead classify_lead(uint8_t byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xC2) return {0};
  if (byte < 0xE0) return {2};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};  // below: overlong
  if (byte == 0xED) return {3, 0x80, 0x9F};  // above: surrogates
  if (byte < 0xF0) return {3};
  if (byte == 0xF0) return {4, 0x90, 0xBF};  // below: overlong
  if (byte < 0xF4) return {4};
  if (byte == 0xF4) return {4, 0x80, 0x8F};  // above: beyond U+10FFFF
  return {0};
}

}  // namespace

Utf8Step first_utf8_character(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const Lead lead = classify_lead(byte(0));
  if (lead.length == 0) return {Utf8Kind::kInvalid, 1};
  const size_t available = std::min(lead.length, text.size());
  for (size_t i = 1; i < available; ++i) {
    const uint8_t low = i == 1 ? lead.second_low : 0x80;
    const uint8_t high = i == 1 ? lead.second_high : 0xBF;
    if (byte(i) < low || byte(i) > high) return {Utf8Kind::kInvalid, 1};
  }
  if (available < lead.length) return {Utf8Kind::kIncomplete, available};
  return {Utf8Kind::kCharacter, lead.length};
}

bool is_valid_utf8(std::string_view text) { return valid_utf8_prefix(text) == text.size(); }

size_t valid_utf8_prefix(std::string_view text) {
  size_t valid = 0;
  while (valid < text.size()) {
    const Utf8Step step = first_utf8_character(text.substr(valid));
    if (step.kind != Utf8Kind::kCharacter) break;
    valid += step.bytes;
  }
  return valid;
}

size_t settled_utf8_prefix(std::string_view text) {
  size_t settled = 0;
  while (settled < text.size()) {
    const Utf8Step step = first_utf8_character(text.substr(settled));
    if (step.kind == Utf8Kind::kIncomplete) break;
    settled += step.bytes;
  }
  return settled;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const Utf8Step step = first_utf8_character(text);
    if (step.kind == Utf8Kind::kCharacter) {
      result.append(text.substr(0, step.bytes));
      text.remove_prefix(step.bytes);
    } else {
      result.append(kReplacementCharacter);
      text.remove_prefix(1);
    }
  }
  return result;
}

}  // namespace kvcast
