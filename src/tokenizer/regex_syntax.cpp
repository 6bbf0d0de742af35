#include "tokenizer/regex_syntax.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/macros.h"
#include "tokenizer/newer_characters.h"
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace kvcast {
namespace {

// What Oniguruma's classes are, as items of a class. \w: three superscripts and three fractions are
// Latin-1's. PCRE2's \s has U+180E too, which has not been a space since 2013.
constexpr std::string_view kSpaces = "\\p{Z}\\x09-\\x0d\\x85";
constexpr std::string_view kWords =
    "\\p{Alphabetic}\\p{L}\\p{M}\\p{Nd}\\p{Pc}\\xb2\\xb3\\xb9\\xbc-\\xbe";
constexpr std::string_view kDigits = "\\p{Nd}";
constexpr std::string_view kHexadecimal = "0-9a-fA-F";

/// Whether PCRE2 knows a script of that name.
bool is_script(std::string_view name) {
  if (name.size() <= 2) return false;  // a category
  const std::string pattern = fmt::format("\\p{{sc:{}}}", name);
  int error = 0;
  size_t offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF, &error, &offset, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view where, bool newer)
      : pattern_(pattern), where_(where), newer_(newer) {}

  Result<std::string> translate() {
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == '\\') {
        KVCAST_CHECK(escape());
      } else if (in_class_) {
        KVCAST_CHECK(in_class());
      } else {
        outside();
      }
    }
    return std::move(result_);
  }

 private:
  [[nodiscard]] tl::unexpected<Error> refuse(std::string_view what) const {
    return fail(fmt::format("{}: regex \"{}\": {} is not supported", where_, pattern_, what));
  }
  [[nodiscard]] std::string_view rest() const { return pattern_.substr(at_); }
  void copy(size_t characters) {
    result_ += rest().substr(0, characters);
    at_ = std::min(pattern_.size(), at_ + characters);
  }

  Status escape() {
    class_is_empty_ = false;
    const char next = rest().size() > 1 ? rest()[1] : '\0';
    switch (next) {
      case 's':
      case 'S':
        return class_of(kSpaces, next == 'S');
      case 'w':
      case 'W':
        return class_of(kWords, next == 'W');
      case 'd':
      case 'D':
        return class_of(kDigits, next == 'D');
      case 'h':
      case 'H':
        return class_of(kHexadecimal, next == 'H');
      case 'b':
      case 'B':
        if (!in_class_) return word_boundary(next == 'B');
        break;
      case 'p':
      case 'P':
        return property();
      default:
        break;
    }
    copy(2);
    return {};
  }

  /// In place of an escape of two characters.
  Status class_of(std::string_view items, bool negated) {
    if (in_class_ && negated) return refuse(fmt::format("{} inside a class", rest().substr(0, 2)));
    add_class(extended(items), negated);
    at_ += 2;
    return {};
  }

  void add_class(std::string_view items, bool negated) {
    result_ += in_class_ ? std::string(items) : fmt::format("[{}{}]", negated ? "^" : "", items);
  }

  /// Between a word and what is none, or the opposite.
  Status word_boundary(bool negated) {
    result_ += fmt::format("(?:(?<=[{0}])(?{1}[{0}])|(?<![{0}])(?{2}[{0}]))", extended(kWords),
                           negated ? '=' : '!', negated ? '!' : '=');
    at_ += 2;
    return {};
  }

  /// \p{Name}, \P{Name}, \p{^Name}
  Status property() {
    const size_t end = rest().find('}');
    if (rest().size() < 3 || rest()[2] != '{' || end == std::string_view::npos) {
      return refuse("\\p without {...}");
    }
    std::string_view name = rest().substr(3, end - 3);
    bool negated = rest()[1] == 'P';
    if (name.starts_with('^')) {
      name.remove_prefix(1);
      negated = !negated;
    }
    const std::string newer = newer_ ? newer_characters(name) : "";
    // A script is what has it as its own, not what is used with it as well.
    const std::string item =
        fmt::format("\\{}{{{}{}}}", negated ? 'P' : 'p', is_script(name) ? "sc:" : "", name);
    if (newer.empty() || (in_class_ && negated)) {
      result_ += item;
    } else if (negated) {
      result_ += fmt::format("[^\\p{}{}]", item.substr(2), newer);
    } else {
      add_class(item + newer, false);
    }
    at_ += end + 1;
    return {};
  }

  /// `items` with the newer characters of the categories among them.
  [[nodiscard]] std::string extended(std::string_view items) const {
    std::string result(items);
    if (!newer_) return result;
    for (const std::string_view category : {"L", "M", "Nd"}) {
      if (items.find(fmt::format("\\p{{{}}}", category)) != std::string_view::npos) {
        result += newer_characters(category);
      }
    }
    return result;
  }

  Status in_class() {
    const bool first = std::exchange(class_is_empty_, false);
    if (rest().starts_with("&&")) return refuse("&& inside a class");
    if (rest().starts_with("[:")) {
      const size_t end = rest().find(":]");
      if (end == std::string_view::npos) return refuse("an unfinished class");
      if (rest().starts_with("[:space:]")) {
        result_ += kSpaces;
        at_ += end + 2;
      } else {
        copy(end + 2);
      }
      return {};
    }
    if (rest()[0] == '[') return refuse("a class inside a class");
    in_class_ = first || rest()[0] != ']';  // a class that begins with ] has it
    copy(1);
    return {};
  }

  void outside() {
    if (rest()[0] == '[') {
      in_class_ = class_is_empty_ = true;
      copy(rest().starts_with("[^") ? 2 : 1);
    } else if (rest().starts_with("{,") && is_bound(rest().substr(2))) {
      result_ += "{0,";
      at_ += 2;
    } else if (rest().starts_with("(?")) {
      copy(2);
      // m, which lets . match the end of a line, is PCRE2's s.
      const size_t end = rest().find_first_not_of("imx-");
      if (end == std::string_view::npos || (rest()[end] != ':' && rest()[end] != ')')) return;
      for (; rest()[0] != ':' && rest()[0] != ')'; ++at_) {
        result_ += rest()[0] == 'm' ? 's' : rest()[0];
      }
    } else {
      copy(1);
    }
  }

  static bool is_bound(std::string_view text) {
    const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
    return digits > 0 && text.substr(digits).starts_with('}');
  }

  std::string_view pattern_, where_;
  bool newer_ = false;
  size_t at_ = 0;
  bool in_class_ = false;
  bool class_is_empty_ = false;  // nothing of it has been read but [ or [^
  std::string result_;
};

}  // namespace

Result<std::string> translate_regex(std::string_view pattern, std::string_view where, bool newer) {
  return Translator(pattern, where, newer).translate();
}

}  // namespace kvcast
