#include "line_input.h"

#include <histedit.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string_view>
#include <vector>

namespace kvcast {
namespace {

class PipeInput final : public LineInput {
 public:
  [[nodiscard]] bool is_terminal() const override { return false; }
  std::optional<std::string> read() override {
    std::string line;
    if (!std::getline(std::cin, line)) return std::nullopt;
    if (line.ends_with('\r')) line.pop_back();
    return line;
  }
};

// What terminals send around pasted text once they have been asked to ("bracketed paste").
constexpr const wchar_t* kPasteBegins = L"\\e[200~";  // as EL_BIND wants it written
constexpr std::wstring_view kPasteEnds = L"\x1b[201~";
constexpr const char* kAskForBrackets = "\x1b[?2004h";
constexpr const char* kNoMoreBrackets = "\x1b[?2004l";

std::string to_utf8(const std::wstring& wide) {
  std::string text;
  std::vector<char> bytes(MB_CUR_MAX);
  for (const wchar_t character : wide) {
    const int length = wctomb(bytes.data(), character);
    if (length > 0) text.append(bytes.data(), static_cast<size_t>(length));
  }
  return text;
}

class TerminalInput final : public LineInput {
 public:
  TerminalInput() {
    // Characters of several bytes are edited as one. Without a UTF-8 locale Debian's own is there.
    const char* chosen = std::setlocale(LC_CTYPE, "");
    if (chosen == nullptr || MB_CUR_MAX < 4) std::setlocale(LC_CTYPE, "C.UTF-8");
    editor_ = el_init("kvcast", stdin, stdout, stderr);
    history_ = history_winit();
    HistEventW event;
    history_w(history_, &event, H_SETSIZE, 1000);
    history_w(history_, &event, H_SETUNIQUE, 1);
    el_wset(editor_, EL_CLIENTDATA, this);
    el_wset(editor_, EL_PROMPT, &prompt);
    el_wset(editor_, EL_EDITOR, L"emacs");
    el_wset(editor_, EL_HIST, &history_w, history_);
    el_wset(editor_, EL_ADDFN, L"kvcast-paste", L"insert what is pasted", &paste);
    el_wset(editor_, EL_BIND, kPasteBegins, L"kvcast-paste", nullptr);
    // Ctrl-C is a key while a line is edited: the library may wait on through the signal. So is
    // Ctrl-Z then. (The library forgets a key that is taken from the terminal, but not a mode.)
    el_wset(editor_, EL_SETTY, L"-d", L"-isig", nullptr);
    el_wset(editor_, EL_ADDFN, L"kvcast-suspend", L"stop until the shell goes on", &suspend);
    el_wset(editor_, EL_BIND, L"^Z", L"kvcast-suspend", nullptr);
    el_wset(editor_, EL_ADDFN, L"kvcast-give-up", L"forget the line", &give_up);
    el_wset(editor_, EL_BIND, L"^C", L"kvcast-give-up", nullptr);
    const char* terminal = std::getenv("TERM");
    has_brackets_ = terminal != nullptr && std::strcmp(terminal, "dumb") != 0;
  }
  ~TerminalInput() override {
    history_wend(history_);
    el_end(editor_);
  }
  TerminalInput(const TerminalInput&) = delete;
  TerminalInput& operator=(const TerminalInput&) = delete;

  [[nodiscard]] bool is_terminal() const override { return true; }

  std::optional<std::string> read() override {
    given_up_ = was_empty_ = false;
    // Before the prompt, which libedit shows first: keys that answer it would else be the
    // terminal's, which keeps 4,095 characters of a line.
    el_wset(editor_, EL_PREP_TERM, 1);
    ask_terminal(kAskForBrackets);
    int characters = 0;
    errno = 0;
    const wchar_t* typed = el_wgets(editor_, &characters);
    ask_terminal(kNoMoreBrackets);
    const bool interrupted = typed == nullptr && errno == EINTR;  // before the keys were ours
    if (given_up_ || interrupted) {
      std::fputs(was_empty_ || interrupted ? "\nCtrl-D ends the chat.\n" : "\n", stdout);
      return std::string();
    }
    if (typed == nullptr || characters <= 0) return std::nullopt;
    std::wstring line(typed, static_cast<size_t>(characters));
    while (!line.empty() && line.back() == L'\n') line.pop_back();
    if (!line.empty()) {
      HistEventW event;
      history_w(history_, &event, H_ENTER, line.c_str());
    }
    return to_utf8(line);
  }

 private:
  static TerminalInput& of(EditLine* editor) {
    void* self = nullptr;
    el_wget(editor, EL_CLIENTDATA, &self);
    return *static_cast<TerminalInput*>(self);
  }
  static wchar_t* prompt(EditLine* /*editor*/) {
    static wchar_t text[] = L"> ";
    return text;
  }
  /// Newlines between the brackets belong to the message and do not send it.
  static unsigned char paste(EditLine* editor, wint_t /*key*/) {
    std::wstring text;
    wchar_t character = 0;
    while (!std::wstring_view(text).ends_with(kPasteEnds)) {
      if (el_wgetc(editor, &character) != 1) return CC_EOF;
      text.push_back(character == L'\r' ? L'\n' : character);
    }
    text.resize(text.size() - kPasteEnds.size());
    if (!text.empty() && el_winsertstr(editor, text.c_str()) != 0) return CC_ERROR;
    return CC_REDISPLAY;
  }
  static unsigned char give_up(EditLine* editor, wint_t /*key*/) {
    const LineInfoW* const line = el_wline(editor);
    of(editor).given_up_ = true;
    of(editor).was_empty_ = line->lastchar == line->buffer;
    return CC_NEWLINE;
  }
  static unsigned char suspend(EditLine* editor, wint_t /*key*/) {
    el_wset(editor, EL_PREP_TERM, 0);
    std::raise(SIGTSTP);
    el_wset(editor, EL_PREP_TERM, 1);
    return CC_REDISPLAY;
  }
  void ask_terminal(const char* sequence) const {
    if (!has_brackets_) return;
    std::fputs(sequence, stdout);
    std::fflush(stdout);
  }

  EditLine* editor_ = nullptr;
  HistoryW* history_ = nullptr;
  bool has_brackets_ = false;
  bool given_up_ = false, was_empty_ = false;  // by Ctrl-C, the last line
};

}  // namespace

std::unique_ptr<LineInput> LineInput::open() {
  if (isatty(STDIN_FILENO) != 0) return std::make_unique<TerminalInput>();
  return std::make_unique<PipeInput>();
}

}  // namespace kvcast
