#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <vector>

#include "runtime/engine_request.h"

namespace kvcast {

/// What one request was told, and whether in a permitted order.
struct Recorder : RequestObserver {
  explicit Recorder(int64_t choices) : tokens(static_cast<size_t>(choices)) {}

  void on_progress(int64_t done, int64_t cached) override {
    EXPECT_FALSE(over);
    EXPECT_LE(cached, done);
  }
  void on_prompt_scores(int64_t first, std::vector<TokenScore>&& of_tokens) override {
    EXPECT_FALSE(over);
    if (scores.empty()) first_scored = first;
    EXPECT_EQ(first, first_scored + std::ssize(scores));
    for (const TokenScore& score : of_tokens) scores.push_back(score.logprob);
  }
  void on_token(const TokenEvent& event) override {
    EXPECT_FALSE(over);
    auto& of_choice = tokens.at(static_cast<size_t>(event.choice));
    EXPECT_FALSE(ended.contains(event.choice));
    if (event.kept) {
      ASSERT_LE(event.kept->tokens, std::ssize(of_choice));
      of_choice.resize(static_cast<size_t>(event.kept->tokens));
    }
    of_choice.push_back(event.token);
  }
  void on_choice_finished(int64_t choice, std::string_view /*text*/, FinishReason why) override {
    EXPECT_FALSE(over);
    EXPECT_TRUE(ended.emplace(choice, why).second) << "choice " << choice << " ended twice";
  }
  void on_finished(const EngineTimings& reported) override {
    EXPECT_FALSE(over);
    EXPECT_EQ(ended.size(), std::max<size_t>(ended.size() == 1 ? 1 : tokens.size(), 1));
    timings = reported;
    over = true;
  }
  void on_error(const EngineError& reported) override {
    EXPECT_FALSE(over);
    error = reported;
    over = true;
  }

  std::vector<std::vector<int32_t>> tokens;  // of each choice
  std::map<int64_t, FinishReason> ended;
  std::vector<float> scores;
  int64_t first_scored = 0;
  EngineTimings timings;
  std::optional<EngineError> error;
  bool over = false;
};

}  // namespace kvcast
