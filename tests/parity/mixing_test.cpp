// While a cache holds a forecast the next token is chosen from both models' logits, and these are
// the ones that each of them gives alone.
#include "prefill/mixing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

#include "prefill/refine.h"
#include "prefill/strategy.h"
#include "runtime/answer_step.h"
#include "support/small_openelm.h"
#include "support/weight_types.h"

namespace kvcast {
namespace {
using Tokens = std::vector<int32_t>;
using Logits = std::vector<float>;

constexpr float kShare = 0.25F;

/// The predictor reads the first two of the auxiliary's three layers: the third is the mix's alone.
Models pair(WeightType type, int64_t auxiliary_context = 1600) {
  const ModelConfig base = small_openelm(6, 96);
  const ModelConfig auxiliary = small_openelm(3, 64, auxiliary_context);
  Models models = random_models(base, &auxiliary, std::vector<int64_t>{0, 0, 0, 1, 1, 1}, type, 2);
  models.kv_type = type == WeightType::kF32 ? KvType::kF32 : KvType::kBf16;
  return models;
}

/// A conversation, and what each token of its last answer was chosen from.
class Talk {
 public:
  explicit Talk(const Models& models) : models_(models), sequence_(models) {}

  /// `max_rows`: as the scheduler does it.
  void read(const std::string& spec, const Tokens& more, int64_t max_rows = PrefillStep::kAllRows) {
    strategy_ = *PrefillStrategy::parse(spec);
    sequence_.tokens.insert(sequence_.tokens.end(), more.begin(), more.end());
    next_.resize(kSmallVocab);
    Sequence* const one[] = {&sequence_};
    if (max_rows == PrefillStep::kAllRows) {
      strategy_->prefill(models_, one, next_.data(), workspace_, {});
      return;
    }
    PrefillReport report;
    PrefillState state = PrefillState::kMore;
    while (state == PrefillState::kMore) {
      state =
          strategy_->advance(models_, sequence_, max_rows, next_.data(), workspace_, {}, report);
    }
    if (state == PrefillState::kLastRun) next_logits(models_, one, next_.data(), workspace_);
  }

  /// So many greedy tokens, or these.
  void answer(size_t tokens, const Tokens& forced = {}, bool revise = false) {
    logits.clear();
    exact.clear();
    AnswerWriter writer({.max_tokens = static_cast<int64_t>(tokens),
                         .sampling = {},
                         .stop = {},
                         .ignore_end_of_text = true},
                        nullptr);
    AnswerRefiner refiner(sequence_, {.rows = strategy_->refine_rows(), .revise = revise});
    const bool refines = strategy_->refine_rows() != 0;
    const Answering answering[] = {{&sequence_, &writer, refines ? &refiner : nullptr}};
    const auto take = [&](size_t, std::span<const float> row) {
      logits.emplace_back(row.begin(), row.end());
      exact.push_back(inexact_rows(sequence_) == 0);
      if (forced.empty()) {
        ASSERT_TRUE(writer.take(row, sequence_, models_.base->config()));
      } else {
        sequence_.tokens.push_back(forced[logits.size() - 1]);
      }
      if (refines) refiner.chosen(row, writer);
    };
    take(0, next_);
    AlignedBuffer<float> rows;
    while (forced.empty() ? !answering[0].over() : logits.size() < tokens) {
      ASSERT_TRUE(step_answers(models_, answering, 64, rows, workspace_,
                               {.on_logits = take, .on_revised = [](size_t, const auto&) {}}));
    }
  }

  [[nodiscard]] Sequence& sequence() { return sequence_; }
  [[nodiscard]] Tokens last(size_t count) const {
    return {sequence_.tokens.end() - static_cast<std::ptrdiff_t>(count), sequence_.tokens.end()};
  }

  std::vector<Logits> logits;  // [tokens]
  std::vector<bool> exact;     // [tokens] the base's cache, when the token was chosen

