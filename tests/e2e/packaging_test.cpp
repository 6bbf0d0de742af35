// The man page and the shells' completions know every command and option that the program has.
#include <gmock/gmock.h>

#include <cstdlib>
#include <regex>
#include <set>

#include "support/run_program.h"

namespace kvcast {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

const std::string kPackaging = std::string(KVCAST_SOURCE_DIR) + "/packaging/";

std::set<std::string> matches(const std::string& text, const char* pattern, int group) {
  const std::regex regex(pattern, std::regex::ECMAScript | std::regex::multiline);
  std::set<std::string> found;
  for (auto match = std::sregex_iterator(text.begin(), text.end(), regex);
       match != std::sregex_iterator(); ++match) {
    found.insert((*match)[group]);
  }
  return found;
}

std::set<std::string> commands() {
  const std::string help = run_kvcast("--help").out;
  return matches(help.substr(help.find("Subcommands:")), "^  ([a-z][a-z-]*)", 1);
}

std::set<std::string> options_of(const std::string& command) {
  return matches(run_kvcast(command + " --help").out, "--[a-z][a-z-]*", 0);
}

/// What `script` prints, line by line, with kvcast in the path.
std::set<std::string> lines_of(const char* shell, const std::string& script) {
  Program program({"/usr/bin/env", std::string("PATH=") + KVCAST_BINARY_DIR + ":/usr/bin:/bin",
                   shell, "-c", script});
  EXPECT_EQ(program.wait(), 0) << program.err();
  EXPECT_EQ(program.err(), "");
  return matches(program.out(), "^.+$", 0);
}

bool is_installed(const std::string& program) {
  return std::system(("command -v " + program + " >/dev/null").c_str()) == 0;
}

std::string bash_completion(const std::string& words, int word) {
  return ". '" + kPackaging + "kvcast.bash'; COMP_WORDS=(" + words +
         "); COMP_CWORD=" + std::to_string(word) + "; _kvcast; printf '%s\\n' \"${COMPREPLY[@]}\"";
}

/// zsh's own functions stand aside, so that the words come out as they are.
std::string zsh_completion(const std::string& words, int word) {
  return R"(compadd() { [[ $1 == -a ]] && print -l -- ${(P)2} || print -l -- "$@" }
            _describe() { print -l -- ${${(P)2}%%:*} }
            words=()" +
         words + "); CURRENT=" + std::to_string(word) + "; . '" + kPackaging + "_kvcast'";
}

TEST(Packaging, TheProgramHasTheCommandsThatTheTestsLookFor) {
  EXPECT_THAT(commands(), Contains("serve"));
  EXPECT_THAT(options_of("serve"), Contains("--api-key-file"));
}

TEST(Packaging, TheManPageListsEveryCommandAndOption) {
  const auto page = read_text_file(std::string(KVCAST_BINARY_DIR) + "/kvcast.1");
  ASSERT_TRUE(page) << page.error().message;
  std::string text = std::regex_replace(*page, std::regex(R"(\\-)"), "-");
  text = std::regex_replace(text, std::regex(R"(\\f.)"), "");
  for (const std::string& command : commands()) {
    const size_t start = text.find("\n.SS kvcast " + command + "\n");
    ASSERT_NE(start, std::string::npos) << command;
    const std::string section =
        text.substr(start, std::min(text.find("\n.S", start + 1), text.size()) - start);
    for (const std::string& option : options_of(command)) {
      // The name, and a description on the line after it.
      EXPECT_TRUE(std::regex_search(section, std::regex("\n[^\n]*" + option + "[^\n]*\n[^.\n]")))
          << command << " " << option;
    }
  }
}

TEST(Packaging, TheManPageIsCleanUnderMandoc) {
  if (!is_installed("mandoc")) GTEST_SKIP() << "mandoc is not installed";
  EXPECT_EQ(lines_of("bash",
                     std::string("mandoc -Tlint -W warning '") + KVCAST_BINARY_DIR + "/kvcast.1'"),
            std::set<std::string>{});
}

TEST(Packaging, BashCompletesEveryCommandAndOption) {
  const auto offered = lines_of("bash", bash_completion("kvcast ''", 1));
  for (const std::string& command : commands()) {
    EXPECT_THAT(offered, Contains(command));
    EXPECT_EQ(lines_of("bash", bash_completion("kvcast " + command + " --", 2)),
              options_of(command));
  }
  EXPECT_EQ(lines_of("bash", bash_completion("kvcast serve --max-b", 2)),
            (std::set<std::string>{"--max-batch", "--max-body-bytes"}));
  EXPECT_THAT(lines_of("bash", bash_completion("kvcast run --dtype ''", 3)), Contains("int8"));
}

TEST(Packaging, ZshCompletesEveryCommandAndOption) {
  if (!is_installed("zsh")) GTEST_SKIP() << "zsh is not installed";
  EXPECT_EQ(lines_of("zsh", zsh_completion("kvcast ''", 2)), commands());
  for (const std::string& command : commands()) {
    EXPECT_EQ(lines_of("zsh", zsh_completion("kvcast " + command + " --", 3)), options_of(command));
  }
  EXPECT_THAT(lines_of("zsh", zsh_completion("kvcast run --dtype ''", 4)), Contains("int8"));
}

}  // namespace
}  // namespace kvcast
