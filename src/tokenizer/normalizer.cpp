#include "tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <new>

namespace kvcast {
namespace {

/// Characters below U+0300 (first byte below 0xCC) are composed already and combine with nothing
/// before them.
bool may_compose(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) >= 0xCC; });
}

/// Characters of Unicode 10 to 16 that a normal form moves, composes or decomposes. The library
/// that tokenizers are trained with has Unicode 9's tables: there they stand still, and whatever
/// follows does not move past them. (Of a pair that composes one is enough.)
struct Range {
  char32_t first, last;
};
constexpr Range kNewCharacters[] = {
    {0x7FD, 0x7FD},     {0x897, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},
    {0xA82C, 0xA82C},   {0xAB69, 0xAB69},   {0x105D2, 0x105D2}, {0x105DA, 0x105DA},
    {0x10781, 0x107BA}, {0x10D24, 0x10D27}, {0x10D69, 0x10D6D}, {0x10EAB, 0x10EAC},
    {0x10EFC, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070},
    {0x1133B, 0x1133B}, {0x11382, 0x11382}, {0x11384, 0x11384}, {0x1138B, 0x1138B},
    {0x11390, 0x11390}, {0x113C2, 0x113C2}, {0x113CE, 0x113D0}, {0x113E1, 0x113E2},
    {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x1193D, 0x1193E},
    {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47},
    {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97},
    {0x11F41, 0x11F42}, {0x1611E, 0x1612F}, {0x16D63, 0x16D6A}, {0x16FF0, 0x16FF1},
    {0x1CCD6, 0x1CCF9}, {0x1E030, 0x1E06D}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136},
    {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1E5EE, 0x1E5EF},
    {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}};

bool is_new(char32_t character) {
  const auto* range = std::lower_bound(
      std::begin(kNewCharacters), std::end(kNewCharacters), character,
      [](const Range& candidate, char32_t wanted) { return candidate.last < wanted; });
  return range != std::end(kNewCharacters) && range->first <= character;
}

void append_composed(std::string_view text, bool compatibility, std::string& out) {
  if (text.empty()) return;
  int options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
  if (compatibility) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* result = nullptr;
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                   static_cast<utf8proc_ssize_t>(text.size()), &result,
                                   static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owned(result, &std::free);
  if (length < 0) throw std::bad_alloc();  // the only failure on valid UTF-8
  out.append(reinterpret_cast<const char*>(result), static_cast<size_t>(length));
}

std::string composed(std::string_view text, bool compatibility) {
  std::string out;
  out.reserve(text.size());
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0xDF) {  // below U+07C0
      ++at;
      continue;
    }
    utf8proc_int32_t character = 0;
    const auto bytes =
        utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(&text[at]),
                         static_cast<utf8proc_ssize_t>(text.size() - at), &character);
    const size_t next = at + static_cast<size_t>(std::max<utf8proc_ssize_t>(bytes, 1));
    if (is_new(static_cast<char32_t>(character))) {
      append_composed(text.substr(done, at - done), compatibility, out);
      out.append(text.substr(at, next - at));
      done = next;
    }
    at = next;
  }
  append_composed(text.substr(done), compatibility, out);
  return out;
}

std::string replaced(std::string_view text, const NormalizerStep& step, RegexMatcher& matcher) {
  std::string result;
  size_t copied = 0;
  matcher.for_each(step.regex.front(), text, [&](RegexMatch match) {
    result.append(text.substr(copied, match.begin - copied));
    result.append(step.text);
    copied = match.end;
  });
  result.append(text.substr(copied));
  return result;
}

}  // namespace

std::string_view Normalizer::apply(std::string_view text, RegexMatcher& matcher,
                                   std::string& buffer) const {
  for (const NormalizerStep& step : steps) {
    switch (step.kind) {
      case NormalizerStep::Kind::kCanonical:
        if (!may_compose(text)) break;
        buffer = composed(text, false);
        text = buffer;
        break;
      case NormalizerStep::Kind::kCompatibility:
        buffer = composed(text, true);
        text = buffer;
        break;
      case NormalizerStep::Kind::kPrepend:
        if (text.empty()) break;
        buffer = step.text + std::string(text);
        text = buffer;
        break;
      case NormalizerStep::Kind::kReplace:
        buffer = replaced(text, step, matcher);
        text = buffer;
        break;
    }
  }
  return text;
}

}  // namespace kvcast
