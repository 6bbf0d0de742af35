// Memory runs out at every n-th allocation of a load, an answer and a request: each ends in a line,
// nothing is lost, and what comes after is as if nothing had been. KVCAST_EVERY_ALLOCATION=1 tries
// all of them, else some; KVCAST_SHOW_ALLOCATIONS=1 prints where each was made.
#include <gtest/gtest.h>

#include <functional>
#include <optional>

#include "capi/handles.h"
#include "faults/failing_allocations.h"
#include "kvcast/session.h"
#include "runtime/model_impl.h"
#include "runtime/scheduler_rounds.h"
#include "runtime/step.h"
#include "server/tiny_bundle.h"

namespace kvcast {
namespace {

/// Calls `attempt` with each n until an attempt makes fewer allocations. Returns how many n.
int64_t for_each_allocation(const std::function<void(int64_t)>& attempt) {
  const bool every = std::getenv("KVCAST_EVERY_ALLOCATION") != nullptr;
  int64_t tried = 0;
  for (int64_t n = 1; !testing::Test::HasFailure(); n += every || n < 200 ? 1 : 1 + n / 40) {
    SCOPED_TRACE("allocation " + std::to_string(n));
    const FailingAllocation failing(n);
    attempt(n);
    if (!FailingAllocation::failed()) break;
    ++tried;
  }
  return tried;
}

class Allocations : public testing::Test {
 protected:
  static const std::filesystem::path& bundle() {
    static const TinyBundle bundle;
    // SentencePiece ends the program where memory runs out, and is not ours to change.
    static const bool removed = std::filesystem::remove(bundle.path() / "base/tokenizer.model");
    EXPECT_TRUE(removed);
    return bundle.path();
  }
  static std::shared_ptr<const Model> model() {
    static const std::shared_ptr<const Model> model = *Model::load(bundle(), options());
    return model;
  }
  static LoadOptions options() {
    LoadOptions options;
    options.dtype = Dtype::kF32;
    options.threads = 2;
    return options;
  }
  void fail_in_an_answer(const char* prefill, int64_t drafts);
  void TearDown() override { std::cout << tried_ << " allocations failed\n"; }
  int64_t tried_ = 0;
};

TEST_F(Allocations, OfALoad) {
  const std::filesystem::path& path = bundle();
  tried_ = for_each_allocation([&](int64_t) {
    const auto loaded = Model::load(path, options());
    const bool failed = FailingAllocation::failed();
    // What can do without (a cache, a hint to the system) may.
    if (!loaded) {
      EXPECT_TRUE(failed);
      EXPECT_NE(loaded.error().message.find("memory"), std::string::npos) << loaded.error().message;
    }
  });
  EXPECT_GT(tried_, 200);
}

TEST_F(Allocations, OfAnAnswer) { fail_in_an_answer("kv-prediction:tail=3,refine=4,mix=0.5", 0); }
TEST_F(Allocations, OfAnAnswerWhoseAuxiliaryGuesses) {
  fail_in_an_answer("kv-prediction:tail=3,mix=0.5", 4);
}

void Allocations::fail_in_an_answer(const char* prefill, int64_t drafts) {
  const GenerateOptions asked{.prefill = prefill, .max_tokens = 12, .drafts = drafts};
  const std::vector<int32_t> prompt = {1, 17, 30, 41, 57, 60, 71, 80, 99, 103, 111, 120};
  Session undisturbed(model());
  const auto expected = undisturbed.generate(prompt, asked);
  ASSERT_TRUE(expected);
  Session session(model());
  tried_ = for_each_allocation([&](int64_t n) {
    const auto answer = session.generate(prompt, asked);
    if (FailingAllocation::failed()) {
      const WorkingAllocations now;
      if (!answer) {
        EXPECT_NE(answer.error().message.find("memory"), std::string::npos);
        EXPECT_TRUE(session.tokens().empty());  // as before
      }
      session.reset();
      if (n % 16 == 0) {
        const auto again = session.generate(prompt, asked);
        ASSERT_TRUE(again) << again.error().message;
        EXPECT_EQ(again->tokens, expected->tokens);
      }
    } else {
      ASSERT_TRUE(answer);
      EXPECT_EQ(answer->tokens, expected->tokens);
    }
    const WorkingAllocations now;
    session = Session(model());
  });
  EXPECT_GT(tried_, 50);
}

TEST_F(Allocations, OfCallsInC) {
  const kvcast_model handle{model(), "f32", "f32"};
  const std::vector<int32_t> prompt = {1, 17, 30, 41, 57, 60, 71, 80};
  const kvcast_tokens prompts[] = {{prompt.data(), 8}, {prompt.data(), 5}};
  kvcast_generate_options asked = {};
  asked.struct_size = sizeof asked;
  asked.prefill = "exact";
  asked.max_tokens = 3;
  const auto expect_reason = [](bool succeeded, char* error) {
    if (succeeded) return;
    EXPECT_TRUE(FailingAllocation::failed());
    if (error != nullptr) {
      EXPECT_NE(std::string_view(error).find("memory"), std::string_view::npos) << error;
    }
    kvcast_free(error);
  };
  tried_ = for_each_allocation([&](int64_t) {
    kvcast_session* const session = kvcast_session_new(&handle);
    expect_reason(session != nullptr, nullptr);
    if (session == nullptr) return;
    char* error = nullptr;
    kvcast_answer* const answer =
        kvcast_answer_tokens(session, prompt.data(), prompt.size(), &asked, &error);
    expect_reason(answer != nullptr, error);
    if (answer != nullptr) {
      error = nullptr;
      expect_reason(kvcast_answer_run(answer, nullptr, nullptr, &error) == 0, error);
    }
    kvcast_answer_free(answer);
    kvcast_session_free(session);
    error = nullptr;
    kvcast_batch* const batch = kvcast_batch_new(&handle, nullptr, &error);
    expect_reason(batch != nullptr, error);
    if (batch == nullptr) return;
    error = nullptr;
    kvcast_answer* answers[2] = {};
    const bool answered =
        kvcast_batch_generate(batch, prompts, 2, &asked, nullptr, nullptr, answers, &error) == 0;
    expect_reason(answered, error);
    for (kvcast_answer* each : answers) EXPECT_EQ(each != nullptr, answered);
    for (kvcast_answer* each : answers) kvcast_answer_free(each);
    kvcast_batch_free(batch);
  });
  EXPECT_GT(tried_, 100);
}

struct Counts : RequestObserver {
  void on_token(const TokenEvent& event) override { last = event.token; }
  void on_choice_finished(int64_t, std::string_view, FinishReason) override {}
  void on_finished(const EngineTimings& /*timings*/) override { ++ends; }
  void on_error(const EngineError& error) override {
    ++ends;
    message = error.message;
  }
  int ends = 0;
  int32_t last = -1;
  std::string message;
};

TEST_F(Allocations, OfARequest) {
  auto rounds = SchedulerRounds::make(model(), {});
  ASSERT_TRUE(rounds);
  EngineRequest request;
  request.prompt = {1, 17, 30, 41, 57, 60, 71, 80, 99, 103, 111, 120};
  request.prefill = "kv-prediction:tail=3,refine=4,mix=0.5";
  request.choices = 2;
  request.max_tokens = 8;
  const auto answered = [&](const std::shared_ptr<Counts>& counts) {
    for (int i = 0; i < 1000 && counts->ends == 0; ++i) (*rounds)->round();
    return counts->ends;
  };
  const auto undisturbed = std::make_shared<Counts>();
  ASSERT_TRUE((*rounds)->submit(request, undisturbed));
  ASSERT_EQ(answered(undisturbed), 1);
  ASSERT_EQ(undisturbed->message, "");
  tried_ = for_each_allocation([&](int64_t) {
    const auto counts = [] {
      const WorkingAllocations now;
      return std::make_shared<Counts>();
    }();
    bool submitted = false;
    try {
      submitted = (*rounds)->submit(request, counts).has_value();
    } catch (const std::bad_alloc&) {  // for the caller to answer: nothing has begun
      EXPECT_TRUE(FailingAllocation::failed());
    }
    if (submitted) {
      EXPECT_EQ(answered(counts), 1);
      if (!FailingAllocation::failed()) {
        EXPECT_EQ(counts->message, "");
      }
    }
    const WorkingAllocations again;
    (*rounds)->pool().shrink_to(0);
  });
  EXPECT_GT(tried_, 50);
  (*rounds)->round();
  EXPECT_TRUE((*rounds)->idle());
  EXPECT_EQ((*rounds)->stats().cache_bytes, 0);
  const auto again = std::make_shared<Counts>();
  ASSERT_TRUE((*rounds)->submit(request, again));
  ASSERT_EQ(answered(again), 1);
  EXPECT_EQ(again->message, "");
}

TEST_F(Allocations, OfRefiningAStoredPrefix) {
  const Models& models = model()->impl().models;
  const std::vector<int32_t> prompt = {1, 17, 30, 41, 57, 60, 71, 80, 99, 103, 111, 120};
  const auto strategy = *PrefillStrategy::parse("kv-prediction:refine=auto");
  const auto rows = static_cast<int64_t>(prompt.size()) - 1;
  int64_t dropped = 0;
  tried_ = for_each_allocation([&](int64_t) {
    std::optional<StepEngine> engine;
    {
      const WorkingAllocations now;
      engine.emplace(*model(), SchedulerOptions{});
      Sequence sequence(models);
      sequence.tokens = prompt;
      Sequence* const one[] = {&sequence};
      std::vector<float> logits(static_cast<size_t>(models.base->config().vocab_size));
      PrefillWorkspace workspace;
      strategy->prefill(models, one, logits.data(), workspace, {});
      engine->pool().put(CacheFamily::kHealing, rows, std::move(sequence));
    }
    const int64_t stored = engine->pool().bytes();
    EXPECT_GT(stored, 0);
    try {
      EXPECT_TRUE(engine->refine_stored({}));
    } catch (const std::bad_alloc&) {  // for the round to answer
      EXPECT_TRUE(FailingAllocation::failed());
      return;
    }
    const WorkingAllocations again;
    Sequence reader(models);
    reader.tokens = prompt;
    if (engine->pool().take(CacheFamily::kExact, rows, reader) == rows) return;
    // What could not be refined is gone: else whoever is idle would try it for ever.
    EXPECT_TRUE(FailingAllocation::failed());
    EXPECT_EQ(engine->pool().bytes(), 0);
    EXPECT_FALSE(engine->refine_stored({}));
    ++dropped;
  });
  EXPECT_GT(dropped, 3);
}

}  // namespace
}  // namespace kvcast
