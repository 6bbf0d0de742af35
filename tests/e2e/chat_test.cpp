// kvcast chat, as it is at a terminal and behind a pipe.
#include <pty.h>

#include <chrono>
#include <string>

#include "io/json.h"
#include "malformed/malformed.h"
#include "support/run_program.h"

namespace kvcast {
namespace {

using testing::HasSubstr;

const std::string kProgram = std::string(KVCAST_BINARY_DIR) + "/kvcast";

/// The program at a terminal of its own.
class Terminal {
 public:
  explicit Terminal(std::vector<std::string> arguments) {
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    winsize size = {.ws_row = 24, .ws_col = 80, .ws_xpixel = 0, .ws_ypixel = 0};
    pid_ = forkpty(&master_, nullptr, nullptr, &size);
    if (pid_ != 0) return;
    setenv("TERM", "xterm", 1);
    setenv("LC_ALL", "C.UTF-8", 1);
    execv(argv[0], argv.data());
    _exit(127);
  }
  ~Terminal() {
    close(master_);
    if (pid_ <= 0) return;  // has ended; kill(-1) would end everything
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  /// In pieces that a terminal's buffer holds, reading what is echoed meanwhile.
  void type(std::string_view text) {
    while (!text.empty()) {
      const ssize_t sent = write(master_, text.data(), std::min<size_t>(text.size(), 512));
      ASSERT_GT(sent, 0);
      text.remove_prefix(static_cast<size_t>(sent));
      read_some(0);
    }
  }
  /// Waits until `text` has been shown once more than before.
  [[nodiscard]] bool shows(const std::string& text) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < end) {
      const size_t found = shown_.find(text, seen_);
      if (found != std::string::npos) {
        seen_ = found + text.size();
        return true;
      }
      if (!read_some(100)) break;
    }
    ADD_FAILURE() << "not shown: " << text << " in " << shown_.substr(seen_);
    return false;
  }
  /// Types Ctrl-D, again where a key came while the terminal changed modes. The exit status, or -1
  /// where there is none within a minute.
  int leave() {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    auto again = std::chrono::steady_clock::now();
    do {
      const auto now = std::chrono::steady_clock::now();
      if (now > end) return -1;
      if (now < again) continue;
      type("\x04");
      again = now + std::chrono::seconds(2);
    } while (read_some(100));
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  /// False once the program has closed its side.
  bool read_some(int milliseconds) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(master_, &set);
    timeval limit = {.tv_sec = 0, .tv_usec = milliseconds * 1000};
    if (select(master_ + 1, &set, nullptr, nullptr, &limit) <= 0) return true;
    char block[4096];
    const ssize_t bytes = read(master_, block, sizeof block);
    if (bytes <= 0) return false;
    shown_.append(block, static_cast<size_t>(bytes));
    return true;
  }
  int master_ = -1;
  pid_t pid_ = -1;
  std::string shown_;
  size_t seen_ = 0;
};

class ChatTest : public MalformedTest {
 protected:
  void SetUp() override {
    model_.config["max_context_length"] = 1 << 15;
    model_.config["rope_max_length"] = 1 << 15;
    model_.write(root_, "reader");
    root_.write("reader/tokenizer.model", *read_text_file(kTestTokenizer));
    root_.write("reader/chat_template.jinja",
                "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}");
  }
  std::string path(const std::string& relative) { return (root_.path() / relative).string(); }
  std::vector<std::string> chat() { return {kProgram, "chat", path("reader"), "-n", "2"}; }
  /// The conversation that /save wrote.
  Json saved() { return *parse_json(*read_text_file(path("saved")), "saved"); }
};

TEST_F(ChatTest, LongLinesArriveWhole) {
  const std::string line = "start " + std::string(6'782, 'x') + " end";
  Terminal terminal(chat());
  ASSERT_TRUE(terminal.shows("> "));
  terminal.type(line + "\r");
  terminal.type("/save " + path("saved") + "\r");
  ASSERT_TRUE(terminal.shows("saved 2 messages"));
  EXPECT_EQ(saved()["messages"][0]["content"], line);
}

TEST_F(ChatTest, PastedLinesAreOneMessage) {
  Terminal terminal(chat());
  ASSERT_TRUE(terminal.shows("\x1b[?2004h"));
  terminal.type("\x1b[200~one\rtwo \xC3\xA9\rthree\x1b[201~\r");
  terminal.type("/save " + path("saved") + "\r");
  ASSERT_TRUE(terminal.shows("saved 2 messages"));
  EXPECT_EQ(saved()["messages"][0]["content"], "one\ntwo \xC3\xA9\nthree");
}

TEST_F(ChatTest, LinesAreEditedAndComeBackFromTheHistory) {
  Terminal terminal(chat());
  ASSERT_TRUE(terminal.shows("> "));
  terminal.type("/hlp\x1b[D\x1b[De\r");  // two to the left, then the missing letter
  ASSERT_TRUE(terminal.shows("Ctrl-C stops"));
  ASSERT_TRUE(terminal.shows("> "));
  terminal.type("\x1b[A\r");
  ASSERT_TRUE(terminal.shows("Ctrl-C stops"));
  ASSERT_TRUE(terminal.shows("> "));
  terminal.type("never sent\x03");
  terminal.type("/save " + path("saved") + "\r");
  ASSERT_TRUE(terminal.shows("saved 0 messages"));
  ASSERT_TRUE(terminal.shows("> "));
  EXPECT_EQ(terminal.leave(), 0);
}

TEST_F(ChatTest, AModelWithoutATemplateGoesOnFromTheText) {
  std::filesystem::remove(path("reader/chat_template.jinja"));
  Terminal terminal(chat());
  ASSERT_TRUE(terminal.shows("no chat template"));
  Program chat_program(
      {"/bin/sh", "-c", "echo 'The cache' | " + kProgram + " chat " + path("reader") + " -n 5"});
  EXPECT_EQ(chat_program.wait(), 0) << chat_program.err();
  Program run({kProgram, "run", path("reader"), "-p", "The cache", "-n", "5"});
  EXPECT_EQ(run.wait(), 0);
  const auto trimmed = [](std::string text) {
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
    text.erase(0, text.find_first_not_of(' '));
    return text;
  };
  EXPECT_EQ(trimmed(chat_program.out()), trimmed(run.out()));
}

TEST_F(ChatTest, APipedChatThatFailsExitsWithOne) {
  const auto piped = [&](const std::string& input) {
    return std::vector<std::string>{
        "/bin/sh", "-c",
        "printf '" + input + "' | " + kProgram + " chat " + path("reader") + " -n 2"};
  };
  Program good(piped("The cache\\n"));
  EXPECT_EQ(good.wait(), 0) << good.err();
  for (const char* bad : {"/prefill guess\\n", "/nonsense\\n", "caf\\351\\n"}) {
    Program program(piped(bad));
    EXPECT_EQ(program.wait(), 1) << bad;
    EXPECT_THAT(program.err(), testing::StartsWith("kvcast: ")) << bad;
  }
}

/// The shipped bundle, on a prompt where the forecast begins otherwise than exact.
class RevisedChat : public ::testing::Test {
 protected:
  static std::vector<std::string> chat(const std::string& prefill) {
    return {kProgram, "chat",    std::string(KVCAST_SOURCE_DIR) + "/models/kvcast-65m",
            "-n",     "32",      "--prefill",
            prefill,  "--revise"};
  }
  static std::string piped(const std::string& prefill) {
    std::string command = "echo 'The old keeper climbed the stairs and' |";
    for (const std::string& argument : chat(prefill)) command += " '" + argument + "'";
    Program program({"/bin/sh", "-c", command});
    EXPECT_EQ(program.wait(std::chrono::seconds(60)), 0) << program.err();
    return program.out();
  }
};

TEST_F(RevisedChat, SaysWhatExactSays) {
  EXPECT_EQ(piped("kv-prediction:refine=8"), piped("exact"));
  EXPECT_NE(piped("kv-prediction"), piped("exact"));
}

TEST_F(RevisedChat, ShowsAtATerminalWhatIsTakenBack) {
  Terminal terminal(chat("kv-prediction:refine=8"));
  ASSERT_TRUE(terminal.shows("> "));
  terminal.type("The old keeper climbed the stairs and\r");
  ASSERT_TRUE(terminal.shows("--- revised"));
  ASSERT_TRUE(terminal.shows("> "));
  terminal.type("/stats\r");
  ASSERT_TRUE(terminal.shows("the cache was made exact: after"));
}

}  // namespace
}  // namespace kvcast
