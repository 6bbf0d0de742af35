// `kvcast flops` and `kvcast info` as somebody at a terminal sees them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "io/json.h"
#include "support/run_program.h"

namespace kvcast {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const std::string kTinyBundle = std::string(KVCAST_GOLDEN_DIR) + "/openelm-tiny-kvp-c";

Json parse_output(const ProgramResult& result) {
  EXPECT_EQ(result.exit_code, 0) << result.error;
  const auto json = parse_json(result.out, "stdout");
  EXPECT_TRUE(json) << result.out;
  return json.value_or(Json::object());
}

void expect_one_line_error(const ProgramResult& result, int exit_code, const std::string& names) {
  EXPECT_EQ(result.exit_code, exit_code) << names;
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.error, HasSubstr(names));
  EXPECT_EQ(std::count(result.error.begin(), result.error.end(), '\n'), 1) << result.error;
}

TEST(FlopsCommand, WithoutArgumentsReproducesThePapersReductions) {
  const Json results = parse_output(run_kvcast("flops --format json"))["results"];
  const std::vector<double> printed = {2.36, 3.98,  1.34, 1.93, 3.60, 2.81,
                                       6.64, 11.18, 1.34, 1.97, 3.84};
  ASSERT_EQ(results.size(), printed.size());
  for (size_t i = 0; i < printed.size(); ++i) {
    EXPECT_NEAR(results[i]["paper_approximation"]["reduction"], printed[i], 0.005) << results[i];
    EXPECT_EQ(results[i]["prompt_tokens"], 512);
  }
}

TEST(FlopsCommand, TakesAPairAndPromptLengths) {
  const Json results = parse_output(
      run_kvcast("flops --arch openelm-1.1b --aux openelm-270m -p 128,512 --tail 16 --format json"))
      ["results"];
  ASSERT_EQ(results.size(), 2U);
  EXPECT_EQ(results[0]["prompt_tokens"], 128);
  EXPECT_EQ(results[1]["tail"], 16);
  const Json count = results[1]["exact_count"]["kv_prediction_flops"];
  EXPECT_DOUBLE_EQ(count["total"],
                   count["auxiliary"].get<double>() + count["predictor"].get<double>() +
                       count["base"].get<double>() + count["lm_head"].get<double>());
  EXPECT_GT(results[1]["exact_count"]["reduction"], 3.0);
}

TEST(FlopsCommand, PrintsTablesForABundle) {
  const auto markdown = run_kvcast("flops '" + kTinyBundle + "' -p 16");
  EXPECT_EQ(markdown.exit_code, 0);
  EXPECT_THAT(markdown.out, AllOf(HasSubstr("| base"), HasSubstr("paper reduction"),
                                  HasSubstr(" 2.97 |"), HasSubstr("/auxiliary")));
  const auto csv = run_kvcast("flops '" + kTinyBundle + "' -p 16,32 --format csv");
  EXPECT_EQ(std::count(csv.out.begin(), csv.out.end(), '\n'), 3);
  EXPECT_THAT(csv.out, HasSubstr("base,auxiliary,tokens,"));
}

TEST(FlopsCommand, WrongUseIsOneLineAndExitTwo) {
  expect_one_line_error(run_kvcast("flops --arch openelm-3b"), 2, "--aux");
  expect_one_line_error(run_kvcast("flops -p 0"), 2, "--prompt-tokens");
  expect_one_line_error(run_kvcast("flops --format xml"), 2, "--format");
  expect_one_line_error(run_kvcast("flops somewhere --arch a --aux b"), 2, "--arch");
}

TEST(FlopsCommand, APlainModelIsCountedAlone) {
  const std::string model = std::string(KVCAST_GOLDEN_DIR) + "/families/qwen2";
  const Json results =
      parse_output(run_kvcast("flops '" + model + "' -p 16 --format json"))["results"];
  ASSERT_EQ(results.size(), 1U);
  EXPECT_GT(results[0]["exact_count"]["exact_flops"]["total"], 0);
  EXPECT_FALSE(results[0].contains("auxiliary"));
  EXPECT_THAT(run_kvcast("flops '" + model + "' -p 16").out, HasSubstr("/qwen2"));
}

