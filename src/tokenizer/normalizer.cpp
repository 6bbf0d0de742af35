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

/// Combining marks that are newer than the tables (of Unicode 9) of the library that tokenizers are
/// trained with: there they stand still, and whatever follows does not move past them.
struct Range {
  char32_t first, last;
};
constexpr Range kNewMarks[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
    {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34},
    {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45},
    {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F},
    {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}};

bool is_new_mark(char32_t character) {
  const auto* range = std::lower_bound(
      std::begin(kNewMarks), std::end(kNewMarks), character,
      [](const Range& candidate, char32_t wanted) { return candidate.last < wanted; });
  return range != std::end(kNewMarks) && range->first <= character;
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
    if (is_new_mark(static_cast<char32_t>(character))) {
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
  const Regex& regex = step.regex.front();
  std::string result;
  size_t copied = 0;
  for (size_t at = 0; at <= text.size();) {
    const auto match = matcher.find(regex, text, at);
    if (!match) break;
    result.append(text.substr(copied, match->begin - copied));
    result.append(step.text);
    copied = match->end;
    at = match->end;
    if (match->begin == match->end) {  // an empty match: on to the next character
      do ++at;
      while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80);
    }
  }
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
