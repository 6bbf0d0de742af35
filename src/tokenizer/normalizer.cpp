#include "tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
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

std::string composed(std::string_view text, bool compatibility) {
  int options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
  if (compatibility) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* result = nullptr;
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                   static_cast<utf8proc_ssize_t>(text.size()), &result,
                                   static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owned(result, &std::free);
  if (length < 0) throw std::bad_alloc();  // the only failure on valid UTF-8
  return {reinterpret_cast<const char*>(result), static_cast<size_t>(length)};
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
