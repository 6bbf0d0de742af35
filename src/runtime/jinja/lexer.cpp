#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "runtime/jinja/syntax.h"

namespace kvcast::jinja {
namespace {

std::string_view trim_left(std::string_view text) {
  const size_t at = text.find_first_not_of(" \t\r\n");
  return at == std::string_view::npos ? std::string_view() : text.substr(at);
}

std::string_view trim_right(std::string_view text) {
  const size_t at = text.find_last_not_of(" \t\r\n");
  return at == std::string_view::npos ? std::string_view() : text.substr(0, at + 1);
}

/// Without the spaces and tabs between the last newline and the end.
std::string_view without_indentation(std::string_view text) {
  const size_t at = text.find_last_not_of(" \t");
  if (at == std::string_view::npos) return {};
  return text[at] == '\n' ? text.substr(0, at + 1) : text;
}

/// Where the tag that starts at `from` ends: its closing delimiter outside quotes.
size_t find_close(std::string_view source, size_t from, std::string_view close) {
  if (close == "#}") return source.find(close, from);
  char quote = 0;
  int braces = 0;  // of map literals that are open
  for (size_t i = from; i < source.size(); ++i) {
    const char c = source[i];
    if (quote) {
      if (c == '\\') {
        ++i;
      } else if (c == quote) {
        quote = 0;
      }
    } else if (c == '"' || c == '\'') {
      quote = c;
    } else if (braces == 0 && source.substr(i).starts_with(close)) {
      return i;
    } else if (c == '{') {
      ++braces;
    } else if (c == '}' && braces > 0) {
      --braces;
    }
  }
  return std::string_view::npos;
}

std::string unescape(char c) {
  switch (c) {
    case 'n':
      return "\n";
    case 't':
      return "\t";
    case 'r':
      return "\r";
    default:
      return std::string(1, c);
  }
}

}  // namespace

void refuse(int line, const std::string& message) {
  throw TemplateError{fmt::format("line {}: {}", line, message)};
}

std::vector<Segment> split(std::string_view source) {
  if (source.ends_with('\n')) source.remove_suffix(1);  // as Jinja does
  std::vector<Segment> segments;
  int line = 1;
  bool trim_start = false, drop_newline = false;
  size_t at = 0;
  const auto add_text = [&](std::string_view text, bool before_block, bool trim_end) {
    const auto lines = static_cast<int>(std::ranges::count(text, '\n'));
    const bool dropped = drop_newline && text.starts_with('\n');
    if (dropped) text.remove_prefix(1);
    if (trim_start) text = trim_left(text);
    if (trim_end) {
      text = trim_right(text);
    } else if (before_block) {
      // Only whole indentations: text that begins after another tag on this line stays.
      const bool at_line_start = at == 0 || text.find('\n') != std::string_view::npos || dropped;
      if (at_line_start) text = without_indentation(text);
    }
    if (!text.empty()) segments.push_back({Segment::Kind::kText, text, line});
    line += lines;
  };
  while (at < source.size()) {
    size_t open = at;
    while (true) {
      open = source.find('{', open);
      if (open == std::string_view::npos || open + 1 >= source.size()) {
        add_text(source.substr(at), false, false);
        return segments;
      }
      const char next = source[open + 1];
      if (next == '{' || next == '%' || next == '#') break;
      ++open;
    }
    const char type = source[open + 1];
    const std::string_view close = type == '{' ? "}}" : type == '%' ? "%}" : "#}";
    const bool trims_before = open + 2 < source.size() && source[open + 2] == '-';
    add_text(source.substr(at, open - at), type != '{', trims_before);
    const size_t begin = open + 2 + (trims_before ? 1 : 0);
    size_t end = find_close(source, begin, close);
    if (end == std::string_view::npos) refuse(line, "a tag is not closed");
    const bool trims_after = end > begin && source[end - 1] == '-';
    const std::string_view code = source.substr(begin, end - begin - (trims_after ? 1 : 0));
    if (type != '#') {
      segments.push_back(
          {type == '{' ? Segment::Kind::kExpression : Segment::Kind::kStatement, code, line});
    }
    line += static_cast<int>(std::ranges::count(source.substr(open, end - open), '\n'));
    trim_start = trims_after;
    drop_newline = type != '{';
    at = end + 2;
  }
  return segments;
}

std::vector<Token> tokenize(std::string_view code, int line) {
  std::vector<Token> tokens;
  const auto is_name = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
  };
  for (size_t i = 0; i < code.size();) {
    const char c = code[i];
    if (std::isspace(static_cast<unsigned char>(c))) {
      ++i;
    } else if (c == '"' || c == '\'') {
      std::string text;
      for (++i; i < code.size() && code[i] != c; ++i) {
        if (code[i] == '\\' && i + 1 < code.size()) {
          text += unescape(code[++i]);
        } else {
          text += code[i];
        }
      }
      if (i >= code.size()) refuse(line, "a string is not closed");
      ++i;
      tokens.push_back({Token::Kind::kText, std::move(text)});
    } else if (std::isdigit(static_cast<unsigned char>(c))) {
      size_t end = i;
      while (end < code.size() && std::isdigit(static_cast<unsigned char>(code[end]))) ++end;
      const bool is_float = end + 1 < code.size() && code[end] == '.' &&
                            std::isdigit(static_cast<unsigned char>(code[end + 1]));
      if (is_float) {
        ++end;
        while (end < code.size() && std::isdigit(static_cast<unsigned char>(code[end]))) ++end;
      }
      if (end - i > 15) refuse(line, "a number is too long");
      tokens.push_back({is_float ? Token::Kind::kFloat : Token::Kind::kInteger,
                        std::string(code.substr(i, end - i))});
      i = end;
    } else if (is_name(c)) {
      size_t end = i;
      while (end < code.size() && is_name(code[end])) ++end;
      tokens.push_back({Token::Kind::kName, std::string(code.substr(i, end - i))});
      i = end;
    } else {
      const std::string_view two = code.substr(i, 2);
      const bool double_symbol =
          two == "==" || two == "!=" || two == "<=" || two == ">=" || two == "//" || two == "**";
      if (!double_symbol &&
          std::string_view("+-*/%~()[]{},:.|=<>").find(c) == std::string_view::npos) {
        refuse(line, fmt::format("unexpected \"{}\"", c));
      }
      tokens.push_back({Token::Kind::kSymbol, std::string(code.substr(i, double_symbol ? 2 : 1))});
      i += double_symbol ? 2 : 1;
    }
  }
  tokens.push_back({});
  return tokens;
}

}  // namespace kvcast::jinja
