// kvcast chat, as it is at a terminal and behind a pipe.
#include <string>

#include "io/json.h"
#include "malformed/malformed.h"
#include "support/run_program.h"
#include "support/terminal.h"

namespace kvcast {
namespace {

using testing::HasSubstr;

const std::string kProgram = std::string(KVCAST_BINARY_DIR) + "/kvcast";

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
  terminal.type("never sent");
  ASSERT_TRUE(terminal.shows("never sent"));
  terminal.type("\x03");  // a key: it forgets this line, and nothing else is said
  ASSERT_TRUE(terminal.shows("> "));
  EXPECT_THAT(terminal.shown(), testing::Not(testing::HasSubstr("Ctrl-D ends the chat")));
  terminal.type("/save " + path("saved") + "\r");
  ASSERT_TRUE(terminal.shows("saved 0 messages"));
  ASSERT_TRUE(terminal.shows("> "));
  terminal.type("\x03");
  ASSERT_TRUE(terminal.shows("Ctrl-D ends the chat"));
  ASSERT_TRUE(terminal.shows("> "));  // a key before it may be the terminal's, not the editor's
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
