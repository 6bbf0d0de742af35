// kvcast report and kvcast analyze as programs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "report/sample_files.h"
#include "report/svg_check.h"
#include "support/run_program.h"
#include "support/temporary_directory.h"

namespace kvcast::report {
namespace {

using testing::HasSubstr;
using testing::Not;

class Commands : public testing::Test {
 protected:
  std::string path(const char* relative) const { return (root_.path() / relative).string(); }
  TemporaryDirectory root_;
};

TEST_F(Commands, ReportWritesPageTablesAndFigures) {
  const auto files = family();
  for (size_t i = 0; i < files.size(); ++i) {
    root_.write("in/" + std::to_string(i) + ".json", files[i].dump());
  }
  root_.write("in/bench.json", bench_file().dump());
  root_.write("in/other.json", "{\"some\": \"file\"}");
  root_.write("in/model/config.json", "{}");
  root_.write("in/log.jsonl",
              "{\"step\": 1, \"tokens\": 2, \"losses\": {\"loss\": 3}}\n{\"step\": 2");
  const auto result = run_kvcast("report '" + path("in") + "' --out '" + path("out") + "'");
  EXPECT_EQ(result.exit_code, 0) << result.error;
  EXPECT_THAT(result.error, AllOf(HasSubstr("other.json"), HasSubstr("cut short")));
  EXPECT_THAT(result.error, Not(HasSubstr("config.json")));
  for (const char* file :
       {"out/index.html", "out/report.md", "out/tables/quality-triviaqa-base-60m.csv",
        "out/figures/pareto-triviaqa-base-60m.svg", "out/figures/loss-training.svg"}) {
    EXPECT_TRUE(std::filesystem::exists(path(file))) << file;
  }
}

TEST_F(Commands, ReportOfWrongInputIsOneLineAndWritesNothing) {
  root_.write("bad.json", "{\"results\": [{\"task\": 5}]}");
  root_.write("broken.json", "{");
  root_.write("other.json", "{}");
  std::filesystem::create_directories(path("empty"));
  for (const char* file : {"bad.json", "broken.json", "other.json", "missing.json", "empty"}) {
    const auto result = run_kvcast("report '" + path(file) + "' --out '" + path("out") + "'");
    EXPECT_EQ(result.exit_code, 1) << file;
    EXPECT_EQ(result.out, "") << file;
    EXPECT_THAT(result.error, AllOf(HasSubstr(file), testing::EndsWith("\n"))) << file;
    EXPECT_EQ(std::ranges::count(result.error, '\n'), 1) << result.error;
    EXPECT_FALSE(std::filesystem::exists(path("out"))) << file;
  }
  EXPECT_EQ(run_kvcast("report").exit_code, 2);
  EXPECT_EQ(run_kvcast("report x").exit_code, 2);
}

TEST_F(Commands, AnalyzeWritesFilesThatReportReads) {
  const std::string bundle = std::string(KVCAST_SOURCE_DIR) + "/models/kvcast-65m";
  std::string text;
  for (int i = 0; i < 60; ++i)
    text += "The city of Rome was founded in year " + std::to_string(i) + ".\n";
  root_.write("text.txt", text);
  const auto analysis = run_kvcast("analyze '" + bundle + "' --data '" + path("text.txt") +
                                   "' --tokens 64 --limit 3 --out '" + path("analysis") + "'");
  ASSERT_EQ(analysis.exit_code, 0) << analysis.error;
  EXPECT_THAT(analysis.out, AllOf(HasSubstr("| layer"), HasSubstr("3 windows of 64 tokens")));
  EXPECT_TRUE(std::filesystem::exists(path("analysis/l1-heat-map.svg")));
  const auto report =
      run_kvcast("report '" + path("analysis/analysis.json") + "' --out '" + path("out") + "'");
  EXPECT_EQ(report.exit_code, 0) << report.error;
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
}  // namespace kvcast::report
