#include "report/training_log.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "report/svg_check.h"

namespace kvcast::report {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::string line(int64_t step, const std::string& loss, double tokens_per_second = 1000) {
  return fmt::format(R"({{"step": {}, "tokens": {}, "losses": {{"loss": {}}}, )"
                     R"("tokens_per_second": {}, "teraflops": 2.5, "elapsed_seconds": {}}})",
                     step, step * 1000, loss, tokens_per_second, step * 60) +
         "\n";
}

TrainingLog parsed(const std::string& text) {
  auto log = parse_training_log(text, "run", "run.jsonl");
  EXPECT_TRUE(log) << log.error().message;
  return log ? *log : TrainingLog{.name = "", .points = {LogPoint()}, .notes = {}};
}

std::string error_of(const std::string& text) {
  const auto log = parse_training_log(text, "run", "run.jsonl");
  EXPECT_FALSE(log);
  return log ? "" : log.error().message;
}

TEST(TrainingLogFile, IsReadLineByLine) {
  const TrainingLog log = parsed(line(20, "5.5") + "\n" + line(40, "4.5"));
  ASSERT_EQ(log.points.size(), 2);
  EXPECT_EQ(log.points[1].step, 40);
  EXPECT_EQ(log.points[1].tokens, 40000);
  EXPECT_EQ(log.points[1].losses.at("loss"), 4.5);
  EXPECT_TRUE(std::isnan(log.points[1].utilisation));
  EXPECT_TRUE(log.notes.empty());
}

TEST(TrainingLogFile, LastLineCutShortIsANote) {
  const std::string whole = line(20, "5.5") + line(40, "4.5");
  for (const size_t cut : {size_t{2}, size_t{30}, size_t{80}}) {
    const TrainingLog log = parsed(whole.substr(0, whole.size() - cut));
    EXPECT_EQ(log.points.size(), 1);
    EXPECT_THAT(log.notes, ElementsAre(AllOf(HasSubstr("run"), HasSubstr("line 2"))));
  }
  EXPECT_EQ(parsed(whole.substr(0, whole.size() - 1)).points.size(),
            2);  // only the newline is lost
}

TEST(TrainingLogFile, ErrorsNameFileLineAndKey) {
  EXPECT_THAT(error_of(""), HasSubstr("run.jsonl"));
  EXPECT_THAT(error_of("{\n"), AllOf(HasSubstr("run.jsonl"), HasSubstr("line 1")));
  EXPECT_THAT(error_of(line(1, "5") + "{broken\n" + line(3, "4")), HasSubstr("line 2"));
  EXPECT_THAT(error_of("[1]\n"), HasSubstr("line 1"));
  EXPECT_THAT(error_of(R"({"tokens": 1, "losses": {}})"
                       "\n"),
              HasSubstr("\"step\""));
  EXPECT_THAT(error_of(line(1, "\"x\"")), AllOf(HasSubstr("\"losses\""), HasSubstr("\"loss\"")));
  EXPECT_THAT(error_of(R"({"step": 1.5, "tokens": 1, "losses": {}})"
                       "\n"),
              HasSubstr("\"step\""));
}

TEST(TrainingLogFile, LossesThatAreNotFiniteAreGapsAndNoted) {
  const TrainingLog log = parsed(line(1, "5") + line(2, "null") + line(3, "4"));
  EXPECT_TRUE(std::isnan(log.points[1].losses.at("loss")));
  EXPECT_THAT(log.notes, ElementsAre(AllOf(HasSubstr("\"loss\""), HasSubstr("1 lines"))));
}

TEST(TrainingLogFile, OfAResumedRunCountsRepeatedStepsOnce) {
  const TrainingLog log =
      parsed(line(10, "5") + line(20, "4") + line(30, "3") + line(20, "4.5") + line(30, "3.5"));
  ASSERT_EQ(log.points.size(), 3);
  EXPECT_EQ(log.points[1].losses.at("loss"), 4.5);
  EXPECT_EQ(log.points[2].losses.at("loss"), 3.5);
  EXPECT_THAT(log.notes, ElementsAre(HasSubstr("resumed")));
}

TEST(TrainingTable, HasTheMeanOfTheLastTwentiethAndMedianThroughput) {
  std::string text;
  for (int i = 1; i <= 40; ++i)
    text += line(i, i <= 38 ? "9" : i == 39 ? "2" : "4", i == 1 ? 1 : 1500);
  const TrainingLog log = parsed(text);
  const Table table = training_table({&log});
  EXPECT_THAT(table.headers,
              ElementsAre("run", "steps", "tokens (M)", "loss", "tokens/s", "TFLOP/s", "minutes"));
  ASSERT_EQ(table.rows.size(), 1);
  EXPECT_THAT(table.rows[0], ElementsAre("run", "40", "0.0", "3.0000", "1,500", "2.5", "40.0"));
}

TEST(TrainingTable, ShowsMfuWhereItIsLogged) {
  const TrainingLog log =
      parsed(R"({"step": 1, "tokens": 5, "losses": {"loss": 1}, "utilisation": 0.41})"
             "\n");
  const Table table = training_table({&log});
  EXPECT_THAT(table.headers, testing::Contains("MFU (%)"));
  EXPECT_THAT(table.rows[0], testing::Contains("41.0"));
  EXPECT_THAT(table.rows[0], testing::Contains("–"));  // no throughput
}

TEST(TrainingFigures, ShowEachTermThatSaysSomething) {
  const TrainingLog log = parsed(
      R"({"step": 1, "tokens": 5, "losses": {"loss": 9, "base": 5, "auxiliary": 4, "keys": 1, "z_loss": 0.1}})"
      "\n"
      R"({"step": 2, "tokens": 9, "losses": {"loss": 8, "base": 4, "auxiliary": 3, "keys": 1, "z_loss": 0.1}})"
      "\n");
  const auto figures = training_figures({&log}, "loss");
  ASSERT_EQ(figures.size(), 1);
  EXPECT_EQ(figures[0].panels.size(), 3);  // base, auxiliary, keys
  EXPECT_TRUE(XmlDocument::parse(to_svg(figures[0])));
}

TEST(TrainingFigures, CompareRunsWithDifferentTerms) {
  const TrainingLog paper = parsed(R"({"step": 1, "tokens": 5, "losses": {"base": 5, "keys": 1}})"
                                   "\n");
  const TrainingLog ours = parsed(R"({"step": 1, "tokens": 5, "losses": {"base": 5}})"
                                  "\n"
                                  R"({"step": 2, "tokens": 9, "losses": {"base": 4, "kl": 0.5}})"
                                  "\n");
  const std::vector<const TrainingLog*> runs = {&paper, &ours};
  EXPECT_EQ(training_figures(runs, "loss")[0].panels.size(), 3);  // base, keys, kl
  const Table table = training_table(runs);
  EXPECT_THAT(table.rows[0],
              ElementsAre("run", "1", "0.0", "5.0000", "1.0000", "–", "–", "–", "–"));
}

TEST(TrainingFigures, HoldAtMostSevenRunsEach) {
  const TrainingLog log = parsed(line(1, "5") + line(2, "4"));
  const auto figures = training_figures(std::vector<const TrainingLog*>(9, &log), "loss");
  ASSERT_EQ(figures.size(), 2);
  EXPECT_NE(figures[0].id, figures[1].id);
}

TEST(TrainingFigures, OfALogWithoutAFiniteLossAreEmptyButWhole) {
  const TrainingLog log = parsed(line(1, "null") + line(2, "null"));
  for (const Figure& figure : training_figures({&log}, "loss")) {
    EXPECT_TRUE(XmlDocument::parse(to_svg(figure)));
  }
}

TEST(ComparableRuns, AreModelsAloneAndBundles) {
  const std::vector<TrainingLog> logs = {
      parsed(line(1, "5")),
      parsed(R"({"step": 1, "tokens": 5, "losses": {"base": 1, "keys": 2}})"
             "\n"),
      parsed(line(1, "6"))};
  const auto runs = comparable_runs(logs);
  ASSERT_EQ(runs.size(), 2);
  EXPECT_THAT(runs[0], ElementsAre(&logs[0], &logs[2]));
}

}  // namespace
}  // namespace kvcast::report
