#include "tokenizer/regex.h"

#include <fmt/format.h>

#include <cctype>
#include <vector>

#include "base/macros.h"
#include "base/utf8.h"
#include "tokenizer/newer_characters.h"
#include "tokenizer/regex_syntax.h"
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace kvcast {
namespace {

constexpr size_t kMaxPatternBytes = 10'000;
constexpr uint32_t kMaxNesting = 50;
/// Steps of one match. A match of a long run of white space backs up through all of it once.
constexpr uint32_t kMatchLimit = 100'000'000;
/// A pattern that takes more than this on some text of kProbeBytes takes ages on a longer one.
constexpr uint32_t kProbeMatchLimit = 1'000'000;
constexpr size_t kProbeBytes = 256;
constexpr uint32_t kHeapLimitKib = 64 << 10;
constexpr size_t kJitStackBytes = 32 << 10, kMaxJitStackBytes = 8 << 20;

template <auto release>
struct Releases {
  template <typename T>
  void operator()(T* pointer) const {
    release(pointer);
  }
};
using CompileContext = std::unique_ptr<pcre2_compile_context, Releases<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Releases<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Releases<pcre2_match_data_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Releases<pcre2_jit_stack_free>>;

}  // namespace

struct Regex::Code {
  std::unique_ptr<pcre2_code, Releases<pcre2_code_free>> program;
};

Result<Regex> Regex::compile(std::string_view pattern, std::string_view where) {
  if (pattern.size() > kMaxPatternBytes) {
    return fail(fmt::format("{}: a regex of {} bytes; expected at most {}", where, pattern.size(),
                            kMaxPatternBytes));
  }
  KVCAST_TRY(const std::string usual, translate_regex(pattern, where, false));
  KVCAST_TRY(const std::string newer, translate_regex(pattern, where, true));
  KVCAST_TRY(auto code, compile_translated(usual, pattern, where));
  Regex regex(std::string(pattern), std::move(code));
  if (!ends_soon(regex)) {
    return fail(
        fmt::format("{}: regex \"{}\": backtracks without end on some texts", where, pattern));
  }
  if (newer != usual) {
    KVCAST_TRY(auto larger, compile_translated(newer, pattern, where));
    regex.newer_ = std::make_shared<Regex>(Regex(std::string(pattern), std::move(larger)));
  }
  return regex;
}

Result<std::shared_ptr<const Regex::Code>> Regex::compile_translated(std::string_view translated,
                                                                     std::string_view pattern,
                                                                     std::string_view where) {
  const CompileContext context(pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_parens_nest_limit(context.get(), kMaxNesting);
  int error = 0;
  size_t offset = 0;
  auto code = std::make_shared<Code>();
  code->program.reset(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                    &offset, context.get()));
  if (!code->program) {
    PCRE2_UCHAR message[200];
    (void)pcre2_get_error_message(error, message, sizeof message);
    return fail(fmt::format("{}: regex \"{}\": {}", where, pattern,
                            reinterpret_cast<const char*>(message)));
  }
  // Without compiled code (some systems forbid it) the interpreter gives the same matches.
  (void)pcre2_jit_compile(code->program.get(), PCRE2_JIT_COMPLETE);
  return code;
}

/// Tries texts on which expressions are known to go wrong: runs of what may be in one match, and of
/// what the pattern itself is made of, that end with what matches nothing.
bool Regex::ends_soon(const Regex& regex) {
  RegexMatcher matcher(kProbeMatchLimit);
  std::vector<std::string> units = {" ", "\n", "a",      "A",      "0",
                                    ".", "'",  "\u00e9", "\u4e00", "\u0301"};
  std::string letters;
  for (std::string_view rest = regex.pattern(); !rest.empty();) {
    const auto letter = rest.substr(0, first_utf8_character(rest).bytes);
    rest.remove_prefix(letter.size());
    const bool is_plain = letter.size() > 1 || std::isgraph(static_cast<unsigned char>(letter[0]));
    if (!is_plain || letters.find(letter) != std::string::npos) continue;
    letters += letter;
    units.emplace_back(letter);
  }
  if (!letters.empty()) units.push_back(letters);
  for (const std::string& unit : units) {
    std::string text;
    while (text.size() < kProbeBytes) text += unit;
    // PCRE2 looks for characters that a match must have before it begins.
    for (const std::string& end : {std::string(), "\x01" + letters}) {
      (void)matcher.find(regex, text + end, 0);
      if (matcher.gave_up()) return false;
    }
  }
  return true;
}

const Regex& Regex::for_text(std::string_view text) const {
  return newer_ && has_newer_characters(text) ? *newer_ : *this;
}

Result<Regex> Regex::literal(std::string_view text, std::string_view where) {
  std::string pattern;
  for (const char c : text) {
    if (std::string_view("\\^$.|?*+()[]{}#-&").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return compile(pattern, where);
}

struct RegexMatcher::Memory {
  MatchContext context{pcre2_match_context_create(nullptr)};
  MatchData data{pcre2_match_data_create(1, nullptr)};
  JitStack stack;
};

RegexMatcher::RegexMatcher() : RegexMatcher(kMatchLimit) {}
RegexMatcher::RegexMatcher(uint32_t match_limit) : memory_(std::make_unique<Memory>()) {
  if (!memory_->context || !memory_->data) throw std::bad_alloc();
  pcre2_set_match_limit(memory_->context.get(), match_limit);
  pcre2_set_heap_limit(memory_->context.get(), kHeapLimitKib);
}
RegexMatcher::~RegexMatcher() = default;
RegexMatcher::RegexMatcher(RegexMatcher&&) noexcept = default;

std::optional<RegexMatch> RegexMatcher::find(const Regex& regex, std::string_view text,
                                             size_t from) {
  if (gave_up_) return std::nullopt;
  const auto match = [&] {
    return pcre2_match(regex.code_->program.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                       text.size(), from, PCRE2_NO_UTF_CHECK, memory_->data.get(),
                       memory_->context.get());
  };
  int found = match();
  if (found == PCRE2_ERROR_JIT_STACKLIMIT && !memory_->stack) {
    memory_->stack.reset(pcre2_jit_stack_create(kJitStackBytes, kMaxJitStackBytes, nullptr));
    pcre2_jit_stack_assign(memory_->context.get(), nullptr, memory_->stack.get());
    found = match();
  }
  gave_up_ = found < 0 && found != PCRE2_ERROR_NOMATCH;
  if (found < 0) return std::nullopt;
  const size_t* range = pcre2_get_ovector_pointer(memory_->data.get());
  if (range[1] < range[0]) return std::nullopt;  // \K inside a lookahead
  return RegexMatch{range[0], range[1]};
}

}  // namespace kvcast
