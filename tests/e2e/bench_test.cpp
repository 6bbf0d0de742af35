// `kvcast bench`: what it prints, whatever the machine's speed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "io/json.h"
#include "support/run_program.h"

namespace kvcast {
namespace {

using ::testing::HasSubstr;

const std::string kGolden = std::string(KVCAST_GOLDEN_DIR) + "/openelm-tiny-kvp-c";
const std::string kSmall = "bench '" + kGolden + "' -p 4,9 -b 2 -r 1 --decode 1 --threads 1 ";

TEST(BenchCommand, JsonHoldsWhatIsPromisedForEveryCase) {
  const auto result =
      run_kvcast(kSmall + "--dtype f32,int8 --prefill exact,kv-prediction --format json");
  ASSERT_EQ(result.exit_code, 0) << result.error;
  const Json json = *parse_json(result.out, "stdout");
  ASSERT_EQ(json["results"].size(), 8U);
  for (const Json& row : json["results"]) {
    for (const char* key : {"arch", "prefill", "dtype"}) EXPECT_TRUE(row[key].is_string()) << key;
    for (const char* key :
         {"prompt_tokens", "batch", "threads", "peak_rss_bytes", "weight_bytes", "cache_bytes"}) {
      EXPECT_GT(row[key].get<int64_t>(), 0) << key;
    }
    for (const char* key : {"share_of_peak", "decode_tokens_per_s", "share_of_read_bandwidth"}) {
      EXPECT_GT(row[key].get<double>(), 0) << key;
    }
    for (const char* key : {"median", "p10", "p90"})
      EXPECT_GT(row["ttft_ms"][key].get<double>(), 0);
    for (const char* key : {"tokenize", "auxiliary", "predictor", "base"}) {
      EXPECT_GE(row["stages_ms"][key].get<double>(), 0) << key;
    }
    for (const char* of : {"ttft", "decode"}) {
      const Json& floor = row["floor"][of];
      EXPECT_GT(floor["arithmetic_ms"].get<double>(), 0) << of;
      EXPECT_GT(floor["bytes_ms"].get<double>(), 0) << of;
      EXPECT_EQ(floor["floor_ms"],
                std::max(floor["arithmetic_ms"].get<double>(), floor["bytes_ms"].get<double>()));
      EXPECT_GT(floor["share"].get<double>(), 0) << of;
    }
    EXPECT_EQ(row["stages_ms"]["predictor"].get<double>() > 0, row["prefill"] == "kv-prediction");
  }
  for (const char* dtype : {"f32", "int8"}) {
    EXPECT_GT(json["peaks"][dtype]["ops_per_s"].get<double>(), 0);
    EXPECT_GT(json["peaks"][dtype]["read_bytes_per_s"].get<double>(), 0);
    EXPECT_GT(json["load_ms"][dtype].get<double>(), 0);
  }
}

TEST(BenchCommand, ABundleRunsInTheTypeItIsStoredIn) {
  const auto result = run_kvcast(kSmall + "--format json");
  ASSERT_EQ(result.exit_code, 0) << result.error;
  const Json json = *parse_json(result.out, "stdout");
  for (const Json& row : json["results"])
    EXPECT_EQ(row["dtype"], "f32");  // as the golden bundle is
  const auto shape = run_kvcast("bench --arch openelm-270m -p 1 -r 1 --decode 0 --format json");
  ASSERT_EQ(shape.exit_code, 0) << shape.error;
  EXPECT_EQ((*parse_json(shape.out, "stdout"))["results"][0]["dtype"], "bf16");
}

TEST(BenchCommand, TablesFitTheTerminal) {
  const auto result =
      run_kvcast(kSmall + "--dtype f32,int8 --prefill exact,kv-prediction:tail=3,lazy:0.75-0.25");
  ASSERT_EQ(result.exit_code, 0) << result.error;
  std::istringstream lines(result.out);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100U) << line;
  EXPECT_THAT(result.out, HasSubstr("2 x 9"));
}

TEST(BenchCommand, AnOptionBelongsToTheStrategyBeforeIt) {
  const auto result = run_kvcast("bench '" + kGolden +
                                 "' -p 9 -r 1 --decode 12 --threads 1 --dtype f32 --format json "
                                 "--prefill exact,kv-prediction:tail=3,refine=4,lazy:0.75-0.25");
  ASSERT_EQ(result.exit_code, 0) << result.error;
  const Json results = (*parse_json(result.out, "stdout"))["results"];
  ASSERT_EQ(results.size(), 3U);
  EXPECT_EQ(results[1]["prefill"], "kv-prediction:tail=3,refine=4");
  EXPECT_TRUE(results[0]["exact_after_tokens"].is_null());
  EXPECT_GT(results[1]["exact_after_tokens"].get<double>(), 0);
  EXPECT_LT(results[1]["exact_after_tokens"].get<double>(), 12);
}

class BenchCompare : public testing::Test {
 protected:
  Json earlier() {
    const auto result = run_kvcast(kSmall + "--dtype f32 --format json");
    EXPECT_EQ(result.exit_code, 0) << result.error;
    return *parse_json(result.out, "stdout");
  }
  ProgramResult compare(const std::string& text, const std::string& options) {
    root_.write("old.json", text);
    return run_kvcast(kSmall + "--dtype f32 --compare '" + (root_.path() / "old.json").string() +
                      "' " + options);
  }
  TemporaryDirectory root_;
};

TEST_F(BenchCompare, RatiosAreThoseOfMatchingRows) {
  Json old = earlier();
  old["results"][0]["ttft_ms"]["median"] = 1e6;
  old["results"][0]["decode_tokens_per_s"] = 1e-3;
  old["results"][1]["batch"] = 77;
  old["results"][2]["decode_tokens_per_s"] = 0;
  const auto result = compare(old.dump(), "--format json");
  ASSERT_EQ(result.exit_code, 0) << result.error;
  const Json now = *parse_json(result.out, "stdout");
  const auto& rows = now["results"];
  EXPECT_DOUBLE_EQ(rows[0]["ttft_old_over_new"], 1e6 / rows[0]["ttft_ms"]["median"].get<double>());
  EXPECT_DOUBLE_EQ(rows[0]["decode_new_over_old"],
                   rows[0]["decode_tokens_per_s"].get<double>() / 1e-3);
  EXPECT_FALSE(rows[1].contains("ttft_old_over_new"));
  EXPECT_TRUE(rows[2].contains("ttft_old_over_new"));
  EXPECT_FALSE(rows[2].contains("decode_new_over_old"));
  EXPECT_EQ(now["compared_with"]["commit"], old["commit"]);
}

TEST_F(BenchCompare, TablesGetTwoColumns) {
  const std::string old = earlier().dump();
  for (const char* format : {"--format md", "--format csv"}) {
    const auto result = compare(old, format);
    ASSERT_EQ(result.exit_code, 0) << result.error;
    EXPECT_THAT(result.out, HasSubstr("TTFT old / new"));
    EXPECT_THAT(result.out, HasSubstr("decode new / old"));
  }
  EXPECT_THAT(run_kvcast(kSmall + "--dtype f32").out, testing::Not(HasSubstr("old / new")));
}

TEST_F(BenchCompare, AFileThatIsNoResultIsRefusedBeforeMeasuring) {
  const auto expect_refused = [&](const std::string& text, const std::string& names) {
    const auto result = compare(text, "");
    EXPECT_EQ(result.exit_code, 1) << text;
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.error, HasSubstr("old.json"));
    EXPECT_THAT(result.error, HasSubstr(names)) << text;
    EXPECT_EQ(std::count(result.error.begin(), result.error.end(), '\n'), 1) << result.error;
  };
  expect_refused("", "JSON");
  expect_refused("[]", "object");
  expect_refused("{}", "machine");
  const Json head = {{"machine", "m"}, {"commit", "c"}};
  Json json = head;
  expect_refused(json.dump(), "results");
  json["results"] = Json::array({1});
  expect_refused(json.dump(), "results[0]");
  const Json row = {{"arch", "a"},
                    {"prefill", "exact"},
                    {"dtype", "f32"},
                    {"prompt_tokens", 4},
                    {"batch", 2},
                    {"threads", 1},
                    {"ttft_ms", {{"median", 1.0}}},
                    {"decode_tokens_per_s", 1.0}};
  for (const auto& [key, value] : row.items()) {
    for (const Json& wrong : {Json(), Json(-1), Json::array()}) {
      json["results"] = Json::array({row, row});
      json["results"][1][key] = wrong;
      expect_refused(json.dump(), "results[1]");
      expect_refused(json.dump(), key);
    }
  }
  json["results"] = Json::array({row});
  json["results"][0]["ttft_ms"]["median"] = 0;
  expect_refused(json.dump(), "median");
  const auto missing = run_kvcast(kSmall + "--compare /nowhere.json");
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.error, HasSubstr("/nowhere.json"));
}

}  // namespace
}  // namespace kvcast