TEST(FlopsCommand, UnknownShapesAreOneLineAndExitOne) {
  expect_one_line_error(run_kvcast("flops --arch openelm-9b --aux openelm-3b"), 1, "openelm-9b");
  expect_one_line_error(run_kvcast("flops /nowhere"), 1, "/nowhere: no such file or directory");
}

TEST(InfoCommand, DescribesABundle) {
  const auto text = run_kvcast("info '" + kTinyBundle + "'");
  EXPECT_EQ(text.exit_code, 0) << text.error;
  EXPECT_THAT(text.out,
              AllOf(HasSubstr("family openelm, 200,544 parameters, 5 layers"),
                    HasSubstr("67,584 parameters, 3 layers"), HasSubstr("layer map: 0 0 1 1 2"),
                    HasSubstr("4,128 parameters"), HasSubstr("F32 42 tensors, 802,176 bytes")));
}

TEST(InfoCommand, JsonHasTheSameFacts) {
  const Json info = parse_output(run_kvcast("info --json '" + kTinyBundle + "'"));
  EXPECT_EQ(info["kind"], "bundle");
  EXPECT_EQ(info["base"]["parameters"], 200544);
  EXPECT_EQ(info["base"]["stored"]["F32"]["elements"], 200544);
  EXPECT_EQ(info["base"]["layers"][0]["kv_heads"], 1);
  int64_t heads = 0;
  for (const Json& layer : info["base"]["layers"]) heads += layer["kv_heads"].get<int64_t>();
  const int64_t head_dim = info["base"]["head_dim"].get<int64_t>();
  EXPECT_EQ(info["base"]["kv_token_bytes"]["bf16"], 2 * heads * 2 * head_dim);
  EXPECT_EQ(info["base"]["kv_token_bytes"]["int8"], 2 * heads * (head_dim + 4));
  EXPECT_EQ(info["auxiliary"]["layers"].size(), 3U);
  EXPECT_EQ(info["layer_map"], Json::array({0, 0, 1, 1, 2}));
  // What the predictor file stores is what the layer map and the widths ask for.
  EXPECT_EQ(info["predictor"]["parameters"], info["predictor"]["stored"]["F32"]["elements"]);
  EXPECT_TRUE(info["tokenizer"].is_null());

  const Json plain = parse_output(run_kvcast("info --json '" + kTinyBundle + "/auxiliary'"));
  EXPECT_EQ(plain["kind"], "model");
  EXPECT_EQ(plain["model"]["context_tokens"], 64);
}

TEST(InfoCommand, ShowsTheTokenizer) {
  const TemporaryDirectory directory;
  std::filesystem::copy(kTinyBundle + "/base", directory.path(),
                        std::filesystem::copy_options::recursive);
  std::filesystem::copy(std::string(KVCAST_SOURCE_DIR) + "/tests/data/tokenizer.model",
                        directory.path() / "tokenizer.model");
  const Json info = parse_output(run_kvcast("info --json '" + directory.path().string() + "'"));
  EXPECT_EQ(info["tokenizer"]["vocab_size"], 400);
  EXPECT_EQ(info["tokenizer"]["eos_token"], 2);
}

TEST(InfoCommand, DirectoriesThatHoldNoModelAreOneLineAndExitOne) {
  expect_one_line_error(run_kvcast("info /nowhere"), 1, "/nowhere: no such file or directory");
  const TemporaryDirectory directory;
  directory.write("kvcast.json", "{\"format\": 3}");
  expect_one_line_error(run_kvcast("info '" + directory.path().string() + "'"), 1, "\"format\"");
}

}  // namespace
}  // namespace kvcast