 private:
  const Models& models_;
  Sequence sequence_;
  Logits next_;
  PrefillWorkspace workspace_;
  std::unique_ptr<PrefillStrategy> strategy_;
};

Logits by_hand(const Logits& base, const Logits& auxiliary) {
  Logits mixed;
  for (size_t i = 0; i < base.size(); ++i) {
    mixed.push_back((1.0F - kShare) * base[i] + kShare * auxiliary[i]);
  }
  return mixed;
}

/// What `mixed` chose its answer from is what `base`, a conversation without a mix that gets the
/// same tokens, and the auxiliary say.
void expect_mixed(const Models& models, Talk& mixed, Talk& base, const std::string& what) {
  const size_t count = mixed.logits.size();
  const Tokens tokens = mixed.last(count);
  base.answer(count, tokens);
  ASSERT_EQ(base.sequence().tokens, mixed.sequence().tokens) << what;
  const Tokens& all = mixed.sequence().tokens;
  Talk reader(models);
  reader.read("auxiliary", {all.begin(), all.end() - static_cast<std::ptrdiff_t>(count)});
  reader.answer(count, tokens);
  for (size_t t = 0; t < count; ++t) {
    EXPECT_EQ(mixed.exact[t], base.exact[t]) << what << ", token " << t;
    const Logits expected =
        base.exact[t] ? base.logits[t] : by_hand(base.logits[t], reader.logits[t]);
    ASSERT_TRUE(mixed.logits[t] == expected) << what << ", token " << t;
  }
}

class Mixing : public testing::TestWithParam<WeightType> {};

TEST_P(Mixing, LogitsAreBothModelsOwnTokenByToken) {
  const Models models = pair(GetParam());
  for (const std::string spec : {"kv-prediction:tail=1", "kv-prediction:tail=16",
                                 "kv-prediction:tail=40", "kv-prediction:tail=4,gate=-1000"}) {
    for (const size_t length : {300, 90, 41, 2, 1}) {
      for (const int64_t max_rows : {PrefillStep::kAllRows, int64_t{310}, int64_t{7}}) {
        Talk mixed(models), base(models);
        mixed.read(spec + ",mix=0.25", some_tokens(length), max_rows);
        mixed.answer(6);
        base.read(spec, some_tokens(length), max_rows);
        expect_mixed(models, mixed, base,
                     spec + ", " + std::to_string(length) + " by " + std::to_string(max_rows));
      }
    }
  }
}

TEST_P(Mixing, TheNextTurnGoesOnWhateverTheLastOneWas) {
  const Models models = pair(GetParam());
  for (const std::string first :
       {"exact", "auxiliary", "kv-prediction:tail=5", "kv-prediction:tail=5,mix=0.25",
        "kv-prediction:tail=5,mix=0.75", "kv-prediction:tail=5,refine=7,mix=0.25"}) {
    for (const std::string second :
         {"kv-prediction", "kv-prediction:tail=8", "kv-prediction:tail=8,refine=3"}) {
      for (const size_t length : {30, 3}) {  // 3: nothing to forecast
        for (const int64_t max_rows : {PrefillStep::kAllRows, int64_t{7}}) {
          Talk mixed(models), base(models);
          mixed.read(first, some_tokens(60));
          mixed.answer(5);
          const Tokens answered = mixed.last(5);
          base.read(first.substr(0, first.find(",mix")), some_tokens(60));
          base.answer(5, answered);
          const std::string mix = second.find(':') == std::string::npos ? ":mix=" : ",mix=";
          mixed.read(second + mix + "0.25", some_tokens(length, 3), max_rows);
          mixed.answer(6);
          base.read(second, some_tokens(length, 3), max_rows);
          expect_mixed(models, mixed, base,
                       first + " then " + second + ", " + std::to_string(length) + " by " +
                           std::to_string(max_rows));
        }
      }
    }
  }
}

TEST_P(Mixing, OnceTheCacheIsExactTheBaseAnswersAloneAndTheAuxiliaryReadsNoFurther) {
  const Models models = pair(GetParam());
  for (const char* rows : {"refine=7", "refine=20", "refine=64"}) {
    const std::string spec = std::string("kv-prediction:tail=8,") + rows;
    Talk mixed(models), base(models);
    mixed.read(spec + ",mix=0.25", some_tokens(60));
    mixed.answer(16);
    base.read(spec, some_tokens(60));
    expect_mixed(models, mixed, base, spec);
    const auto until = std::ranges::find(mixed.exact, true) - mixed.exact.begin();
    EXPECT_GT(until, 0) << spec;
    EXPECT_LT(until, 16) << spec;
    EXPECT_EQ(mixed.sequence().auxiliary.next_position(), 60 + until) << spec;
    // From there on it is what exact reading of these tokens gives.
    const Tokens& all = mixed.sequence().tokens;
    const auto left = static_cast<size_t>(16 - until);
    Talk exact(models);
    exact.read("exact", {all.begin(), all.end() - static_cast<std::ptrdiff_t>(left)});
    exact.answer(left, mixed.last(left));
    for (size_t t = 0; t < left; ++t) {
      EXPECT_TRUE(mixed.logits[static_cast<size_t>(until) + t] == exact.logits[t]) << spec << t;
    }
  }
}

TEST_P(Mixing, AfterTokensWereTakenBackTheNextTurnKnowsTheRightOnes) {
  const Models models = pair(GetParam());
  int64_t taken_back = 0;
  for (int32_t salt = 0; salt < 6; ++salt) {
    Talk mixed(models), base(models);
    const auto prompt = some_tokens(60, salt);
    mixed.read("kv-prediction:tail=8,refine=3,mix=0.25", prompt);
    mixed.answer(24, {}, true);
    base.read("exact", prompt);
    base.answer(24);
    ASSERT_EQ(mixed.sequence().tokens, base.sequence().tokens);
    taken_back += mixed.logits.size() > 24 ? 1 : 0;
    mixed.read("kv-prediction:tail=4,mix=0.25", some_tokens(30, 9));
    mixed.answer(5);
    base.read("kv-prediction:tail=4", some_tokens(30, 9));
    expect_mixed(models, mixed, base, "after a revised answer " + std::to_string(salt));
  }
  EXPECT_GT(taken_back, 0);  // else nothing was tried
}

TEST_P(Mixing, ABatchIsWhatEachIsAlone) {
  const Models models = pair(GetParam());
  const std::vector<Tokens> prompts = {some_tokens(300), some_tokens(1, 1), some_tokens(40, 2)};
  for (const std::string spec :
       {"kv-prediction:mix=0.25", "kv-prediction:tail=9,mix=0.25",
        "kv-prediction:tail=9,refine=5,mix=0.25", "kv-prediction:tail=9,gate=1000,mix=0.25"}) {
    const auto strategy = *PrefillStrategy::parse(spec);
    std::deque<Sequence> sequences;
    std::deque<AnswerWriter> writers;
    std::deque<AnswerRefiner> refiners;
    std::deque<Drafter> drafters;
    std::vector<Sequence*> batch;
    std::vector<Answering> answering;
    for (const Tokens& prompt : prompts) {
      batch.push_back(&sequences.emplace_back(models));
      batch.back()->tokens = prompt;
    }
    Logits logits(prompts.size() * kSmallVocab);
    PrefillWorkspace workspace;
    strategy->prefill(models, batch, logits.data(), workspace, {});
    for (Sequence* sequence : batch) {
      writers.push_back(
          {{.max_tokens = 12, .sampling = {}, .stop = {}, .ignore_end_of_text = true}, nullptr});
      drafters.emplace_back(4);
      answering.push_back({sequence, &writers.back(), nullptr, &drafters.back()});
      if (strategy->refine_rows() == 0) continue;
      refiners.emplace_back(*sequence, RefineOptions{.rows = strategy->refine_rows()});
      answering.back().refiner = &refiners.back();
    }
    ASSERT_TRUE(write_answers(models, answering, logits, workspace, [](size_t, const auto&) {}));
    for (size_t i = 0; i < prompts.size(); ++i) {
      Talk alone(models);
      alone.read(spec, prompts[i]);
      alone.answer(12);
      EXPECT_EQ(writers[i].tokens(), alone.last(12)) << spec << ", prompt " << i;
    }
    // While a cache heals, its answer takes the same steps without a drafter.
    EXPECT_EQ(drafters[0].drafted() > 0, strategy->refine_rows() == 0) << spec;
  }
}

TEST_P(Mixing, AForkMixesAsWhatItComesFrom) {
  const Models models = pair(GetParam());
  Talk talk(models);
  talk.read("kv-prediction:tail=8,mix=0.25", some_tokens(60));
  Sequence copy = talk.sequence().fork(models, 60);
  talk.answer(8);
  Sequence* const one[] = {&copy};
  PrefillWorkspace workspace;
  Logits logits(kSmallVocab);
  for (size_t t = 1; t < 8; ++t) {
    copy.tokens.push_back(talk.last(8)[t - 1]);
    next_logits(models, one, logits.data(), workspace);
    EXPECT_TRUE(logits == talk.logits[t]) << t;
  }
}

TEST_P(Mixing, ARefusedForecastIsAnsweredByTheBaseAlone) {
  const Models models = pair(GetParam());
  Talk refused(models), exact(models);
  refused.read("kv-prediction:tail=8,gate=1000,mix=0.25", some_tokens(60));
  refused.answer(6);
  exact.read("exact", some_tokens(60));
  exact.answer(6);
  EXPECT_TRUE(refused.logits == exact.logits);
}

TEST_P(Mixing, BeyondTheAuxiliarysContextTheBaseAnswersAlone) {
  const Models models = pair(GetParam(), 64);
  Talk mixed(models), base(models);
  mixed.read("kv-prediction:tail=8,mix=0.25", some_tokens(60));
  mixed.answer(10);
  base.read("kv-prediction:tail=8", some_tokens(60));
  base.answer(10, mixed.last(10));
  for (size_t t = 0; t < 10; ++t) {
    EXPECT_EQ(mixed.logits[t] == base.logits[t], t > 4) << t;
  }
  EXPECT_EQ(mixed.sequence().auxiliary.next_position(), 64);
}

TEST_P(Mixing, AStoppedPrefillLeavesBothCachesAsTheyWere) {
  const Models models = pair(GetParam());
  Talk talk(models);
  talk.read("kv-prediction:tail=8,mix=0.25", some_tokens(60));
  talk.answer(4);
  const auto more = some_tokens(30, 5);
  Sequence& sequence = talk.sequence();
  sequence.tokens.insert(sequence.tokens.end(), more.begin(), more.end());
  Sequence* const one[] = {&sequence};
  Logits logits(kSmallVocab);
  PrefillWorkspace workspace;
  std::stop_source stop;
  stop.request_stop();
  const auto strategy = *PrefillStrategy::parse("kv-prediction:tail=8,mix=0.25");
  EXPECT_TRUE(strategy->prefill(models, one, logits.data(), workspace, stop.get_token()).stopped);
  EXPECT_EQ(sequence.base.next_position(), 63);
  EXPECT_EQ(sequence.auxiliary.next_position(), 63);
  sequence.tokens.resize(64);
  Talk same(models);
  same.read("kv-prediction:tail=8,mix=0.25", some_tokens(60));
  same.answer(4);
  talk.read("kv-prediction:tail=8,mix=0.25", more);
  talk.answer(4);
  same.read("kv-prediction:tail=8,mix=0.25", more);
  same.answer(4);
  EXPECT_TRUE(talk.logits == same.logits);
}

TEST_P(Mixing, TextsThatAreGivenAreScoredByWhatWouldHaveAnswered) {
  const Models models = pair(GetParam());
  const std::vector<Tokens> prompts = {some_tokens(50), some_tokens(3, 1), some_tokens(70, 2),
                                       some_tokens(33, 3)};
  const char* const specs[] = {"kv-prediction:tail=8,mix=0.25", "kv-prediction:tail=8,mix=0.25",
                               "kv-prediction:tail=8", "kv-prediction:tail=8,mix=0.25"};
  const auto continuation = some_tokens(9, 7);
  std::deque<Talk> talks;
  std::vector<Sequence*> sequences;
  std::vector<int64_t> ends;
  std::vector<Logits> expected;
  for (size_t i = 0; i < prompts.size(); ++i) {
    Talk alone(models);
    alone.read(specs[i], prompts[i]);
    alone.answer(9, continuation);
    expected.insert(expected.end(), alone.logits.begin() + 1, alone.logits.end());
    Talk& talk = talks.emplace_back(models);
    talk.read(specs[i], prompts[i]);
    Sequence& sequence = talk.sequence();
    sequence.tokens.insert(sequence.tokens.end(), continuation.begin(), continuation.end());
    if (i == 3) sequence.auxiliary.truncate(10);  // whatever it has yet to read
    sequences.push_back(&sequence);
    ends.push_back(std::ssize(sequence.tokens) - 1);
  }
  PrefillWorkspace workspace;
  AlignedBuffer<float> logits;
  std::vector<Logits> found(expected.size());
  ASSERT_TRUE(run_for_mixed_logits(models, sequences, ends, 5, 3, workspace, logits,
                                   [&](int64_t first, int64_t rows, const float* block) {
                                     for (int64_t row = 0; row < rows; ++row, block += kSmallVocab)
                                       found[static_cast<size_t>(first + row)].assign(
                                           block, block + kSmallVocab);
                                   }));
  for (size_t row = 5; row < expected.size(); ++row) {
    EXPECT_TRUE(found[row] == expected[row]) << row;
  }
}

KVCAST_FOR_EVERY_WEIGHT_TYPE(Mixing);

TEST(MixSpec, IsReadAndNamesWhatIsWrong) {
  const auto canonical = [](const char* spec) { return (*PrefillStrategy::parse(spec))->spec(); };
  EXPECT_EQ(canonical("kv-prediction:mix=0.50,gate=-1,refine=auto,tail=16"),
            "kv-prediction:tail=16,refine=auto,gate=-1,mix=0.5");
  EXPECT_EQ(canonical("kv-prediction:mix=off"), "kv-prediction");
  EXPECT_EQ((*PrefillStrategy::parse("kv-prediction:mix=0.35"))->mix(), 0.35);
  EXPECT_EQ((*PrefillStrategy::parse("kv-prediction"))->mix(), 0);
  for (const char* value : {"", "0", "1", "-0.5", "1.5", "x", "0.5x", "nan", "inf", "auto"}) {
    const auto strategy = PrefillStrategy::parse(std::string("kv-prediction:mix=") + value);
    ASSERT_FALSE(strategy) << value;
    EXPECT_EQ(strategy.error().message,
              std::string("prefill strategy \"kv-prediction:mix=") + value +
                  "\": mix must be off or the auxiliary's share of the logits, above 0 and below "
                  "1, as in mix=0.5");
  }
  EXPECT_FALSE(PrefillStrategy::parse("zero-cache:mix=0.5"));
}

TEST(MixSpec, NeedsAnAuxiliaryThatAnswers) {
  Models models = pair(WeightType::kF32);
  const auto strategy = *PrefillStrategy::parse("kv-prediction:mix=0.5");
  EXPECT_TRUE(check_strategy(*strategy, models));
  models.shared_layers = {0, 1, 2};
  const Status refused = check_strategy(*strategy, models);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message,
            "prefill strategy kv-prediction:mix=0.5 needs a bundle with an auxiliary that is a "
            "model; here the base's own first layers read the prompt");
}

}  // namespace
}  // namespace kvcast
