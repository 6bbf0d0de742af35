// kvcast analyze as a program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/run_program.h"
#include "support/temporary_directory.h"

namespace kvcast::analysis {
namespace {

using testing::HasSubstr;

class Commands : public testing::Test {
 protected:
  std::string path(const char* relative) const { return (root_.path() / relative).string(); }
  TemporaryDirectory root_;
};

TEST_F(Commands, ReportSaysInALineWhatToUseInstead) {
  const auto result = run_kvcast("report results --out x");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.error, HasSubstr("kvcast-report"));
  EXPECT_EQ(std::ranges::count(result.error, '\n'), 1) << result.error;
}

TEST_F(Commands, AnalyzeWritesAFile) {
  const std::string bundle = std::string(KVCAST_SOURCE_DIR) + "/models/kvcast-65m";
  std::string text;
  for (int i = 0; i < 60; ++i)
    text += "The city of Rome was founded in year " + std::to_string(i) + ".\n";
  root_.write("text.txt", text);
  const auto analysis = run_kvcast("analyze '" + bundle + "' --data '" + path("text.txt") +
                                   "' --tokens 64 --limit 3 --out '" + path("analysis") + "'");
  ASSERT_EQ(analysis.exit_code, 0) << analysis.error;
  EXPECT_THAT(analysis.out, AllOf(HasSubstr("| layer"), HasSubstr("3 windows of 64 tokens")));
  EXPECT_TRUE(std::filesystem::exists(path("analysis/analysis.json")));
}

TEST_F(Commands, AnalyzeOfWrongInputIsOneLine) {
  const std::string golden = std::string(KVCAST_GOLDEN_DIR) + "/openelm-tiny-kvp-c";
  root_.write("short.txt", "too short\n");
  const std::string shipped = std::string(KVCAST_SOURCE_DIR) + "/models/kvcast-65m";
  const auto expect_error = [&](const std::string& arguments, const char* part) {
    const auto result = run_kvcast("analyze " + arguments);
    EXPECT_EQ(result.exit_code, 1) << arguments;
    EXPECT_THAT(result.error, HasSubstr(part));
    EXPECT_EQ(std::ranges::count(result.error, '\n'), 1) << result.error;
  };
  expect_error("'" + golden + "/base' --data '" + path("short.txt") + "'", "plain model");
  expect_error("'" + golden + "' --tokens 16 --data '" + path("short.txt") + "'", "tokenizer");
  expect_error("'" + shipped + "' --data '" + path("short.txt") + "'", "short.txt");
  expect_error("'" + shipped + "' --data '" + path("none.txt") + "'", "none.txt");
  expect_error("'" + shipped + "' --tokens 100000 --data '" + path("short.txt") + "'", "--tokens");
  EXPECT_EQ(run_kvcast("analyze").exit_code, 2);
}

}  // namespace
}  // namespace kvcast::analysis
