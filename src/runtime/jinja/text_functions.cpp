#include "runtime/jinja/text_functions.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <ctime>

#include "base/utf8.h"
#include "runtime/jinja/builtins.h"

namespace kvcast::jinja {

void misuse(std::string message) { throw TemplateError{std::move(message)}; }

Value argument(std::span<const Value> arguments, size_t i) {
  return i < arguments.size() ? arguments[i] : Value();
}

const std::string& text_of(const Value& value, std::string_view what) {
  if (!value.text()) misuse(fmt::format("{} needs a string", what));
  return *value.text();
}

int64_t integer_of(const Value& value, std::string_view what) {
  if (const auto* integer = value.get<int64_t>()) return *integer;
  misuse(fmt::format("{} needs a whole number", what));
}

std::string bounded(std::string text) {
  if (text.size() > kMaxTextBytes) misuse("a string is too long");
  return text;
}

std::string mapped(std::string text, int (*change)(int)) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x80) c = static_cast<char>(change(c));
  }
  return text;
}

std::string capitalized(std::string text) {
  text = mapped(std::move(text), std::tolower);
  if (!text.empty()) text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  return text;
}

std::string titled(std::string text) {
  bool start = true;
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) c = static_cast<char>(start ? std::toupper(byte) : std::tolower(byte));
    start = !std::isalnum(byte) && byte < 0x80;
  }
  return text;
}

std::string stripped(const std::string& text, const Value& characters, bool left, bool right) {
  const std::string set = characters.text() ? *characters.text() : " \t\r\n\f\v";
  const size_t begin = left ? text.find_first_not_of(set) : 0;
  if (begin == std::string::npos || text.empty()) return {};
  const size_t last = right ? text.find_last_not_of(set) : text.size() - 1;
  return last == std::string::npos ? std::string() : text.substr(begin, last - begin + 1);
}

std::string replaced(const std::string& text, const std::string& from, const std::string& to,
                     const Value& count) {
  if (from.empty()) misuse("replace: nothing to replace");
  int64_t left = count.get<int64_t>() ? *count.get<int64_t>() : -1;
  std::string out;
  size_t at = 0;
  while (true) {
    const size_t found = left == 0 ? std::string::npos : text.find(from, at);
    out += text.substr(at, found - at);
    if (out.size() > kMaxTextBytes) misuse("a string is too long");
    if (found == std::string::npos) return out;
    out += to;
    at = found + from.size();
    --left;
  }
}

namespace {

constexpr std::string_view kSpaces = " \t\r\n\f\v";

/// From the left; what is beyond `most` cuts stays in one piece.
List split_at_spaces(std::string_view text, size_t most) {
  List parts;
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(kSpaces), text.size()));
    if (text.empty()) return parts;
    const bool is_last = parts.size() >= most;
    const size_t end = is_last ? text.find_last_not_of(kSpaces) + 1
                               : std::min(text.find_first_of(kSpaces), text.size());
    parts.emplace_back(std::string(is_last ? text : text.substr(0, end)));
    if (parts.size() > kMaxItems) misuse("a list is too long");
    if (is_last) return parts;
    text.remove_prefix(end);
  }
}

}  // namespace

List split_text(const std::string& text, const Value& separator, const Value& most,
                bool from_right) {
  const auto* limit = most.get<int64_t>();
  const size_t cuts = limit && *limit >= 0 ? static_cast<size_t>(*limit) : kMaxItems;
  if (!separator.text()) {
    if (from_right && cuts < kMaxItems) misuse("rsplit at white space takes no limit here");
    return split_at_spaces(text, cuts);
  }
  const std::string& by = *separator.text();
  if (by.empty()) misuse("split: the separator is empty");
  List parts;
  std::string_view rest = text;
  while (parts.size() < cuts) {
    const size_t found = from_right ? rest.rfind(by) : rest.find(by);
    if (found == std::string_view::npos) break;
    if (from_right) {
      parts.emplace_back(std::string(rest.substr(found + by.size())));
      rest = rest.substr(0, found);
    } else {
      parts.emplace_back(std::string(rest.substr(0, found)));
      rest.remove_prefix(found + by.size());
    }
    if (parts.size() >= kMaxItems) misuse("a list is too long");
  }
  parts.emplace_back(std::string(rest));
  if (from_right) std::ranges::reverse(parts);
  return parts;
}

List lines_of(const std::string& text) {
  List lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find_first_of("\r\n", at), text.size());
    lines.emplace_back(text.substr(at, end - at));
    if (lines.size() > kMaxItems) misuse("a list is too long");
    at = end + (text.compare(end, 2, "\r\n") == 0 ? 2 : 1);
  }
  return lines;
}

std::vector<std::string> characters(const std::string& text) {
  std::vector<std::string> out;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t bytes = std::max<size_t>(1, first_utf8_character(rest).bytes);
    out.emplace_back(rest.substr(0, bytes));
    rest.remove_prefix(bytes);
    if (out.size() > kMaxItems) misuse("a string is too long to go through");
  }
  return out;
}

std::string joined(const Value& value, const Value& separator) {
  std::string out;
  bool first = true;
  for (const Value& item : iterate(value)) {
    if (!first && separator.text()) out += *separator.text();
    first = false;
    out = bounded(std::move(out) + item.to_text());
  }
  return out;
}

std::string indented(const std::string& text, const std::string& by, bool first, bool blank) {
  std::string out;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const bool is_indented = at == 0 ? first : blank || end > at;
    if (at > 0) out += '\n';
    if (is_indented) out += by;
    out += text.substr(at, end - at);
    if (out.size() > kMaxTextBytes) misuse("a string is too long");
    at = end + 1;
  }
  return out;
}

std::string now_as(const std::string& format) {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  (void)localtime_r(&now, &parts);
  char text[256];
  if (format.size() > 100) misuse("strftime_now: the format is too long");
  return std::string(text, std::strftime(text, sizeof text, format.c_str(), &parts));
}

}  // namespace kvcast::jinja
