#include "tokenizer/regex.h"

#include <fmt/format.h>

#include "base/macros.h"
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace kvcast {
namespace {

constexpr size_t kMaxPatternBytes = 10'000;
constexpr uint32_t kMaxNesting = 50;
/// Steps of one match. A match of a long run of white space backs up through all of it once.
constexpr uint32_t kMatchLimit = 100'000'000;
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

/// White space as Unicode has it. PCRE2's \s has U+180E too, which has not been one since 2013.
constexpr std::string_view kSpaces = "\\p{Z}\\x09-\\x0d\\x85";

Result<std::string> translate(std::string_view pattern, std::string_view where) {
  const auto refuse = [&](std::string_view what) {
    return fail(fmt::format("{}: regex \"{}\": {} is not supported", where, pattern, what));
  };
  std::string result;
  bool in_class = false;
  for (size_t at = 0; at < pattern.size(); ++at) {
    const char c = pattern[at];
    const char next = at + 1 < pattern.size() ? pattern[at + 1] : '\0';
    if (c == '\\' && next == 's') {
      result += in_class ? std::string(kSpaces) : fmt::format("[{}]", kSpaces);
      ++at;
    } else if (c == '\\' && next == 'S') {
      if (in_class) return refuse("\\S inside a class");
      result += fmt::format("[^{}]", kSpaces);
      ++at;
    } else if (c == '\\' && next != '\0') {
      result += {c, next};
      ++at;
    } else {
      if (in_class && c == '&' && next == '&') return refuse("&& inside a class");
      if (in_class && c == '[' && next != ':') return refuse("a class inside a class");
      if (c == '[' && in_class) {  // [:alpha:]
        const size_t end = pattern.find(":]", at);
        if (end == std::string_view::npos) return refuse("an unfinished class");
        result += pattern.substr(at, end + 2 - at);
        at = end + 1;
        continue;
      }
      if (c == '[') in_class = true;
      if (c == ']') in_class = false;
      result += c;
    }
  }
  return result;
}

}  // namespace

struct Regex::Code {
  std::unique_ptr<pcre2_code, Releases<pcre2_code_free>> program;
};

Result<Regex> Regex::compile(std::string_view pattern, std::string_view where) {
  if (pattern.size() > kMaxPatternBytes) {
    return fail(fmt::format("{}: a regex of {} bytes; expected at most {}", where, pattern.size(),
                            kMaxPatternBytes));
  }
  KVCAST_TRY(const std::string translated, translate(pattern, where));
  const CompileContext context(pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_parens_nest_limit(context.get(), kMaxNesting);
  int error = 0;
  size_t offset = 0;
  auto code = std::make_shared<Code>();
  code->program.reset(pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context.get()));
  if (!code->program) {
    PCRE2_UCHAR message[200];
    (void)pcre2_get_error_message(error, message, sizeof message);
    return fail(fmt::format("{}: regex \"{}\": {}", where, pattern,
                            reinterpret_cast<const char*>(message)));
  }
  // Without compiled code (some systems forbid it) the interpreter gives the same matches.
  (void)pcre2_jit_compile(code->program.get(), PCRE2_JIT_COMPLETE);
  return Regex(std::string(pattern), std::move(code));
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

RegexMatcher::RegexMatcher() : memory_(std::make_unique<Memory>()) {
  if (!memory_->context || !memory_->data) throw std::bad_alloc();
  pcre2_set_match_limit(memory_->context.get(), kMatchLimit);
  pcre2_set_heap_limit(memory_->context.get(), kHeapLimitKib);
}
RegexMatcher::~RegexMatcher() = default;
RegexMatcher::RegexMatcher(RegexMatcher&&) noexcept = default;

std::optional<RegexMatch> RegexMatcher::find(const Regex& regex, std::string_view text,
                                             size_t from) {
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
  if (found < 0) return std::nullopt;
  const size_t* range = pcre2_get_ovector_pointer(memory_->data.get());
  if (range[1] < range[0]) return std::nullopt;  // \K inside a lookahead
  return RegexMatch{range[0], range[1]};
}

}  // namespace kvcast
