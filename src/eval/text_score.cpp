#include "eval/text_score.h"

#include <locale.h>
#include <wctype.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace kvcast {
namespace {

/// Code points; a byte that does not fit stands for itself.
std::u32string decode_utf8(std::string_view text) {
  std::u32string out;
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80    ? 1
                          : lead >= 0xF0 ? 4
                          : lead >= 0xE0 ? 3
                          : lead >= 0xC0 ? 2
                                         : 1;
    if (length == 1 || i + length > text.size()) {
      out += lead;
      ++i;
      continue;
    }
    char32_t point = lead & (0xFFU >> (length + 1));
    for (size_t j = 1; j < length; ++j) {
      point = (point << 6U) | (static_cast<unsigned char>(text[i + j]) & 0x3FU);
    }
    out += point;
    i += length;
  }
  return out;
}

void append_utf8(char32_t point, std::string& out) {
  const auto continuation = [&](unsigned shift) {
    out += static_cast<char>(0x80U | ((point >> shift) & 0x3FU));
  };
  if (point < 0x80) {
    out += static_cast<char>(point);
  } else if (point < 0x800) {
    out += static_cast<char>(0xC0U | (point >> 6U));
    continuation(0);
  } else if (point < 0x10000) {
    out += static_cast<char>(0xE0U | (point >> 12U));
    continuation(6);
    continuation(0);
  } else {
    out += static_cast<char>(0xF0U | (point >> 18U));
    continuation(12);
    continuation(6);
    continuation(0);
  }
}

bool is_space(char32_t point) {
  return (point >= 0x09 && point <= 0x0D) || (point >= 0x1C && point <= 0x20) || point == 0x85 ||
         point == 0xA0 || point == 0x1680 || (point >= 0x2000 && point <= 0x200A) ||
         point == 0x2028 || point == 0x2029 || point == 0x202F || point == 0x205F ||
         point == 0x3000;
}

/// Bytes of the white-space character that `text` begins with; 0 if none.
size_t leading_space(std::string_view text) {
  for (size_t length = 1; length <= std::min<size_t>(3, text.size()); ++length) {
    const auto points = decode_utf8(text.substr(0, length));
    const bool whole =
        length == 1 ? static_cast<unsigned char>(text[0]) < 0x80 : points.size() == 1;
    if (whole && is_space(points[0])) return length;
  }
  return 0;
}

char32_t lower(char32_t point) {
  if (point < 0x80) return point >= 'A' && point <= 'Z' ? point + 32 : point;
  static const locale_t unicode = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  return unicode == nullptr
             ? point
             : static_cast<char32_t>(towlower_l(static_cast<wint_t>(point), unicode));
}

bool is_ascii_punctuation(char32_t point) {
  return point < 0x80 &&
         std::string_view("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~").find(static_cast<char>(point)) !=
             std::string_view::npos;
}

}  // namespace

std::string_view strip(std::string_view text) {
  while (const size_t bytes = leading_space(text)) text.remove_prefix(bytes);
  while (!text.empty()) {
    size_t start = text.size() - 1;  // of the last character
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0U) == 0x80) --start;
    if (leading_space(text.substr(start)) != text.size() - start) break;
    text.remove_suffix(text.size() - start);
  }
  return text;
}

std::string normalise_answer(std::string_view text) {
  std::string out;
  for (const char32_t point : decode_utf8(text)) {
    if (!is_ascii_punctuation(point)) append_utf8(lower(point), out);
  }
  return out;
}

bool matches_any(std::string_view answer, std::span<const std::string> references) {
  const std::string normalised = normalise_answer(strip(answer));
  return std::ranges::any_of(references, [&](const std::string& reference) {
    return normalise_answer(reference) == normalised;
  });
}

double edit_similarity(std::string_view a_text, std::string_view b_text) {
  const std::u32string a = decode_utf8(a_text), b = decode_utf8(b_text);
  if (a.empty() && b.empty()) return 1;
  std::vector<size_t> distances(b.size() + 1);  // from a's first i characters to b's first j
  std::iota(distances.begin(), distances.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = distances[0];
    distances[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = distances[j];
      distances[j] = std::min({substituted, distances[j] + 1, distances[j - 1] + 1});
    }
  }
  return 1 -
         static_cast<double>(distances.back()) / static_cast<double>(std::max(a.size(), b.size()));
}

double pass_at_k(int64_t samples, int64_t correct, int64_t k) {
  if (samples - correct < k) return 1;
  double all_fail = 1;  // comb(samples - correct, k) / comb(samples, k)
  for (int64_t i = samples - correct + 1; i <= samples; ++i) {
    all_fail *= 1 - static_cast<double>(k) / static_cast<double>(i);
  }
  return 1 - all_fail;
}

int64_t length_in_characters(std::string_view text) { return std::ssize(decode_utf8(text)); }

}  // namespace kvcast
