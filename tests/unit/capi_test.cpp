// kvcast.h: what callers in C may get wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

#include "kvcast.h"
#include "server/tiny_bundle.h"

namespace kvcast {
namespace {

using testing::HasSubstr;

/// The error's text, which is freed.
std::string taken(char*& error) {
  std::string text = error == nullptr ? "" : error;
  kvcast_free(error);
  error = nullptr;
  return text;
}

class CApi : public testing::Test {
 protected:
  void SetUp() override {
    model_ = kvcast_model_load(bundle_.path().c_str(), nullptr, &error_);
    ASSERT_NE(model_, nullptr) << error_;
  }
  void TearDown() override { kvcast_model_free(model_); }

  TinyBundle bundle_;
  char* error_ = nullptr;
  kvcast_model* model_ = nullptr;
  const int32_t prompt_[3] = {1, 5, 6};
};

TEST_F(CApi, AStructThatEndsWithinAFieldIsRefused) {
  kvcast_load_options load = {};
  load.struct_size = sizeof(size_t) + 3;
  EXPECT_EQ(kvcast_model_load(bundle_.path().c_str(), &load, &error_), nullptr);
  EXPECT_THAT(taken(error_), HasSubstr("struct_size 11: expected sizeof the struct"));

  // Four bytes of the pointer: what is read of it would point to anywhere.
  kvcast_generate_options options = {};
  options.struct_size = sizeof(size_t) + 4;
  options.prefill = "exact";
  kvcast_session* const session = kvcast_session_new(model_);
  EXPECT_EQ(kvcast_answer_tokens(session, prompt_, 3, &options, &error_), nullptr);
  EXPECT_THAT(taken(error_), HasSubstr("struct_size 12"));
  kvcast_session_free(session);

  kvcast_batch_options batch = {};
  batch.struct_size = sizeof(kvcast_batch_options) - 1;
  EXPECT_EQ(kvcast_batch_new(model_, &batch, &error_), nullptr);
  EXPECT_THAT(taken(error_), HasSubstr("struct_size 23"));
}

TEST_F(CApi, AStructWithoutItsSizeIsRefused) {
  kvcast_load_options load = {};
  load.threads = 1;
  EXPECT_EQ(kvcast_model_load(bundle_.path().c_str(), &load, &error_), nullptr);
  EXPECT_THAT(taken(error_), HasSubstr("struct_size 0: expected sizeof the struct"));

  kvcast_generate_options options = {};
  options.max_tokens = 1;
  kvcast_session* const session = kvcast_session_new(model_);
  EXPECT_EQ(kvcast_answer_tokens(session, prompt_, 3, &options, &error_), nullptr);
  EXPECT_THAT(taken(error_), HasSubstr("struct_size 0"));
  kvcast_session_free(session);
}

TEST_F(CApi, AnOlderReleasesStructIsTaken) {
  kvcast_generate_options options = {};
  options.struct_size = offsetof(kvcast_generate_options, temperature);
  options.max_tokens = 2;
  kvcast_session* const session = kvcast_session_new(model_);
  kvcast_answer* const answer = kvcast_answer_tokens(session, prompt_, 3, &options, &error_);
  ASSERT_NE(answer, nullptr) << error_;
  EXPECT_EQ(kvcast_answer_run(
                answer, [](void*, const char*, size_t) { return 0; }, nullptr, &error_),
            0);
  kvcast_answer_free(answer);
  kvcast_session_free(session);
}

TEST_F(CApi, TheLongestAnswerThatCanBeAskedForNeedsWhatTheContextDoes) {
  kvcast_batch_options small = {};
  small.struct_size = sizeof small;
  small.max_cache_bytes = 1 << 10;
  kvcast_batch* const batch = kvcast_batch_new(model_, &small, &error_);
  ASSERT_NE(batch, nullptr) << error_;
  const kvcast_tokens prompts[] = {{prompt_, 3}};
  kvcast_generate_options options = {};
  options.struct_size = sizeof options;
  options.max_tokens = std::numeric_limits<int64_t>::max();
  kvcast_answer* answers[1] = {};
  EXPECT_EQ(kvcast_batch_generate(batch, prompts, 1, &options, nullptr, nullptr, answers, &error_),
            -1);
  EXPECT_THAT(taken(error_), HasSubstr("KV caches of this request need"));
  kvcast_batch_free(batch);
}

}  // namespace
}  // namespace kvcast
