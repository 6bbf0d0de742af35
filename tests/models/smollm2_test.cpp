// The bundle shipped for SmolLM2-135M-Instruct, whose base `make models` fetches.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/json.h"
#include "models/hub.h"
#include "support/run_program.h"

namespace kvcast {
namespace {

using ::testing::HasSubstr;

TEST(ShippedSmolLm2, ForecastsChatsCloseToExact) {
  TemporaryDirectory files;
  std::string rows;
  const std::pair<const char*, const char*> chats[] = {
      {"Explain why the sky is blue in two sentences.",
       "The sky appears blue because molecules in the Earth's atmosphere scatter sunlight, and "
       "they "
       "scatter blue light more than other colors because it has a shorter wavelength."},
      {"Write a short greeting for a friend's birthday.",
       "Happy birthday! I hope your day is filled with joy, laughter, and all the things you "
       "love."},
      {"What is the capital of France, and what is it known for?",
       "The capital of France is Paris. It is known for the Eiffel Tower, the Louvre Museum, and "
       "its "
       "food and fashion."},
  };
  for (const auto& [prompt, answer] : chats) {
    rows += Json({{"prompt", prompt}, {"answer", answer}}).dump() + "\n";
  }
  files.write("chats.jsonl", rows);
  const auto result =
      run_kvcast("eval smollm2 --task chats --data '" + (files.path() / "chats.jsonl").string() +
                 "' --prefill exact,kv-prediction --timing-repetitions 0 --json");
  ASSERT_EQ(result.exit_code, 0) << result.error;
  const auto parsed = parse_json(result.out, "stdout");
  ASSERT_TRUE(parsed);
  const Json& forecast = (*parsed)["results"][1];
  EXPECT_EQ(forecast["prefill"], "kv-prediction");
  EXPECT_GT(forecast["kl"]["value"], 1e-4);  // something is forecast
  EXPECT_LT(forecast["kl"]["value"], 0.1);
  EXPECT_GT(forecast["top1"]["value"], 0.85);
  EXPECT_GT(forecast["flops_reduction"]["exact"], 1.0);
}

TEST(ShippedSmolLm2, AnswersByName) {
  const auto result =
      run_kvcast("run smollm2 -n 16 --prefill kv-prediction:tail=16 'The capital of France is'");
  ASSERT_EQ(result.exit_code, 0) << result.error;
  EXPECT_THAT(result.out, HasSubstr("Paris"));
}

}  // namespace
}  // namespace kvcast
