// Requests that a good model cannot serve, and weights that are not numbers.
#include <limits>

#include "malformed/malformed.h"
#include "support/sparser.h"

namespace kvcast {
namespace {

using Tokens = std::vector<int32_t>;

class Generate : public MalformedTest {
 protected:
  std::shared_ptr<const Model> load() {
    auto model = Model::load(root_.path(), {.threads = 1});
    EXPECT_TRUE(model) << model.error().message;
    return model ? *model : nullptr;
  }
  std::shared_ptr<const Model> plain() {
    model_.write(root_);
    return load();
  }
  std::shared_ptr<const Model> bundle() {
    bundle_.write(root_);
    return load();
  }
  /// That the request fails with one line that holds all parts, and changes nothing.
  static void expect_error(Session& session, const Tokens& prompt, const GenerateOptions& options,
                           std::initializer_list<std::string_view> parts) {
    const Tokens before = session.tokens();
    const auto answer = session.generate(prompt, options);
    ASSERT_FALSE(answer) << "expected an error with " << *parts.begin();
    expect_one_line(answer.error().message);
    for (const std::string_view part : parts) {
      EXPECT_THAT(answer.error().message, testing::HasSubstr(std::string(part)));
    }
    EXPECT_EQ(session.tokens(), before);
  }
  static void expect_error(const std::shared_ptr<const Model>& model, const Tokens& prompt,
                           const GenerateOptions& options,
                           std::initializer_list<std::string_view> parts) {
    Session session(model);
    expect_error(session, prompt, options, parts);
  }
};

const Tokens kPrompt = {1, 5, 17};

TEST_F(Generate, TokenIdsOutsideTheVocabularyAreRefused) {
  const auto model = bundle();
  for (const int32_t id : {-1, 400, INT32_MAX, INT32_MIN}) {
    for (const char* prefill : {"exact", "auxiliary", "kv-prediction", "kv-prediction:tail=2"}) {
      expect_error(model, {1, id, 2}, {.prefill = prefill},
                   {"token id " + std::to_string(id), "400"});
    }
  }
}

TEST_F(Generate, AnEmptyPromptIsRefused) {
  const auto model = bundle();
  for (const char* prefill : {"exact", "auxiliary", "kv-prediction"}) {
    expect_error(model, {}, {.prefill = prefill}, {"prompt is empty"});
  }
}

TEST_F(Generate, APromptBeyondTheContextIsRefused) {
  const auto model = bundle();
  for (const char* prefill : {"exact", "auxiliary", "kv-prediction", "kv-prediction:tail=16"}) {
    for (const size_t length : {33, 1000}) {
      expect_error(model, Tokens(length, 7), {.prefill = prefill},
                   {"too long", std::to_string(length), "32"});
    }
  }
}

TEST_F(Generate, APromptOfExactlyTheContextGivesOneToken) {
  const auto model = bundle();
  for (const char* prefill : {"exact", "auxiliary", "kv-prediction", "kv-prediction:tail=16"}) {
    Session session(model);
    const auto answer = session.generate(
        Tokens(32, 7), {.prefill = prefill, .max_tokens = 5, .ignore_end_of_text = true});
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(answer->tokens.size(), 1U) << prefill;
    EXPECT_EQ(answer->finish_reason, FinishReason::kContextFull) << prefill;
    expect_error(session, {7}, {.prefill = prefill}, {"too long"});  // the next turn has no room
  }
}

TEST_F(Generate, AnAnswerEndsWhereTheContextDoes) {
  const auto model = bundle();
  for (const char* prefill : {"exact", "auxiliary", "kv-prediction"}) {
    Session session(model);
    const auto answer = session.generate(
        kPrompt, {.prefill = prefill, .max_tokens = INT64_MAX, .ignore_end_of_text = true});
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(answer->tokens.size(), 29U) << prefill;  // 3 + 29: usage is never above the context
    EXPECT_EQ(answer->finish_reason, FinishReason::kContextFull) << prefill;
  }
}

TEST_F(Generate, AnAuxiliaryWithAShorterContextLimitsItsStrategies) {
  bundle_.auxiliary.config["max_context_length"] = 8;
  const auto model = bundle();
  for (const char* prefill : {"auxiliary", "kv-prediction"}) {
    expect_error(model, Tokens(9, 7), {.prefill = prefill}, {"too long", "9", "8"});
  }
  Session session(model);
  const auto answer = session.generate(
      Tokens(8, 7), {.prefill = "auxiliary", .max_tokens = 5, .ignore_end_of_text = true});
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->finish_reason, FinishReason::kContextFull);
  EXPECT_TRUE(Session(model).generate(Tokens(9, 7), {.prefill = "exact"}));
}

TEST_F(Generate, UnknownStrategiesAreRefusedWithTheKnownOnes) {
  const auto model = bundle();
  for (const char* prefill : {"guess", "Exact", "exact ", " exact", "exact:tail=1", "kv_prediction",
                              "kv-prediction:", "kv-prediction:tail", "a\nb"}) {
    expect_error(model, kPrompt, {.prefill = prefill},
                 {"unknown prefill strategy", "expected exact, auxiliary"});
  }
  expect_error(model, kPrompt, {.prefill = std::string(100'000, 'x')}, {"unknown", "expected"});
}

TEST_F(Generate, ATailThatIsNoCountIsRefused) {
  const auto model = bundle();
  for (const char* tail : {"", "0", "-1", "x", "1x", " 1", "+1", "1.5", "9223372036854775808"}) {
    expect_error(model, kPrompt, {.prefill = std::string("kv-prediction:tail=") + tail},
                 {"tail must be a whole number of at least 1"});
  }
}

TEST_F(Generate, ATailAsLongAsThePromptOrLongerIsTheExactAnswer) {
  const auto model = bundle();
  const GenerateOptions exact{.prefill = "exact", .max_tokens = 6, .ignore_end_of_text = true};
  const auto expected = Session(model).generate(kPrompt, exact);
  ASSERT_TRUE(expected);
  for (const char* tail : {"3", "4", "1000000", "9223372036854775807"}) {
    GenerateOptions options = exact;
    options.prefill = std::string("kv-prediction:tail=") + tail;
    Session session(model);
    const auto answer = session.generate(kPrompt, options);
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(answer->tokens, expected->tokens);
    EXPECT_EQ(answer->timings.predicted_tokens, 0);
    EXPECT_TRUE(session.generate(kPrompt, options));  // the next turn too
  }
}

TEST_F(Generate, StrategiesThatNeedABundleAreRefusedOnAPlainModel) {
  const auto model = plain();
  for (const char* prefill : {"kv-prediction", "kv-prediction:tail=4", "auxiliary"}) {
    expect_error(model, kPrompt, {.prefill = prefill}, {prefill, "needs a KV-prediction bundle"});
  }
}

TEST_F(Generate, AnAnswerWithoutRoomForATokenIsRefused) {
  const auto model = plain();
  for (const int64_t max_tokens : {int64_t{0}, int64_t{-1}, INT64_MIN}) {
    expect_error(model, kPrompt, {.max_tokens = max_tokens},
                 {"max_tokens", std::to_string(max_tokens), "at least 1"});
  }
}

TEST_F(Generate, SamplingOptionsOutOfRangeAreNamed) {
  const auto model = plain();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const auto refuse = [&](const char* name, const SamplingOptions& sampling) {
    expect_error(model, kPrompt, {.sampling = sampling}, {name, "expected"});
  };
  for (const float bad : {-0.1F, kNan, kInfinity, -kInfinity}) {
    refuse("temperature", {.temperature = bad});
    refuse("repetition_penalty", {.repetition_penalty = bad});
    refuse("top_p", {.top_p = bad});
    refuse("min_p", {.min_p = bad});
  }
  refuse("top_k", {.top_k = -1});
  refuse("top_p", {.top_p = 0.0F});
  refuse("top_p", {.top_p = 1.5F});
  refuse("min_p", {.min_p = 1.5F});
  refuse("repetition_penalty", {.repetition_penalty = 0.0F});
}

TEST_F(Generate, ExtremeButAllowedSamplingGivesTokens) {
  const auto model = plain();
  for (const float temperature : {1e-38F, 1e-45F, std::numeric_limits<float>::max()}) {
    for (const float penalty : {1e-38F, std::numeric_limits<float>::max()}) {
      const auto answer =
          Session(model).generate(kPrompt, {.max_tokens = 4,
                                            .sampling = {.temperature = temperature,
                                                         .top_k = INT64_MAX,
                                                         .top_p = 1e-38F,
                                                         .min_p = 1.0F,
                                                         .repetition_penalty = penalty},
                                            .ignore_end_of_text = true});
      ASSERT_TRUE(answer) << answer.error().message;
      EXPECT_EQ(answer->tokens.size(), 4U);
    }
  }
}

TEST_F(Generate, ThreadCountsOutOfRangeAreRefused) {
  model_.write(root_);
  for (const int threads : {-1, 1025, INT32_MAX, INT32_MIN}) {
    expect_load_error(root_.path(), {"threads", std::to_string(threads), "1024"},
                      {.threads = threads});
  }
}

TEST_F(Generate, WeightsThatAreNoNumbersGiveAnErrorAndLeaveTheConversationAsItWas) {
  fill(model_.tensors["transformer.norm.weight"], std::numeric_limits<float>::quiet_NaN());
  const auto model = plain();
  Session session(model);
  for (const float temperature : {0.0F, 1.0F}) {
    for (int turn = 0; turn < 2; ++turn) {
      expect_error(session, kPrompt, {.sampling = {.temperature = temperature}},
                   {"none of the 400 logits is a number"});
    }
  }
}

TEST_F(Generate, NanAndInfinityInAnyTensorGiveTokensOrAnError) {
  const BundleFiles whole = bundle_;
  const auto try_all = [&] {
    for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16, Dtype::kInt8}) {
      const auto model = Model::load(root_.path(), {.dtype = dtype, .threads = 1});
      ASSERT_TRUE(model) << model.error().message;
      for (const char* prefill : {"exact", "auxiliary", "kv-prediction:tail=2"}) {
        const auto answer =
            Session(*model).generate(kPrompt, {.prefill = prefill,
                                               .max_tokens = 3,
                                               .sampling = {.temperature = 1.0F, .top_p = 0.9F}});
        if (!answer) expect_one_line(answer.error().message);
        if (answer) {
          for (const int32_t token : answer->tokens) EXPECT_TRUE(token >= 0 && token < 400);
        }
      }
    }
  };
  int place = 0;
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity(), 3e38F, 1e-45F}) {
    for (const auto& [name, unused] : whole.base.tensors) {
      if (++place % kSparser != 0) continue;
      bundle_ = whole;
      fill(bundle_.base.tensors[name], bad);
      bundle_.write(root_);
      try_all();
    }
    for (const auto& [name, unused] : whole.predictor) {
      if (++place % kSparser != 0) continue;
      bundle_ = whole;
      fill(bundle_.predictor[name], bad);
      bundle_.write(root_);
      try_all();
    }
  }
}

}  // namespace
}  // namespace kvcast
